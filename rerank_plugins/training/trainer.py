"""sentence-transformers' trainer: resumable at any step, quiet, logging the remaining time."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.config import Plan, TrainingConfig
from rerank_plugins.training.held_back import FIRST_STAGE, MEAN_METRIC, METRIC
from rerank_plugins.training.prepare import EMBEDDINGS, Learned, uses_bf16

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_WEIGHT_DECAY = 0.01
_LOG_LINES = 100
# The trainer writes its state last, so that a checkpoint with all of these is whole.
_STATE = "trainer_state.json"
_PARTS = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


class SeededBatches(DefaultBatchSampler):  # type: ignore[misc]
    """A fresh order for each epoch, from seed and epoch alone.

    The library's own sampler uses one generator throughout, so that a run resumed in its second
    epoch would see the first epoch's order again.
    """

    epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self.sampler), generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        batches: int = math.ceil(len(self.sampler) / self.batch_size)
        return batches


class Trainer(CrossEncoderTrainer):  # type: ignore[misc]
    """Without the model cards that the library writes into every checkpoint.

    They ask the Hub for names and tokenize samples; `write_card` writes one at the end.
    """

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds none."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(str(folder), create_model_card=False)


class Interrupt:
    """Asks a run to stop after its current step, with a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks; the next one stops at once, as without this."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            del frame
            self.asked = True
            signal.signal(number, before[signal.Signals(number)])
            logger.warning("stopping after this step, with a checkpoint; again to stop at once")

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Rhythm(TrainerCallback):  # type: ignore[misc]
    """A checkpoint every ten minutes and at an interrupt, a last evaluation, and log lines."""

    def __init__(self, *, evaluate: bool, interrupt: Interrupt) -> None:
        self._evaluate = evaluate
        self._interrupt = interrupt
        self._began = self._saved = time.monotonic()
        self._first_step = 0

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Notes time and step."""
        self._began = self._saved = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        """Asks for a checkpoint when one is due."""
        last = state.global_step >= state.max_steps
        due = time.monotonic() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS
        if last or due or self._interrupt.asked:
            control.should_save = True
            self._saved = time.monotonic()
        if last and self._evaluate:
            control.should_evaluate = True
        return control

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Ends an interrupted run once its checkpoint is written."""
        if self._interrupt.asked:
            raise KeyboardInterrupt(
                f"stopped at step {state.global_step} of {state.max_steps}, kept in "
                f"{args.output_dir}; run the same again to resume"
            )

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One line with what is left."""
        shown = [
            f"{name.removeprefix('eval_')} {float(value):.4f}"
            for name, value in (logs or {}).items()
            if name == "loss"
            or (name.endswith(METRIC) and not name.endswith(f"{FIRST_STAGE}{METRIC}"))
        ]
        if shown:
            done = max(1, state.global_step - self._first_step)
            left = state.max_steps - state.global_step
            logger.info(
                "step %d of %d, about %.1f minutes left: %s",
                state.global_step,
                state.max_steps,
                (time.monotonic() - self._began) / done * left / 60,
                ", ".join(shown),
            )


def make_trainer(
    config: TrainingConfig, work: Path, learned: Learned, plan: Plan, interrupt: Interrupt
) -> Trainer:
    """The trainer of one run.

    Args:
        config: Rates, seed, patience.
        work: Folder for checkpoints.
        learned: Model, examples, loss and evaluator.
        plan: How many steps, and how often it is evaluated.
        interrupt: Stops the run early, with a checkpoint.

    Raises:
        InvalidInputError: ``embeddings_rate`` is set and no embedding table is recognized.
    """
    model, steps = learned.model, plan.estimate.steps
    rates = {}
    if config.embeddings_rate != 1.0:
        if not any(re.search(EMBEDDINGS, name) for name, _ in model.named_parameters()):
            raise InvalidInputError(
                f"embeddings_rate must be 1 for {config.base}: its embedding tables are not "
                "named as those of BERT and its likes"
            )
        if config.embeddings_rate:
            rates[EMBEDDINGS] = config.learning_rate * config.embeddings_rate
    evaluation: dict[str, Any] = {"eval_strategy": "no", "save_strategy": "no"}
    callbacks: list[TrainerCallback] = [
        _Rhythm(evaluate=learned.evaluator is not None, interrupt=interrupt)
    ]
    if learned.evaluator is not None:
        evaluation = {
            "eval_strategy": "steps",
            "eval_steps": plan.evaluate_every,
            "save_strategy": "steps",
            "save_steps": plan.evaluate_every,
            "load_best_model_at_end": True,
            "metric_for_best_model": MEAN_METRIC,
            "greater_is_better": True,
        }
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.patience))
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=learned.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        learning_rate_mapping=rates,
        warmup_steps=config.warmup,
        lr_scheduler_type="linear",
        weight_decay=_WEIGHT_DECAY,
        seed=config.seed,
        batch_sampler=SeededBatches,
        use_cpu=model.device.type == "cpu",
        bf16=uses_bf16(config, model),
        dataloader_pin_memory=model.device.type == "cuda",
        logging_steps=max(1, steps // _LOG_LINES),
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        save_total_limit=2,
        # How long nothing got better is known to a resumed run too.
        restore_callback_states_from_checkpoint=True,
        **evaluation,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=learned.dataset,
        loss=learned.loss,
        evaluator=learned.evaluator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint. One that a kill cut short is removed."""
    by_step = sorted(work.glob("checkpoint-*"), key=step_of, reverse=True)
    for checkpoint in by_step:
        if _is_whole(checkpoint):
            return checkpoint
        logger.warning("%s was cut short and is removed", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def is_finished(checkpoint: Path, steps: int) -> bool:
    """Whether a run ended at this checkpoint, by its number of steps or by stopping early.

    The library's trainer would make one more step after either.
    """
    if step_of(checkpoint) >= steps:
        return True
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop", False))


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(checkpoint.name.rsplit("-", 1)[-1])


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / part).is_file() for part in _PARTS)
