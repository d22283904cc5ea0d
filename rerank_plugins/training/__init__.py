"""Fine-tuning of cross-encoders on your own questions; needs the extra ``train``.

Importing this package loads neither torch nor sentence-transformers: what is named here is
imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rerank_plugins.errors import MissingDependencyError

if TYPE_CHECKING:
    from rerank_plugins.training.config import (
        RECIPES,
        Estimate,
        HeldBack,
        TrainingConfig,
        TrainingResult,
    )
    from rerank_plugins.training.data import QuestionSet, hold_back, read_question_set
    from rerank_plugins.training.loop import fit
    from rerank_plugins.training.merge import merge_weights
    from rerank_plugins.training.mining import Group, mine_hard_negatives
    from rerank_plugins.training.pipeline import held_back_samples, train
    from rerank_plugins.training.teacher import with_teacher_scores
    from rerank_plugins.training.windows import best_window

_HOMES = {
    "RECIPES": "config",
    "Estimate": "config",
    "Group": "mining",
    "HeldBack": "config",
    "QuestionSet": "data",
    "TrainingConfig": "config",
    "TrainingResult": "config",
    "best_window": "windows",
    "fit": "loop",
    "held_back_samples": "pipeline",
    "hold_back": "data",
    "merge_weights": "merge",
    "mine_hard_negatives": "mining",
    "read_question_set": "data",
    "train": "pipeline",
    "with_teacher_scores": "teacher",
}

__all__ = [
    "RECIPES",
    "Estimate",
    "Group",
    "HeldBack",
    "QuestionSet",
    "TrainingConfig",
    "TrainingResult",
    "best_window",
    "fit",
    "held_back_samples",
    "hold_back",
    "merge_weights",
    "mine_hard_negatives",
    "read_question_set",
    "train",
    "with_teacher_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rerank_plugins"):
            raise
        raise MissingDependencyError(
            f"training needs {error.name}, which is not installed: "
            "pip install 'rerank-plugins[train]'"
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
