"""From groups of passages to what a run learns from: examples, model, loss and evaluator."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.evaluation import SequentialEvaluator

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.config import HeldBack, TrainingConfig
from rerank_plugins.training.held_back import make_evaluator
from rerank_plugins.training.mining import Group
from rerank_plugins.training.model import TrainedCrossEncoder, load_for_training
from rerank_plugins.training.recipes import Examples, examples, loss_for
from rerank_plugins.training.teacher import with_teacher_scores
from rerank_plugins.training.windows import best_window

# Word, position and type tables of BERT and all that descend from it.
EMBEDDINGS = r"embeddings\.\w+_embeddings"


@dataclass(frozen=True, slots=True)
class Learned:
    """What one run learns, and from what.

    Attributes:
        groups: The mined groups, with the teacher's scores where there is one.
        chosen: The recipe's examples of them.
        model: What is trained, in place.
        dataset: Rows as the loss takes them.
        loss: On the model.
        evaluator: What decides which weights are kept; None to keep the last.
        batch: Rows per batch.
    """

    groups: Sequence[Group]
    chosen: Examples
    model: TrainedCrossEncoder
    dataset: Any
    loss: torch.nn.Module
    evaluator: SequentialEvaluator | None
    batch: int


def prepare(
    config: TrainingConfig, groups: Sequence[Group], held_back: Sequence[HeldBack], work: Path
) -> Learned:
    """Loads the base and makes the recipe's examples of the groups.

    Args:
        config: Base, recipe, seed.
        groups: What to learn from.
        held_back: What evaluation reranks.
        work: Folder that keeps the teacher's scores.

    Raises:
        InvalidInputError: If there are no groups, scores for ``ranknet`` are missing, or the
            base cannot be merged with.
        ModelError: If the base or the teacher cannot be used.
    """
    if config.recipe == "ranknet" and config.teacher is not None:
        groups = with_teacher_scores(groups, config.teacher, work / "teacher-scores.npz")
    chosen = examples(config.recipe, groups, unanswered=config.unanswered, seed=config.seed)
    torch.manual_seed(config.seed)
    device = None if config.device == "auto" else config.device
    model = load_for_training(config.base, device=device, max_length=config.max_length)
    if config.merge is not None and model.headless:
        raise InvalidInputError(
            f"merge needs a base with a scoring head, which {config.base} lacks: "
            "train it first, then merge that checkpoint with one tuned from it"
        )
    model.bf16 = uses_bf16(config, model)
    freeze_embeddings(model, frozen=config.embeddings_rate == 0)
    return Learned(
        groups=groups,
        chosen=chosen,
        model=model,
        dataset=_dataset(chosen, _window_words(config, model, groups)),
        loss=loss_for(config.recipe, model, groups),
        evaluator=make_evaluator(held_back, model.first_stage_weight),
        batch=max(1, round(config.queries_per_batch * len(chosen.index) / len(groups))),
    )


def _dataset(chosen: Examples, words: int | None) -> Dataset:
    """Positions only; texts are looked up, and windows cut, when a batch is made."""

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = [chosen.row(*chosen.index[at]) for at in batch["at"]]
        if words is not None:
            for row in made:
                if "passages" in row:
                    row["passages"] = [
                        best_window(row["query"], text, words) for text in row["passages"]
                    ]
                else:
                    row["passage"] = best_window(row["query"], row["passage"], words)
        return {key: [row[key] for row in made] for key in made[0]}

    return Dataset.from_dict({"at": list(range(len(chosen.index)))}).with_transform(rows)


def _window_words(
    config: TrainingConfig, model: TrainedCrossEncoder, groups: Sequence[Group]
) -> int | None:
    """Words per window in training, matching the windows that scoring will use."""
    sample = [group.positive for group in groups[:: max(1, len(groups) // 100)]]
    words = sum(len(text.split()) for text in sample)
    tokens_a_word = sum(map(model.encoder.count_tokens, sample)) / max(1, words)
    if config.window_words is not None:
        model.use_windows(math.ceil(config.window_words * tokens_a_word))
        return config.window_words
    if model.window_tokens is None or model.long_passages == "truncate":
        return None
    return max(2, int(model.window_tokens / tokens_a_word))


def freeze_embeddings(model: TrainedCrossEncoder, *, frozen: bool) -> None:
    """Excludes word, position and type tables from training, or includes them."""
    for name, weight in model.named_parameters():
        if re.search(EMBEDDINGS, name):
            weight.requires_grad_(not frozen)


def uses_bf16(config: TrainingConfig, model: TrainedCrossEncoder) -> bool:
    """Whether to train under bf16 autocast.

    By itself only where the hardware has instructions for it: on a CPU without them it was
    measured to be ten times slower than fp32.
    """
    if config.precision != "auto":
        return config.precision == "bf16"
    if model.device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if model.device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False
