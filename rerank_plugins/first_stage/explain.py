"""Why a passage has its BM25 score: each query term's share, as Lucene's ``explain`` tells it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TermShare:
    """What one query term gives to the score of a passage.

    Attributes:
        term: As the analyzer made it.
        share: Its part of the score: times * idf * tf (k1 + 1) / (tf + k1 (1 - b + b length /
            mean length)); 0 where the passage lacks it.
        idf: ln(1 + (N - n + .5) / (n + .5)).
        tf: How often the passage has it.
        found_in: n, how many passages have it.
        times: How often the query has it.
    """

    term: str
    share: float
    idf: float
    tf: int
    found_in: int
    times: int


@dataclass(frozen=True)
class Explanation:
    """The BM25 score of one passage for one query.

    Attributes:
        key: The passage's.
        score: The sum of the shares.
        terms: The query's terms, the largest share first; those that the passage lacks too.
        passages: N, how many passages the index has.
        length: Terms in the passage.
        mean_length: Terms in a passage on average.
        k1: How fast repeats of a term stop counting.
        b: How much long passages are held back.
    """

    key: int
    score: float
    terms: tuple[TermShare, ...]
    passages: int
    length: int
    mean_length: float
    k1: float
    b: float

    def __str__(self) -> str:
        head = (
            f"{self.score:.4f} = passage {self.key}: {self.length} terms "
            f"(mean {self.mean_length:.1f}), k1 {self.k1:g}, b {self.b:g}"
        )
        lines = [
            f"  {one.share:.4f}  {one.term}: idf {one.idf:.4f} "
            f"(in {one.found_in} of {self.passages} passages), tf {one.tf}"
            + (f", {one.times} times in the query" if one.times > 1 else "")
            for one in self.terms
        ]
        return "\n".join([head, *lines])


def explained(
    key: int,
    query: Iterable[str],
    counts: dict[str, tuple[int, int]],
    *,
    passages: int,
    length: int,
    mean_length: float,
    k1: float,
    b: float,
) -> Explanation:
    """The explanation of a score from what it is made of.

    Args:
        key: The passage's.
        query: Terms, repeats included.
        counts: For each of these terms, in how many passages it is and how often in this one.
        passages: N.
        length: Terms in the passage.
        mean_length: Terms in a passage on average.
        k1: As in `BM25`.
        b: As in `BM25`.
    """
    shares = []
    for term, times in Counter(query).items():
        found_in, tf = counts[term]
        idf = math.log1p((passages - found_in + 0.5) / (found_in + 0.5))
        held_back = tf + k1 * (1 - b + b * length / mean_length) if tf else 1.0
        shares.append(
            TermShare(term, times * idf * tf * (k1 + 1) / held_back, idf, tf, found_in, times)
        )
    shares.sort(key=lambda one: -one.share)
    score = math.fsum(one.share for one in shares)
    return Explanation(key, score, tuple(shares), passages, length, mean_length, k1, b)
