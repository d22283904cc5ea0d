"""The training loop: sentence-transformers' trainer, made resumable, timed and quiet."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.evaluation import SequentialEvaluator
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.card import write_card
from rerank_plugins.training.config import Estimate, HeldBack, TrainingConfig, TrainingResult
from rerank_plugins.training.merge import merge_weights
from rerank_plugins.training.mining import Group
from rerank_plugins.training.model import TrainedCrossEncoder, load_for_training
from rerank_plugins.training.recipes import Examples, examples, loss_for
from rerank_plugins.training.teacher import with_teacher_scores
from rerank_plugins.training.windows import best_window

logger = logging.getLogger(__name__)

_METRIC = "ndcg@10"
_MAIN = "eval_sequential_score"
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_WARM_UP_STEPS = 3
# Evaluations may take this share of a time budget; beyond it there are fewer of them.
_EVALUATION_SHARE = 0.25
# Weight, gradient and Adam's two moments, four bytes each.
_BYTES_A_PARAMETER = 16
_PLAN = "plan.json"
_COMPLETE = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
# What a checkpoint's meaning depends on: a resumed run must agree in all of it.
_DECISIVE = (
    "recipe",
    "epochs",
    "minutes",
    "queries_per_batch",
    "accumulate",
    "learning_rate",
    "embeddings_rate",
    "warmup",
    "max_length",
    "window_words",
    "evaluations",
    "patience",
    "seed",
    "precision",
)


def fit(
    config: TrainingConfig,
    groups: Sequence[Group],
    held_back: Sequence[HeldBack] = (),
    facts: Sequence[Mapping[str, Any]] = (),
) -> TrainingResult:
    """Trains on groups that are already mined; `train` does the rest.

    Args:
        config: ``datasets`` and the mining options are not looked at.
        groups: What to learn from.
        held_back: What evaluation reranks; without it nothing stops early and the last
            weights are kept.
        facts: For the card, one a data set: name, licence, questions, groups, held_back.

    Raises:
        InvalidInputError: See `train`.
        ModelError: The base or the teacher cannot be used.
    """
    began = time.monotonic()
    check_out(config.out)
    work = config.out.with_name(f"{config.out.name}.training")
    work.mkdir(parents=True, exist_ok=True)
    if config.recipe == "ranknet" and config.teacher is not None:
        groups = with_teacher_scores(groups, config.teacher, work / "teacher-scores.npz")
    chosen = examples(config.recipe, groups)
    torch.manual_seed(config.seed)
    model = load_for_training(
        config.base,
        device=None if config.device == "auto" else config.device,
        max_length=config.max_length,
    )
    if config.merge is not None and model.headless:
        raise InvalidInputError(
            f"merge needs a base with a scoring head, but {config.base} has none: "
            "train it first, then merge that checkpoint with one tuned from it"
        )
    dataset = _dataset(chosen, _window_words(config, model, groups))
    loss = loss_for(config.recipe, model, groups)
    evaluator = _evaluator(held_back)
    checkpoint = _last_checkpoint(work)
    batch = _rows_per_batch(config, chosen, len(groups))
    plan = _plan(config, work, groups, model, dataset, loss, evaluator, chosen, batch)
    estimate = Estimate(**plan["estimate"])
    logger.info("training %s with the recipe %s: %s", config.base, config.recipe, estimate)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    trainer = _Trainer(
        model=model,
        args=_arguments(config, work, plan, model, batch, evaluate=evaluator is not None),
        train_dataset=dataset,
        loss=loss,
        evaluator=evaluator,
        callbacks=_callbacks(config, evaluate=evaluator is not None),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    log = trainer.state.log_history
    history = [(int(entry["step"]), float(entry[_MAIN])) for entry in log if _MAIN in entry]
    best = max(history, key=lambda entry: entry[1])[0] if history else None
    result = TrainingResult(
        out=config.out,
        steps=trainer.state.global_step,
        best_step=best,
        estimate=estimate,
        before=plan["before"],
        after={} if best is None else _figures(held_back, _entry(log, best), "eval_"),
        history=history,
        losses=[(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry],
        resumed_from=None if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[-1]),
        seconds=time.monotonic() - began,
    )
    return _publish(config, model, work, result, held_back, facts)


def check_out(out: Path) -> None:
    """Raises InvalidInputError when the folder to write exists."""
    if out.exists():
        raise InvalidInputError(f"{out} exists: give a folder that does not, or remove it")


# Data ---------------------------------------------------------------------------------------


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

    dataset = Dataset.from_dict({"at": list(range(len(chosen.index)))})
    return dataset.with_transform(rows)


def _window_words(
    config: TrainingConfig, model: TrainedCrossEncoder, groups: Sequence[Group]
) -> int | None:
    """Words a window in training, in step with the windows that scoring will use."""
    sample = [group.positive for group in groups[:: max(1, len(groups) // 100)]]
    words = sum(len(text.split()) for text in sample)
    tokens_a_word = sum(map(model.encoder.count_tokens, sample)) / max(1, words)
    if config.window_words is not None:
        model.use_windows(math.ceil(config.window_words * tokens_a_word))
        return config.window_words
    if model.window_tokens is None or model.long_passages == "truncate":
        return None
    return max(2, int(model.window_tokens / tokens_a_word))


class _SeededBatches(DefaultBatchSampler):  # type: ignore[misc]
    """A fresh order for each epoch, from seed and epoch alone.

    The library's own sampler goes on with one generator, so that a run resumed in its second
    epoch would see the first epoch's order again.
    """

    epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self.sampler), generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.batch_size)


def _rows_per_batch(config: TrainingConfig, chosen: Examples, groups: int) -> int:
    return max(1, round(config.queries_per_batch * len(chosen.index) / groups))


# Evaluation ---------------------------------------------------------------------------------


def _evaluator(held_back: Sequence[HeldBack]) -> SequentialEvaluator | None:
    if not any(held.samples for held in held_back):
        return None
    return SequentialEvaluator(
        [
            CrossEncoderRerankingEvaluator(
                held.samples, always_rerank_positives=False, name=held.name, write_csv=False
            )
            for held in held_back
            if held.samples
        ],
        main_score_function=lambda scores: sum(scores) / len(scores),
    )


def _figures(
    held_back: Sequence[HeldBack], metrics: Mapping[str, Any], prefix: str = ""
) -> dict[str, float]:
    return {held.name: float(metrics[f"{prefix}{held.name}_{_METRIC}"]) for held in held_back}


def _entry(log: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any]:
    return next(entry for entry in log if entry["step"] == step and _MAIN in entry)


# Cost ---------------------------------------------------------------------------------------


def _plan(
    config: TrainingConfig,
    work: Path,
    groups: Sequence[Group],
    model: TrainedCrossEncoder,
    dataset: Dataset,
    loss: torch.nn.Module,
    evaluator: SequentialEvaluator | None,
    chosen: Examples,
    batch: int,
) -> dict[str, Any]:
    """Number of steps and their cost: measured on the first start, read again on a resume.

    Raises:
        InvalidInputError: The folder belongs to another configuration.
    """
    decisive = {name: getattr(config, name) for name in _DECISIVE}
    decisive |= {"base": str(config.base), "groups": _digest(groups)}
    path = work / _PLAN
    if path.is_file():
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        odd = sorted(key for key in decisive if plan["decisive"].get(key) != decisive[key])
        if odd:
            raise InvalidInputError(
                f"{work} holds the checkpoints of a run that differs in {', '.join(odd)}: "
                "give another folder as out, or remove that one"
            )
        return plan
    began = time.monotonic()
    metrics = {} if evaluator is None else evaluator(model)
    evaluation = time.monotonic() - began
    seconds = _measured(config, model, dataset, loss, batch) * config.accumulate
    a_pass = math.ceil(math.ceil(len(chosen.index) / batch) / config.accumulate)
    steps = max(1, math.ceil(config.epochs * a_pass))
    evaluations = min(config.evaluations, steps) if evaluator is not None else 0
    if config.minutes is not None:
        budget = config.minutes * 60
        if evaluations:
            most = int(_EVALUATION_SHARE * budget / max(evaluation, 1e-9))
            evaluations = max(1, min(evaluations, most))
        steps = max(1, int((budget - evaluations * evaluation) / seconds))
        evaluations = min(evaluations, steps)
    parameters = sum(weight.numel() for weight in model.parameters())
    estimate = Estimate(
        queries=len(groups),
        pairs=round(steps * config.accumulate * batch * chosen.pairs_per_row),
        steps=steps,
        seconds_per_step=seconds,
        minutes=(steps * seconds + evaluations * evaluation) / 60,
        state_mb=parameters * _BYTES_A_PARAMETER / 1e6,
        # Weights and gradients are there after the measured steps; the moments come.
        memory_mb=(_memory(model.device) + parameters * _BYTES_A_PARAMETER / 2) / 1e6,
    )
    plan = {
        "decisive": decisive,
        "estimate": asdict(estimate),
        "evaluate_every": math.ceil(steps / evaluations) if evaluations else 0,
        "before": {
            name: float(value)
            for name, value in metrics.items()
            if name.endswith(_METRIC)
        },
    }
    _write_json(path, plan)
    return plan


def _measured(
    config: TrainingConfig,
    model: TrainedCrossEncoder,
    dataset: Dataset,
    loss: torch.nn.Module,
    batch: int,
) -> float:
    """Median seconds of a forward and backward pass; leaves weights and chance untouched."""
    times = []
    batches = iter(_SeededBatches(range(len(dataset)), batch, False, seed=config.seed + 1))
    model.train()
    loss.to(model.device)
    with torch.random.fork_rng():
        for _, places in zip(range(1 + _WARM_UP_STEPS), batches, strict=False):
            began = time.monotonic()
            rows = dataset[places]
            label = rows.pop("label")
            listed = isinstance(label[0], list)
            labels = [torch.tensor(one) for one in label] if listed else torch.tensor(label)
            if isinstance(labels, torch.Tensor):
                labels = labels.to(model.device)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=_bf16(config, model)):
                value = loss(list(rows.values()), labels)
            value.backward()
            float(value)
            times.append(time.monotonic() - began)
    for weight in model.parameters():
        weight.grad = None
    # The first pass also pays for what is set up once.
    kept = sorted(times[1:] or times)
    return kept[len(kept) // 2]


def _bf16(config: TrainingConfig, model: TrainedCrossEncoder) -> bool:
    """Whether to train under bf16 autocast; on a CPU only where it has instructions for it
    (without them it is several times slower than fp32)."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if model.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if model.device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def _digest(groups: Sequence[Group]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for group in groups:
        state.update(repr((group.query, group.passages, group.teacher_scores)).encode())
    return state.hexdigest()


# The trainer --------------------------------------------------------------------------------


class _Trainer(CrossEncoderTrainer):  # type: ignore[misc]
    """Without the model cards that the library writes into every checkpoint: they ask the
    Hub for names and tokenize samples; `write_card` writes one at the end."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds none."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(str(folder), create_model_card=False)


class _Rhythm(TrainerCallback):  # type: ignore[misc]
    """A checkpoint every ten minutes, an evaluation after the last step, and log lines."""

    def __init__(self, evaluate: bool) -> None:
        self._evaluate = evaluate
        self._began = self._saved = time.monotonic()
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Notes time and step."""
        self._began = self._saved = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Asks for a checkpoint when one is due."""
        last = state.global_step >= state.max_steps
        if last or time.monotonic() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS:
            control.should_save = True
        if last and self._evaluate:
            control.should_evaluate = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Notes the time."""
        self._saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One line with what is left."""
        shown = {**(logs or {})}
        done = state.global_step - self._first_step
        left = state.max_steps - state.global_step
        minutes = (time.monotonic() - self._began) / max(1, done) * left / 60
        named = [
            f"{name.removeprefix('eval_')} {float(shown[name]):.4f}"
            for name in shown
            if name == "loss" or name.endswith(_METRIC)
        ]
        if named:
            logger.info(
                "step %d of %d, about %.1f minutes left: %s",
                state.global_step,
                state.max_steps,
                minutes,
                ", ".join(named),
            )


def _callbacks(config: TrainingConfig, *, evaluate: bool) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [_Rhythm(evaluate)]
    if evaluate:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.patience))
    return callbacks


def _arguments(
    config: TrainingConfig,
    work: Path,
    plan: Mapping[str, Any],
    model: TrainedCrossEncoder,
    batch: int,
    *,
    evaluate: bool,
) -> CrossEncoderTrainingArguments:
    steps = int(plan["estimate"]["steps"])
    every = int(plan["evaluate_every"])
    rates = {}
    if config.embeddings_rate != 1.0:
        rates[r"embeddings\.\w+_embeddings"] = config.learning_rate * config.embeddings_rate
    return CrossEncoderTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        learning_rate_mapping=rates,
        warmup_steps=config.warmup,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        seed=config.seed,
        batch_sampler=_SeededBatches,
        use_cpu=model.device.type == "cpu",
        bf16=_bf16(config, model),
        dataloader_pin_memory=model.device.type == "cuda",
        logging_steps=max(1, steps // 100),
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        eval_strategy="steps" if evaluate else "no",
        eval_steps=every if evaluate else None,
        save_strategy="steps" if evaluate else "no",
        save_steps=every if evaluate else 500,
        save_total_limit=2,
        load_best_model_at_end=evaluate,
        metric_for_best_model=_MAIN if evaluate else None,
        greater_is_better=True if evaluate else None,
    )


def _last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint. One that a kill cut short is removed."""
    found = sorted(
        work.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[-1]), reverse=True
    )
    for path in found:
        if _is_whole(path):
            return path
        logger.warning("%s was cut short and is removed", path)
        shutil.rmtree(path)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Whether everything is there; the trainer writes its state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() for name in _COMPLETE)


# The end ------------------------------------------------------------------------------------


def _publish(
    config: TrainingConfig,
    model: TrainedCrossEncoder,
    work: Path,
    result: TrainingResult,
    held_back: Sequence[HeldBack],
    facts: Sequence[Mapping[str, Any]],
) -> TrainingResult:
    """Writes checkpoint and card beside ``out``, then renames: half of it is never there."""
    out = config.out
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        folder = Path(made) / "tuned"
        model.save_pretrained(str(folder), create_model_card=False)
        if config.merge is not None:
            folder = merge_weights(model.folder, folder, config.merge, Path(made) / "merged")
            evaluator = _evaluator(held_back)
            if evaluator is not None:
                merged = load_for_training(folder, device=str(model.device))
                merged.encoder = model.encoder
                result = replace(result, after=_figures(held_back, evaluator(merged)))
        write_card(folder, config, result, facts)
        folder.rename(out)
    shutil.rmtree(work)
    return result


def _write_json(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(path)
