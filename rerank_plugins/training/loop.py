"""From groups of passages to a checkpoint folder: plan, train or resume, publish."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from transformers import TrainerState
from transformers.utils import logging as transformers_logging

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.card import write_card
from rerank_plugins.training.config import HeldBack, Plan, TrainingConfig, TrainingResult
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
from rerank_plugins.training.prepare import Learned, prepare
from rerank_plugins.training.trainer import (
    Interrupt,
    Trainer,
    is_finished,
    last_checkpoint,
    make_trainer,
    step_of,
)

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
    learned = prepare(config, groups, held_back, work)
    plan = plan_run(config, work / "plan.json", learned, held_back, began=began)
    logger.info("training %s with the recipe %s: %s", config.base, config.recipe, plan.estimate)
    checkpoint = last_checkpoint(work)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
    interrupt = Interrupt()
    trainer = make_trainer(config, work, learned, plan, interrupt)
    with interrupt.by_signals():
        _run(trainer, checkpoint, plan.estimate.steps)
    result = _result(
        config, plan, trainer, learned, held_back=held_back, checkpoint=checkpoint, began=began
    )
    result = _publish(config, learned.model, result, held_back=held_back, facts=facts)
    _warn_of_losses(result)
    shutil.rmtree(work)
    return result


def _result(
    config: TrainingConfig,
    plan: Plan,
    trainer: Trainer,
    learned: Learned,
    *,
    held_back: Sequence[HeldBack],
    checkpoint: Path | None,
    began: float,
) -> TrainingResult:
    """What a run came to, by the trainer's log."""
    log = trainer.state.log_history
    evaluations = {int(entry["step"]): entry for entry in log if MEAN_METRIC in entry}
    history = [(step, float(entry[MEAN_METRIC])) for step, entry in evaluations.items()]
    best = max(history, key=lambda entry: entry[1])[0] if history else None
    kept = {} if best is None else evaluations[best]
    return TrainingResult(
        out=config.out,
        steps=trainer.state.global_step,
        best_step=best,
        estimate=plan.estimate,
        first_stage=figures(held_back, plan.metrics, kind=FIRST_STAGE),
        before=figures(held_back, plan.metrics),
        after=figures(held_back, kept, prefix="eval_"),
        first_stage_weight=learned.model.first_stage_weight,
        blended_before=figures(held_back, plan.metrics, kind=BLENDED),
        blended_after=figures(held_back, kept, prefix="eval_", kind=BLENDED),
        history=history,
        losses=[(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry],
        resumed_from=None if checkpoint is None else step_of(checkpoint),
        seconds=time.monotonic() - began,
    )


def _run(trainer: Trainer, checkpoint: Path | None, steps: int) -> None:
    """Trains from the checkpoint on; a finished run is only read again."""
    if checkpoint is None or not is_finished(checkpoint, steps):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint
    load_model(trainer.model.model, Path(best or checkpoint) / "model.safetensors")


def _warn_of_losses(result: TrainingResult) -> None:
    """Says where the base was better, with the default blend where there is one."""
    before = {**result.before, **result.blended_before}
    for name, after in {**result.after, **result.blended_after}.items():
        if after < before[name]:
            logger.warning(
                "%s: the base is better on the held-back questions (%.4f, now %.4f)",
                name,
                before[name],
                after,
            )


def check_out(out: Path) -> None:
    """Raises InvalidInputError when the folder to write exists."""
    if out.exists():
        raise InvalidInputError(f"{out} exists: give a folder that does not, or remove it")


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
