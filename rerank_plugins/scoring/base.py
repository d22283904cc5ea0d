"""The protocol that every scorer follows, and what passes through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

# The typing of Python 3.12: isinstance() of the older one runs properties, and would load models.
from typing_extensions import Protocol, runtime_checkable

from rerank_plugins._validation import check_finite
from rerank_plugins.errors import ScoreCountError

LongPassages = Literal["truncate", "max", "mean", "first", "best"]
LONG_PASSAGES: tuple[str, ...] = get_args(LongPassages)

DEFAULT_BATCH_TOKENS = 8192
DEFAULT_WINDOWS = 3
DEFAULT_MAX_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How a scorer shall work through the pairs; ``batch_tokens`` changes no score.

    Attributes:
        batch_tokens: Padded tokens in one forward pass, at most; bounds the memory. A pair
            longer than that is scored alone.
        long_passages: What to do with a passage that does not fit: ``truncate`` it to the
            model's length; or split it into windows and take the ``max`` or the ``mean`` of
            their logits, the ``first`` window only, or the ``best``: the highest logit of the
            few that share most with the query. None takes the model's own default.
        windows: How many windows ``best`` reads of a passage.
        max_tokens: Tokens read for one query, at most. Each passage's first choice of a window
            is always read; beyond the cap, the others are not.
        stop_at: When to answer with what there is, on the clock of ``time.perf_counter``, for
            scorers whose ``keeps_deadlines`` is true; None for when all is done.
    """

    batch_tokens: int = DEFAULT_BATCH_TOKENS
    long_passages: LongPassages | None = None
    windows: int = DEFAULT_WINDOWS
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop_at: float | None = None


@dataclass(frozen=True, slots=True)
class PairScores:
    """What a scorer answers.

    Attributes:
        logits: Shape (pairs,), float64, finite; higher is more relevant; sigmoid of it is
            the probability of relevance.
        truncated: Shape (pairs,), True where the model saw only a part of the pair.
        cached: Shape (pairs,), True where the score was kept from earlier, so that nobody
            takes the time of such an answer for the model's; None when none was.
        spans: Shape (pairs, 2), the characters of the passage, start and end, that the score
            comes from; -1, -1 where that is not known. None when the scorer does not say.
        scored: Shape (pairs,), False where time was too short for a score, whose logit says
            nothing then; None when all are scored.
        whole: Shape (pairs,), False where a limit of this call (time, ``max_tokens``) left out
            what would be read without it: such a score holds for this call alone. None when
            none was cut so.
    """

    logits: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    cached: NDArray[np.bool_] | None = None
    spans: NDArray[np.int64] | None = None
    scored: NDArray[np.bool_] | None = None
    whole: NDArray[np.bool_] | None = None


@runtime_checkable
class Scorer(Protocol):
    """Scores pairs. Must be safe to call from many threads at once."""

    @property
    def name(self) -> str:
        """What `Ranking.model` shows; known before anything is loaded."""
        ...

    @property
    def first_stage_weight(self) -> float:
        """The blend with first-stage scores that suits the model; 0.0 for none."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit a (query, passage) pair, in the order given."""
        ...

    def describe(self) -> dict[str, Any]:
        """Native Python types: what scores, on what, with which settings."""
        ...


def checked(scores: PairScores, pairs: int) -> PairScores:
    """The same scores, once their number and their finiteness are sure.

    Raises:
        ScoreCountError: If there are more or fewer scores than pairs.
        NonFiniteScoreError: If a score is NaN or infinite.
    """
    logits, truncated = np.asarray(scores.logits), np.asarray(scores.truncated, dtype=np.bool_)
    for name, values in (("logits", logits), ("truncated", truncated)):
        if values.shape != (pairs,):
            raise ScoreCountError(
                f"a scorer must give one score per pair, but gave {name} of shape {values.shape} "
                f"for {pairs} pairs"
            )
    if scores.spans is not None and np.shape(scores.spans) != (pairs, 2):
        raise ScoreCountError(
            f"spans must have the shape ({pairs}, 2), but a scorer gave {np.shape(scores.spans)}"
        )
    return replace(scores, logits=check_finite(logits), truncated=truncated)


def no_spans(pairs: int) -> NDArray[np.int64]:
    """Shape (pairs, 2): no span is known."""
    return np.full((pairs, 2), -1, dtype=np.int64)
