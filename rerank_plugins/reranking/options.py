"""The options of a `Reranker`, and what one call sets in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from rerank_plugins.scoring.base import LongPassages
from rerank_plugins.scoring.cache import ScoreCache

ScoreScale = Literal["probability", "logit"]
OnError = Literal["raise", "first_stage"]


class ScoringOptions(TypedDict, total=False):
    """The keyword options of `Reranker` other than how many passages to keep."""

    scale: ScoreScale
    deduplicate: bool
    long_passages: LongPassages | None
    windows: int
    max_tokens: int
    batch_tokens: int
    first_stage_weight: float | None
    on_error: OnError
    deadline_ms: float | None
    cache: ScoreCache | int | str | Path | None


class RerankerOptions(ScoringOptions, total=False):
    """The keyword options of `Reranker`, for functions that pass them on."""

    top_n: int | None
    score_threshold: float | None


class Call(NamedTuple):
    """What holds for one call; None for the reranker's own."""

    start: float
    top_n: int | None
    score_threshold: float | None
    first_stage_seconds: float | None
    deadline_ms: float | None
