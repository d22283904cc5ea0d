"""Scores of a teacher for distillation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._progress import progress
from rerank_plugins._validation import check_finite
from rerank_plugins.errors import ScoreCountError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions, Scorer
from rerank_plugins.training.config import Teacher, TeacherCall
from rerank_plugins.training.mining import Group

logger = logging.getLogger(__name__)

_PAIRS_AT_A_TIME = 256


def with_teacher_scores(
    groups: Sequence[Group], teacher: Teacher, kept_in: Path | None = None
) -> list[Group]:
    """The groups with the teacher's score of each passage.

    Args:
        groups: Whose passages to score; scores that they carry already are replaced.
        teacher: A model name or folder as `load_reranker` takes it, a scorer, or a callable
            from pairs to scores (such as ``CrossEncoder.predict``).
        kept_in: File for the scores, so that a resumed run need not compute them again.

    Raises:
        ScoreCountError: If the teacher gave another number of scores than pairs.
        NonFiniteScoreError: If a score is NaN or infinite.
        ModelError: If the teacher cannot be loaded.
    """
    pairs = [(group.query, passage) for group in groups for passage in group.passages]
    scores = _kept(kept_in, pairs)
    if scores is None:
        scores = _scored(pairs, teacher)
        if kept_in is not None:
            part = kept_in.with_suffix(".part.npz")
            np.savez(part, scores=scores, digest=_digest(pairs))
            part.replace(kept_in)
    result = []
    start = 0
    for group in groups:
        end = start + len(group.passages)
        result.append(replace(group, teacher_scores=tuple(scores[start:end].tolist())))
        start = end
    return result


def _scored(pairs: list[tuple[str, str]], teacher: Teacher) -> NDArray[np.float64]:
    call = _callable(teacher)
    scores: list[float] = []
    for start in progress(range(0, len(pairs), _PAIRS_AT_A_TIME), desc="teacher", unit="batch"):
        part = pairs[start : start + _PAIRS_AT_A_TIME]
        given = check_finite(call(part))
        if given.shape != (len(part),):
            raise ScoreCountError(
                f"a teacher must give one score per pair, but gave scores of shape "
                f"{given.shape} for {len(part)} pairs"
            )
        scores.extend(given.tolist())
    return np.asarray(scores, dtype=np.float64)


def _callable(teacher: Teacher) -> TeacherCall:
    if isinstance(teacher, str | Path):
        teacher = load_scorer(teacher)
    if isinstance(teacher, Scorer):
        scorer = teacher
        return lambda pairs: scorer.score(pairs, ScoreOptions()).logits.tolist()
    return teacher


def _kept(path: Path | None, pairs: list[tuple[str, str]]) -> NDArray[np.float64] | None:
    if path is None or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as kept:
        if str(kept["digest"]) != _digest(pairs):
            return None
        scores: NDArray[np.float64] = kept["scores"]
    logger.info("the teacher's scores were computed before and are read from %s", path)
    return scores


def _digest(pairs: Sequence[tuple[str, str]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for query, passage in pairs:
        state.update(f"{query}\x00{passage}\x01".encode("utf-8", "surrogatepass"))
    return state.hexdigest()
