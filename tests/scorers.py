"""Fake scorers whose logits the tests choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rerank_plugins.scoring.base import PairScores, ScoreOptions


class TableScorer:
    """Gives the logits that a table has for each passage, and keeps what it was asked.

    Args:
        logits: Logit by passage.
        truncated: Passages that count as truncated.
        first_stage_weight: The model's own default blend.
    """

    name = "table"

    def __init__(
        self,
        logits: Mapping[str, float],
        *,
        truncated: Sequence[str] = (),
        first_stage_weight: float = 0.0,
    ) -> None:
        self.logits = logits
        self.truncated = truncated
        self.first_stage_weight = first_stage_weight
        self.calls: list[tuple[list[tuple[str, str]], ScoreOptions]] = []

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """What the table says."""
        self.calls.append((list(pairs), options))
        return PairScores(
            np.asarray([self.logits[passage] for _, passage in pairs], dtype=np.float64),
            np.asarray([passage in self.truncated for _, passage in pairs], dtype=np.bool_),
        )

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"model": self.name}


class AnsweringScorer:
    """Answers whatever it was given, right or wrong."""

    name = "answering"
    first_stage_weight = 0.0

    def __init__(self, logits: Any, truncated: Any = None) -> None:
        self.answer = PairScores(
            logits, np.zeros(np.shape(logits), np.bool_) if truncated is None else truncated
        )

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """The same answer to every question."""
        return self.answer

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"model": self.name}
