"""Pairs that several first stages bring are scored once, and their time is counted each time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer, checked

# Some 250 bytes each; texts are not copied. Beyond it, pairs are scored again.
MOST_PAIRS: Final = 500_000


class _Known(NamedTuple):
    logit: float
    truncated: bool
    seconds: float


class SharedScores:
    """A scorer that remembers what it was asked, and how long that took.

    Latencies stay honest: a pair that was scored before adds to ``saved_seconds`` its share of
    the time of the call that scored it. The caller adds that to the time that it measures.

    Args:
        scorer: What scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.saved_seconds = 0.0
        self._known: dict[tuple[str, str], _Known] = {}
        self._options: ScoreOptions | None = None

    @property
    def name(self) -> str:
        """The scorer's."""
        return self.scorer.name

    @property
    def first_stage_weight(self) -> float:
        """The scorer's."""
        return self.scorer.first_stage_weight

    def describe(self) -> dict[str, Any]:
        """The scorer's."""
        return self.scorer.describe()

    def forget(self, query: str) -> None:
        """Scores this query's pairs again the next time."""
        for pair in [pair for pair in self._known if pair[0] == query]:
            del self._known[pair]

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """As the scorer scores; pairs that are known are not asked for again."""
        if options != self._options:  # windows, for example, change a score
            self._known.clear()
            self._options = options
        given = [(query, passage) for query, passage in pairs]
        found = [self._known.get(pair) for pair in given]
        missing = list(dict.fromkeys(p for p, known in zip(given, found, strict=True) if not known))
        self.saved_seconds += sum(known.seconds for known in found if known)
        new: dict[tuple[str, str], _Known] = {}
        if missing:
            start = time.perf_counter()
            scores = checked(self.scorer.score(missing, options), len(missing))
            seconds = (time.perf_counter() - start) / len(missing)
            rows = zip(missing, scores.logits.tolist(), scores.truncated.tolist(), strict=True)
            new = {pair: _Known(logit, truncated, seconds) for pair, logit, truncated in rows}
            if len(self._known) + len(new) <= MOST_PAIRS:
                self._known |= new
        whole = [known or new[pair] for pair, known in zip(given, found, strict=True)]
        return PairScores(
            np.asarray([known.logit for known in whole], dtype=np.float64),
            np.asarray([known.truncated for known in whole], dtype=np.bool_),
        )
