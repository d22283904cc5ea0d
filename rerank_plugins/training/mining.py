"""Hard negatives from any first stage, without likely false negatives."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_plugins._progress import progress
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
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
            distillation; None without a teacher.
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
    """One group per question and relevant passage, with negatives drawn from a rank window.

    Passages judged not relevant (a qrels score of 0) are taken first; candidates of the first
    stage fill the rest. A candidate is skipped as a likely false negative if it was judged
    relevant, has the text of a relevant passage, shares half of its word triples with one,
    contains one of the answers, or scores too close to the relevant passage.

    Args:
        corpus: Passage text by id, in the order that ``first_stage`` indexed: a candidate's
            key is the position in it.
        queries: Question text by id.
        qrels: By question id, the grade of each judged passage.
        first_stage: Where the negatives come from.
        ranks: First and last rank of the window, from 1, both inside.
        negatives: Negatives per group, at most.
        margin: Skips candidates that score above ``(1 - margin)`` times the relevant passage's
            own score; None for no such limit. A relevant passage that the first stage does not
            match has no score to compare with.
        answers: By question id, strings; a candidate that contains one as whole words is skipped.
        near_duplicate: Share of the smaller passage's word triples that makes two passages
            duplicates; above 1 disables the check.
        teacher_scores: By question id, a teacher's score of passages. Groups all of whose
            passages have one carry them.
        seed: Of the draw; the same question draws the same passages in any order.

    Returns:
        Groups in the order of the questions. Questions for which nothing is left, or that
        have no relevant passage, get no group; the log says how many.

    Raises:
        InvalidInputError: If a number is out of its range, or the first stage indexes another
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
    mine = _Miner(
        corpus,
        first_stage,
        ranks=ranks,
        negatives=negatives,
        margin=margin,
        near_duplicate=near_duplicate,
    )
    groups: list[Group] = []
    without = 0
    for query_id, query in progress(queries.items(), desc="mining", unit="query"):
        grades = qrels.get(query_id, {})
        relevant = [doc for doc, grade in grades.items() if grade > 0]
        chance = random.Random(f"mine {seed} {query_id}")  # noqa: S311
        drawn = mine(query, grades, (answers or {}).get(query_id, ()), chance) if relevant else []
        without += not drawn
        known = (teacher_scores or {}).get(query_id, {})
        for doc in relevant if drawn else ():
            members = [doc, *drawn]
            scores = tuple(known[m] for m in members) if known.keys() >= set(members) else None
            groups.append(
                Group(query, corpus[doc], tuple(corpus[other] for other in drawn), scores)
            )
    logger.info(
        "mined %d groups from %d questions; skipped %d likely false negatives; "
        "%d questions have no relevant passage or no negative left",
        len(groups),
        len(queries),
        mine.skipped,
        without,
    )
    return groups


class _Miner:
    """Draws the negatives of one question after another."""

    def __init__(
        self,
        corpus: Mapping[str, str],
        first_stage: FirstStage,
        *,
        ranks: tuple[int, int],
        negatives: int,
        margin: float | None,
        near_duplicate: float,
    ) -> None:
        self._corpus = corpus
        self._ids = list(corpus)
        self._places = {doc: place for place, doc in enumerate(self._ids)}
        self._first_stage = first_stage
        self._ranks = ranks
        self._negatives = negatives
        self._margin = margin
        self._near_duplicate = near_duplicate
        self.skipped = 0

    def __call__(
        self, query: str, grades: Mapping[str, float], answers: Sequence[str], chance: random.Random
    ) -> list[str]:
        """Ids of the negatives, no two of the same text."""
        judged = [doc for doc, grade in grades.items() if grade <= 0]
        chance.shuffle(judged)
        chosen = {self._corpus[doc]: doc for doc in judged[: self._negatives]}
        if len(chosen) < self._negatives:
            low, high = self._ranks
            finds = self._first_stage.search(query, high)[low - 1 :]
            relevant = [doc for doc, grade in grades.items() if grade > 0]
            keep = _Filter(
                [self._corpus[doc] for doc in relevant],
                answers,
                self._near_duplicate,
                self._ceiling(query, relevant),
            )
            # In random order until enough have passed: the check costs more than the search.
            chance.shuffle(finds)
            for find in finds:
                if len(chosen) == self._negatives:
                    break
                doc = self._ids[find.key]
                if doc in grades:
                    continue
                if keep(self._corpus[doc], find.score):
                    chosen.setdefault(self._corpus[doc], doc)
                else:
                    self.skipped += 1
        return list(chosen.values())

    def _ceiling(self, query: str, relevant: Sequence[str]) -> float | None:
        """The highest first-stage score that a negative may have; None for any."""
        if self._margin is None:
            return None
        mask = np.zeros(len(self._ids), dtype=np.bool_)
        mask[[self._places[doc] for doc in relevant]] = True
        own = [
            find.score
            for find in self._first_stage.search(query, len(relevant), mask=mask)
            if find.score is not None
        ]
        # The margin is a share of the score's size, so that it works for negative scores too.
        return min(score - self._margin * abs(score) for score in own) if own else None


class _Filter:
    """Decides whether a candidate may serve as a negative."""

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
    """Share of the smaller set that is in the larger.

    Of the smaller, so that a passage that holds the whole of a shorter one is its duplicate.
    """
    smaller = min(len(one), len(other))
    return len(one & other) / smaller if smaller else 0.0
