"""What is known of each system of a comparison, query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.evaluation.significance import Interval


@dataclass(frozen=True, slots=True)
class SystemResult:
    """A first stage, alone or with a reranker.

    Attributes:
        name: What tables show.
        first_stage: Name of the first stage.
        reranker: Name of the reranker; None for the first stage alone.
        values: By measure, shape (queries,), in the order of the comparison's queries.
        rankings: By query id, passage ids, best first.
        scores: By query id, the system's own score of each ranked passage; None where it
            gives none.
        seconds: Shape (queries,), first stage and reranking together.
        pairs: How many (query, passage) pairs the reranker scored; 0 without one.
        scoring_seconds: Total time that the reranker took for all pairs.
    """

    name: str
    first_stage: str
    reranker: str | None
    values: Mapping[str, NDArray[np.float64]]
    rankings: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, tuple[float | None, ...]]
    seconds: NDArray[np.float64]
    pairs: int
    scoring_seconds: float

    @property
    def pairs_per_second(self) -> float | None:
        """The reranker's throughput; None without a reranker."""
        return self.pairs / self.scoring_seconds if self.pairs else None

    def latency(self, percentile: float) -> float:
        """Seconds within which ``percentile`` percent of the queries were answered."""
        return float(np.percentile(self.seconds, percentile))


@dataclass(frozen=True, slots=True)
class Difference:
    """One system against another, query by query.

    Attributes:
        system: Name.
        baseline: Name of the system it is compared with.
        measure: Name.
        mean: System minus baseline, mean over the queries.
        interval: 95% paired bootstrap interval of the mean; None for a single query.
        p_value: Of the paired randomization test.
        corrected: The p-value with Holm's correction for the number of comparisons.
        better: Queries on which the system is above the baseline.
        worse: Queries on which it is below.
    """

    system: str
    baseline: str
    measure: str
    mean: float
    interval: Interval | None
    p_value: float
    corrected: float
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class Hurt:
    """A query on which reranking lost.

    Attributes:
        query_id: Of the set.
        query: Its text.
        before: The measure with the first stage alone.
        after: With reranking.
        relevant: The relevant passage that the first stage had highest; None if it found none.
        rank_before: Its rank from 1; None if it was not found.
        rank_after: Likewise, after reranking.
        preferred: The passage that reranking put first; None if it kept none.
    """

    query_id: str
    query: str
    before: float
    after: float
    relevant: str | None
    rank_before: int | None
    rank_after: int | None
    preferred: str | None


@dataclass(frozen=True, slots=True)
class ScoredPassages:
    """Every passage that a system gave a score, over all queries; for plots.

    Attributes:
        scores: Shape (n,).
        relevant: Shape (n,), True where the passage is judged relevant.
        words: Shape (n,), the passages' lengths in words.
    """

    scores: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    words: NDArray[np.int64]


def system_name(first_stage: str, reranker: str | None) -> str:
    """What tables call the two together."""
    return first_stage if reranker is None else f"{first_stage} + {reranker}"
