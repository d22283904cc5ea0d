"""Scoring against the clock: the first pairs first, in chunks that fit the time left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer, checked, no_spans

# What a pair costs beside its characters (special tokens, bookkeeping), in characters.
_PAIR = 16
# A chunk may take half of the time left, so that one that takes twice as long still ends in
# time; and be at most four times all before it, since the first, of one pair, tells little.
_SHARE = 0.5
_GROWTH = 4


def now() -> float:
    """Seconds on the clock that deadlines are held against."""
    return perf_counter()


class Pace:
    """Seconds a character of text takes to score, as the last chunk had it.

    Characters stand for tokens, which only the scorer can count. None before the first chunk.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None


def score_in_time(
    scorer: Scorer,
    pairs: Sequence[tuple[str, str]],
    options: ScoreOptions,
    *,
    stop_at: float,
    pace: Pace,
) -> PairScores:
    """Scores of as many pairs as fit, the first ones first.

    A scorer that keeps deadlines by itself is asked once; any other in chunks of pairs. A chunk
    that has begun is finished. The first pair is scored as long as there is any time at all,
    however slow the model was before.

    Args:
        scorer: What scores.
        pairs: The most promising first.
        options: For the scorer.
        stop_at: On the clock of `now`.
        pace: What earlier calls learned of the scorer's speed; learns from this one.

    Returns:
        Scores of all pairs, with ``scored`` where there is one.
    """
    if getattr(scorer, "keeps_deadlines", False):
        return checked(scorer.score(pairs, replace(options, stop_at=stop_at)), len(pairs))
    parts: list[PairScores] = []
    done = 0
    while done < len(pairs):
        count = _fitting(pairs, done, stop_at - now(), pace.seconds)
        if count == 0:
            break
        chunk = pairs[done : done + count]
        begin = now()
        scores = checked(scorer.score(chunk, options), count)
        seconds = now() - begin
        known = np.zeros(count, np.bool_) if scores.cached is None else scores.cached
        computed = sum(_cost(pair) for pair, cached in zip(chunk, known, strict=True) if not cached)
        if computed:  # what a cache answers tells nothing of the model
            pace.seconds = seconds / computed
        parts.append(scores)
        done += count
    left = len(pairs) - done
    return PairScores(
        np.concatenate([*(part.logits for part in parts), np.zeros(left)]),
        np.concatenate([*(part.truncated for part in parts), np.zeros(left, np.bool_)]),
        spans=np.concatenate([*map(_spans, parts), no_spans(left)]),
        scored=np.arange(len(pairs)) < done,
    )


def _spans(scores: PairScores) -> NDArray[np.int64]:
    return no_spans(len(scores.logits)) if scores.spans is None else scores.spans


def _fitting(
    pairs: Sequence[tuple[str, str]], done: int, seconds: float, pace: float | None
) -> int:
    """How many pairs from ``done`` on to score next; 0 to stop."""
    if seconds <= 0:
        return 0
    if pace is None:
        return 1
    most = len(pairs) - done if done == 0 else min(len(pairs) - done, _GROWTH * done)
    spent = 0.0
    for count in range(most):
        cost = pace * _cost(pairs[done + count])
        if spent + cost > _SHARE * seconds:
            # One alone may take all the time left; the very first, any time.
            return count or int(done == 0 or cost <= seconds)
        spent += cost
    return most


def _cost(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1]) + _PAIR
