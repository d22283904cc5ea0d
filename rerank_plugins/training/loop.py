"""From groups of passages to a checkpoint folder: plan, train or resume, publish."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_model
from transformers import TrainerState
from transformers.utils import logging as transformers_logging

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.card import write_card
from rerank_plugins.training.config import HeldBack, TrainingConfig, TrainingResult
from rerank_plugins.training.cost import plan_run
from rerank_plugins.training.held_back import (
    BLENDED,
    FIRST_STAGE,
    MEAN_METRIC,
    figures,
    make_evaluator,
)
from rerank_plugins.training.merge import merge_weights
from rerank_plugins.training.mining import Group
from rerank_plugins.training.model import TrainedCrossEncoder, load_for_training
from rerank_plugins.training.recipes import Examples, examples, loss_for
from rerank_plugins.training.teacher import with_teacher_scores
from rerank_plugins.training.trainer import (
    Interrupt,
    Trainer,
    freeze_embeddings,
    is_finished,
    last_checkpoint,
    make_trainer,
    step_of,
    uses_bf16,
)
from rerank_plugins.training.windows import best_window

logger = logging.getLogger(__name__)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the progress bars for files read and written; the trainer's own stays."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


@_without_bars()
def fit(
    config: TrainingConfig,
    groups: Sequence[Group],
    held_back: Sequence[HeldBack] = (),
    facts: Sequence[Mapping[str, Any]] = (),
) -> TrainingResult:
    """Trains on groups that are already mined; `train` does the rest.

    Args:
        config: ``datasets`` and the mining options are ignored.
        groups: What to learn from.
        held_back: What evaluation reranks; without it nothing stops early and the last
            weights are kept.
        facts: For the card, one per data set: name, licence, questions, groups, held_back.

    Raises:
        InvalidInputError: ``out`` exists, there are no groups, scores for ``ranknet`` are
            missing, the time budget is too small for one step, or checkpoints of another
            configuration lie beside ``out``.
        ModelError: If the base or the teacher cannot be used.
        KeyboardInterrupt: The run was interrupted; a checkpoint was written, and the same call
            resumes from it.
    """
    began = time.monotonic()
    check_out(config.out)
    work = config.out.with_name(f"{config.out.name}.training")
    work.mkdir(parents=True, exist_ok=True)
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
    dataset = _dataset(chosen, _window_words(config, model, groups))
    loss = loss_for(config.recipe, model, groups, unanswered=config.unanswered > 0)
    weight = model.first_stage_weight
    evaluator = make_evaluator(held_back, weight)
    batch = max(1, round(config.queries_per_batch * len(chosen.index) / len(groups)))
    plan = plan_run(
        config,
        work / "plan.json",
        model,
        groups=groups,
        chosen=chosen,
        dataset=dataset,
        loss=loss,
        held_back=held_back,
        evaluator=evaluator,
        batch=batch,
        began=began,
    )
    logger.info("training %s with the recipe %s: %s", config.base, config.recipe, plan.estimate)
    checkpoint = last_checkpoint(work)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
    interrupt = Interrupt()
    trainer = make_trainer(
        config,
        work,
        model,
        dataset=dataset,
        loss=loss,
        evaluator=evaluator,
        batch=batch,
        steps=plan.estimate.steps,
        evaluate_every=plan.evaluate_every,
        interrupt=interrupt,
    )
    with interrupt.by_signals():
        _run(trainer, checkpoint, plan.estimate.steps)
    log = trainer.state.log_history
    evaluations = {int(entry["step"]): entry for entry in log if MEAN_METRIC in entry}
    history = [(step, float(entry[MEAN_METRIC])) for step, entry in evaluations.items()]
    best = max(history, key=lambda entry: entry[1])[0] if history else None
    kept = {} if best is None else evaluations[best]
    result = TrainingResult(
        out=config.out,
        steps=trainer.state.global_step,
        best_step=best,
        estimate=plan.estimate,
        first_stage=figures(held_back, plan.metrics, kind=FIRST_STAGE),
        before=figures(held_back, plan.metrics),
        after=figures(held_back, kept, prefix="eval_"),
        first_stage_weight=weight,
        blended_before=figures(held_back, plan.metrics, kind=BLENDED),
        blended_after=figures(held_back, kept, prefix="eval_", kind=BLENDED),
        history=history,
        losses=[(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry],
        resumed_from=None if checkpoint is None else step_of(checkpoint),
        seconds=time.monotonic() - began,
    )
    result = _publish(config, model, result, held_back=held_back, facts=facts)
    before, after = _as_used(result)
    for name in after:
        if after[name] < before[name]:
            logger.warning(
                "%s: the base is better on the held-back questions (%.4f, now %.4f)",
                name,
                before[name],
                after[name],
            )
    shutil.rmtree(work)
    return result


def _run(trainer: Trainer, checkpoint: Path | None, steps: int) -> None:
    """Trains from the checkpoint on; a finished run is only read again."""
    if checkpoint is None or not is_finished(checkpoint, steps):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint
    load_model(trainer.model.model, Path(best or checkpoint) / "model.safetensors")


def _as_used(result: TrainingResult) -> tuple[dict[str, float], dict[str, float]]:
    """Figures before and after as users get them: with the default blend where there is one."""
    return (
        {**result.before, **result.blended_before},
        {**result.after, **result.blended_after},
    )


def check_out(out: Path) -> None:
    """Raises InvalidInputError when the folder to write exists."""
    if out.exists():
        raise InvalidInputError(f"{out} exists: give a folder that does not, or remove it")


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


def _publish(
    config: TrainingConfig,
    model: TrainedCrossEncoder,
    result: TrainingResult,
    *,
    held_back: Sequence[HeldBack],
    facts: Sequence[Mapping[str, Any]],
) -> TrainingResult:
    """Writes checkpoint and card beside ``out``, then renames: ``out`` is whole or absent."""
    out = config.out
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        folder = Path(made) / "tuned"
        model.save_pretrained(str(folder), create_model_card=False)
        if config.merge is not None:
            folder = merge_weights(model.folder, folder, config.merge, Path(made) / "merged")
            evaluator = make_evaluator(held_back, model.first_stage_weight)
            if evaluator is not None:
                merged = load_for_training(
                    folder, device=str(model.device), max_length=config.max_length
                )
                merged.bf16 = model.bf16
                metrics = evaluator(merged)
                result = replace(
                    result,
                    after=figures(held_back, metrics),
                    blended_after=figures(held_back, metrics, kind=BLENDED),
                )
        write_card(folder, config, result, facts)
        folder.rename(out)
    return result
