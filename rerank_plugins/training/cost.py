"""What a training run will cost, measured before it starts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.config import Estimate, HeldBack, Plan, TrainingConfig
from rerank_plugins.training.held_back import METRIC, make_evaluator
from rerank_plugins.training.mining import Group
from rerank_plugins.training.model import TrainedCrossEncoder
from rerank_plugins.training.prepare import Learned, uses_bf16
from rerank_plugins.training.trainer import SeededBatches

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 3
# Evaluations may take this share of a time budget; beyond it there are fewer of them.
_EVALUATION_SHARE = 0.25
# Questions that an evaluation is timed by before it is made.
_TIMED_QUESTIONS = 4
# Weight, gradient and Adam's two moments, four bytes each.
_BYTES_A_PARAMETER = 16
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
    "unanswered",
    "evaluations",
    "patience",
    "seed",
    "precision",
)


def plan_run(
    config: TrainingConfig,
    path: Path,
    learned: Learned,
    held_back: Sequence[HeldBack],
    *,
    began: float,
) -> Plan:
    """The plan kept in the file ``path``, or a new one from a few measured steps.

    What the run will cost is said, and a budget that is too small refused, before the base is
    evaluated, which may take minutes.

    Raises:
        InvalidInputError: If the kept plan is another configuration's, or ``minutes`` is too
            little for one step.
    """
    model, evaluator = learned.model, learned.evaluator
    decisive = {name: getattr(config, name) for name in _DECISIVE}
    decisive |= {"base": str(config.base), "groups": _digest(learned.groups)}
    if path.is_file():
        return _kept(path, decisive)
    seconds = config.accumulate * _seconds_per_batch(config, learned)
    evaluation = _seconds_per_evaluation(model, held_back)
    whole = math.ceil(math.ceil(len(learned.chosen.index) / learned.batch) / config.accumulate)
    steps, evaluations = _steps(
        config, whole, seconds, evaluation, elapsed=time.monotonic() - began + evaluation
    )
    if evaluator is None:
        evaluations = 0
    if config.minutes is not None and steps < whole:
        logger.warning(
            "%g minutes are enough for %d of the %d steps of one epoch; a whole epoch takes about "
            "%.0f minutes here",
            config.minutes,
            steps,
            whole,
            (whole * seconds + (1 + evaluations) * evaluation) / 60,
        )
    parameters = sum(weight.numel() for weight in model.parameters())
    state = parameters * _BYTES_A_PARAMETER
    estimate = Estimate(
        queries=len(learned.groups),
        pairs=round(steps * config.accumulate * learned.batch * learned.chosen.pairs_per_row),
        steps=steps,
        epochs=steps / whole,
        seconds_per_step=seconds,
        minutes=(steps * seconds + (1 + evaluations) * evaluation) / 60,
        state_mb=state / 1e6,
        # Weights and gradients were there in the measured steps; the moments are to come.
        memory_mb=(_memory(model.device) + state / 2) / 1e6,
    )
    logger.info("planned: %s", estimate)
    metrics = {} if evaluator is None else evaluator(model)
    plan = Plan(
        estimate,
        math.ceil(steps / evaluations) if evaluations else 0,
        {name: float(value) for name, value in metrics.items() if name.endswith(METRIC)},
    )
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"decisive": decisive, **asdict(plan)}), encoding="utf-8")
    part.replace(path)
    return plan


def _kept(path: Path, decisive: dict[str, Any]) -> Plan:
    kept = json.loads(path.read_text(encoding="utf-8"))
    odd = sorted(key for key in decisive if kept["decisive"].get(key) != decisive[key])
    if odd:
        raise InvalidInputError(
            f"{path.parent} holds the checkpoints of a run that differs in {', '.join(odd)}: "
            "give another folder as out, or remove that one"
        )
    return Plan(Estimate(**kept["estimate"]), kept["evaluate_every"], kept["metrics"])


def _steps(
    config: TrainingConfig, whole: int, seconds: float, evaluation: float, *, elapsed: float
) -> tuple[int, int]:
    """Optimizer steps and evaluations.

    Args:
        config: Epochs, or a budget of minutes.
        whole: Steps of one epoch.
        seconds: Of a step.
        evaluation: Seconds of an evaluation.
        elapsed: What the budget has been spent on: planning, and evaluating the base.

    Raises:
        InvalidInputError: If the budget is too small for one step and one evaluation.
    """
    if config.minutes is None:
        steps = math.ceil(config.epochs * whole)
        return steps, min(config.evaluations, steps)
    budget = config.minutes * 60 - elapsed
    if budget < seconds + evaluation:
        needed = (elapsed + seconds + evaluation) / 60
        raise InvalidInputError(
            f"minutes must be at least {math.ceil(10 * needed) / 10:g} for one step here, but got "
            f"{config.minutes:g}: planning and evaluating the base take {elapsed:.0f} s, a step "
            f"{seconds:.0f} s and an evaluation {evaluation:.0f} s; lower held_back or candidates "
            "to evaluate less, queries_per_batch or max_length for shorter steps"
        )
    affordable = int(_EVALUATION_SHARE * budget / max(evaluation, 1e-9))
    evaluations = max(1, min(config.evaluations, affordable))
    steps = max(1, int((budget - evaluations * evaluation) / seconds))
    return steps, min(evaluations, steps)


def _seconds_per_evaluation(model: TrainedCrossEncoder, held_back: Sequence[HeldBack]) -> float:
    """From a few questions of each set, by the number of their pairs."""
    total = 0.0
    for held in held_back:
        few = make_evaluator(
            [HeldBack(held.name, held.samples[:_TIMED_QUESTIONS])], model.first_stage_weight
        )
        if few is None:
            continue
        began = time.monotonic()
        few(model)
        seconds = time.monotonic() - began
        pairs = [len(sample["documents"]) for sample in held.samples]
        total += seconds * sum(pairs) / max(1, sum(pairs[:_TIMED_QUESTIONS]))
    return total


def _seconds_per_batch(config: TrainingConfig, learned: Learned) -> float:
    """Median seconds of a forward and backward pass; leaves weights and chance untouched."""
    model, loss, dataset = learned.model, learned.loss, learned.dataset
    times = []
    order = SeededBatches(range(len(dataset)), learned.batch, drop_last=False, seed=config.seed + 1)
    model.train()
    loss.to(model.device)
    with torch.random.fork_rng():
        for _, places in zip(range(1 + _WARM_UP_STEPS), order, strict=False):
            began = time.monotonic()
            columns = dataset[places]
            labels = _labels(columns.pop("label"), model.device)
            with torch.autocast(
                model.device.type, torch.bfloat16, enabled=uses_bf16(config, model)
            ):
                value = loss(list(columns.values()), labels)
            value.backward()
            value.item()
            times.append(time.monotonic() - began)
    for weight in model.parameters():
        weight.grad = None
    # The first pass also pays for what is set up once.
    kept = sorted(times[1:] or times)
    return kept[len(kept) // 2]


def _labels(column: list[Any], device: torch.device) -> torch.Tensor | list[torch.Tensor]:
    """As the library's collator gives them to a loss."""
    if isinstance(column[0], list):
        return [torch.tensor(one) for one in column]
    return torch.tensor(column).to(device)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def _digest(groups: Sequence[Group]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for group in groups:
        state.update(repr((group.query, group.passages, group.teacher_scores)).encode())
    return state.hexdigest()
