"""A clock that stands still but for what a fake scorer takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest.mock import patch

from typing_extensions import Self

from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import OverlapScorer


class Clock:
    """Seconds that pass only when somebody says so; ``with clock:`` deadlines go by it."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._patch = patch("rerank_plugins.reranking.deadline.perf_counter", lambda: self.seconds)

    def __enter__(self) -> Self:
        self._patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.stop()


class SlowScorer(OverlapScorer):
    """Takes time on a `Clock`: so much a pair, or what a function of the pair says.

    Args:
        clock: That passes.
        seconds: For a pair.
        overhead: For a call.
        loading: For the first use.
    """

    def __init__(
        self,
        clock: Clock,
        seconds: float | Callable[[tuple[str, str]], float],
        *,
        overhead: float = 0.0,
        loading: float = 0.0,
    ) -> None:
        self.clock, self.overhead, self.loading = clock, overhead, loading
        self.seconds = seconds if callable(seconds) else lambda pair: seconds
        self.weight = 0.0
        self.calls: list[list[tuple[str, str]]] = []
        super().__init__()

    @property
    def first_stage_weight(self) -> float:
        """Known once the model is loaded."""
        self.clock.seconds += self.loading
        self.loading = 0.0
        return self.weight

    @first_stage_weight.setter
    def first_stage_weight(self, weight: float) -> None:
        self.weight = weight

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """The fake's scores, later."""
        self.calls.append(list(pairs))
        self.clock.seconds += self.overhead + sum(map(self.seconds, pairs))
        return super().score(pairs, options)
