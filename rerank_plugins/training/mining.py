"""Hard negatives from any first stage, without those that are likely to be right answers."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.ordering import check_count
from rerank_plugins.training.data import normalized

logger = logging.getLogger(__name__)

# Two passages that share half of the smaller one's word triples say the same thing for a
# question about it: overlapping chunks and edited copies do, passages of one subject do not.
DEFAULT_NEAR_DUPLICATE = 0.5
_SHINGLE = 3


@dataclass(frozen=True, slots=True)
class Group:
    """One question, a passage that answers it, and passages that do not.

    Attributes:
        query: The question.
        positive: The passage that answers it.
        negatives: Passages that do not, at least one.
        teacher_scores: A teacher's scores of the positive and then of each negative, for
            distillation; None when there is no teacher.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    teacher_scores: tuple[float, ...] | None = None

    @property
    def passages(self) -> tuple[str, ...]:
        """The positive, then the negatives."""
        return (self.positive, *self.negatives)


def mine_hard_negatives(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    first_stage: FirstStage,
    *,
    ranks: tuple[int, int] = (1, 50),
    negatives: int = 7,
    margin: float | None = None,
    answers: Mapping[str, Sequence[str]] | None = None,
    near_duplicate: float = DEFAULT_NEAR_DUPLICATE,
    teacher_scores: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> list[Group]:
    """One group a question and relevant passage, with negatives drawn from a rank window.

    Passages judged not relevant (a qrels score of 0) are taken first; the first stage's
    finds fill up what is missing. A find is passed over when it is likely to answer the
    question after all: it was judged relevant, has the text of a relevant passage, shares
    half of its word triples with one, holds one of the answers, or scores too near to the
    relevant passage.

    Args:
        corpus: Passage text by id, in the order that ``first_stage`` indexed: a candidate's
            key is the position in it.
        queries: Question text by id.
        qrels: By question id, the grade of each judged passage.
        first_stage: Where the negatives come from.
        ranks: First and last rank of the window, from 1, both inside.
        negatives: How many a group at most; drawn from what the window leaves.
        margin: Passes over finds that score above ``(1 - margin)`` times the relevant
            passage's own score; None passes over none. A relevant passage that the first
            stage does not match at all has no score to compare with.
        answers: By question id, strings; a find that holds one as whole words is passed over.
        near_duplicate: Share of the smaller passage's word triples that makes two passages
            the same one; above 1 switches the check off.
        teacher_scores: By question id, a teacher's score of passages. Groups all of whose
            passages have one carry them.
        seed: Of the draw; the same question draws the same passages in any order.

    Returns:
        Groups in the order of the questions. Questions for which nothing is left, or that
        have no relevant passage, have none; the log says how many.

    Raises:
        InvalidInputError: A number is out of its range, or the first stage indexes another
            number of passages than the corpus has.
    """
    check_count("negatives", negatives, minimum=1)
    low, high = ranks
    if not 1 <= low <= high:
        raise InvalidInputError(f"ranks must be (first, last) with 1 <= first <= last, got {ranks}")
    if margin is not None and not 0 <= margin < 1:
        raise InvalidInputError(f"margin must be in [0, 1), but got {margin}")
    if len(first_stage) != len(corpus):
        raise InvalidInputError(
            f"first_stage must index the corpus ({len(corpus)} passages), but it has "
            f"{len(first_stage)}: build it from list(corpus.values())"
        )
    ids = list(corpus)
    position = {doc: place for place, doc in enumerate(ids)}
    groups: list[Group] = []
    passed_over = 0
    without = 0
    for query_id, query in tqdm(queries.items(), desc="mining", unit="query", disable=None):
        grades = qrels.get(query_id, {})
        relevant = [doc for doc, grade in grades.items() if grade > 0]
        if not relevant:
            without += 1
            continue
        chance = random.Random(f"mine {seed} {query_id}")
        judged = [doc for doc, grade in grades.items() if grade <= 0]
        if len(judged) < negatives:
            keep = _Filter(
                [corpus[doc] for doc in relevant],
                (answers or {}).get(query_id, ()),
                near_duplicate,
                _ceiling(first_stage, query, [position[doc] for doc in relevant], margin),
            )
            finds = [
                (ids[find.key], find.score) for find in first_stage.search(query, high)[low - 1 :]
            ]
            unjudged = [(doc, score) for doc, score in finds if doc not in grades]
            pool = [doc for doc, score in unjudged if keep(corpus[doc], score)]
            passed_over += len(unjudged) - len(pool)
            fill = negatives - len(judged)
            chosen = judged + (pool if len(pool) <= fill else chance.sample(pool, fill))
        else:
            chosen = chance.sample(judged, negatives)
        texts = {corpus[doc]: doc for doc in reversed(chosen)}
        drawn = [doc for doc in chosen if texts[corpus[doc]] == doc]
        if not drawn:
            without += 1
            continue
        known = (teacher_scores or {}).get(query_id, {})
        for doc in relevant:
            members = [doc, *drawn]
            scores = tuple(known[m] for m in members) if known.keys() >= set(members) else None
            groups.append(
                Group(query, corpus[doc], tuple(corpus[other] for other in drawn), scores)
            )
    logger.info(
        "mined %d groups from %d questions; %d finds were passed over as likely right; "
        "%d questions have no relevant passage or no negative left",
        len(groups),
        len(queries),
        passed_over,
        without,
    )
    return groups


def _ceiling(
    first_stage: FirstStage, query: str, relevant: Sequence[int], margin: float | None
) -> float | None:
    """The highest first-stage score that a negative may have; None for any."""
    if margin is None:
        return None
    mask = np.zeros(len(first_stage), dtype=np.bool_)
    mask[list(relevant)] = True
    own = [
        find.score
        for find in first_stage.search(query, len(relevant), mask=mask)
        if find.score is not None
    ]
    # The margin is a share of the score's size, so that it also works for negative scores.
    return min(score - margin * abs(score) for score in own) if own else None


class _Filter:
    """Says whether a find may serve as a negative."""

    def __init__(
        self,
        relevant: Sequence[str],
        answers: Sequence[str],
        near_duplicate: float,
        ceiling: float | None,
    ) -> None:
        self._relevant = [normalized(text) for text in relevant]
        self._shingles = [_shingles(text) for text in self._relevant]
        self._answers = [f" {answer} " for answer in map(normalized, answers) if answer]
        self._near_duplicate = near_duplicate
        self._ceiling = ceiling

    def __call__(self, text: str, score: float | None) -> bool:
        if self._ceiling is not None and score is not None and score > self._ceiling:
            return False
        text = normalized(text)
        if text in self._relevant or any(answer in f" {text} " for answer in self._answers):
            return False
        shingles = _shingles(text)
        return all(_overlap(shingles, other) < self._near_duplicate for other in self._shingles)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    size = min(_SHINGLE, len(words))
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def _overlap(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """Share of the smaller set that is in the larger; of the smaller, so that a passage that
    holds the whole of a shorter one counts as its duplicate."""
    smaller = min(len(one), len(other))
    return len(one & other) / smaller if smaller else 0.0
