"""What a training run will cost, measured before it starts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from sentence_transformers.base.evaluation import SequentialEvaluator

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.config import Estimate, TrainingConfig
from rerank_plugins.training.mining import Group
from rerank_plugins.training.model import TrainedCrossEncoder
from rerank_plugins.training.recipes import Examples
from rerank_plugins.training.trainer import METRIC, SeededBatches, uses_bf16

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 3
# Evaluations may take this share of a time budget; beyond it there are fewer of them.
_EVALUATION_SHARE = 0.25
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
    "evaluations",
    "patience",
    "seed",
    "precision",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is decided once for a run, and read again when it resumes.

    Attributes:
        estimate: Cost; its steps are the run's.
        evaluate_every: Steps between evaluations; 0 for none.
        metrics: What the evaluator measured of the base.
    """

    estimate: Estimate
    evaluate_every: int
    metrics: dict[str, float]


def plan_run(
    config: TrainingConfig,
    path: Path,
    model: TrainedCrossEncoder,
    *,
    groups: Sequence[Group],
    chosen: Examples,
    dataset: Any,
    loss: torch.nn.Module,
    evaluator: SequentialEvaluator | None,
    batch: int,
) -> Plan:
    """The plan kept in the file ``path``, or a new one from a few measured steps.

    Raises:
        InvalidInputError: The kept plan is another configuration's.
    """
    decisive = {name: getattr(config, name) for name in _DECISIVE}
    decisive |= {"base": str(config.base), "groups": _digest(groups)}
    if path.is_file():
        return _kept(path, decisive)
    began = time.monotonic()
    metrics = {} if evaluator is None else evaluator(model)
    evaluation = time.monotonic() - began
    seconds = config.accumulate * _seconds_per_batch(config, model, dataset, loss, batch)
    steps, evaluations = _steps(config, len(chosen.index) / batch, seconds, evaluation)
    if evaluator is None:
        evaluations = 0
    parameters = sum(weight.numel() for weight in model.parameters())
    state = parameters * _BYTES_A_PARAMETER
    estimate = Estimate(
        queries=len(groups),
        pairs=round(steps * config.accumulate * batch * chosen.pairs_per_row),
        steps=steps,
        seconds_per_step=seconds,
        minutes=(steps * seconds + evaluations * evaluation) / 60,
        state_mb=state / 1e6,
        # Weights and gradients were there in the measured steps; the moments are to come.
        memory_mb=(_memory(model.device) + state / 2) / 1e6,
    )
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
    config: TrainingConfig, batches: float, seconds: float, evaluation: float
) -> tuple[int, int]:
    """Optimizer steps and evaluations."""
    if config.minutes is None:
        steps = math.ceil(config.epochs * math.ceil(math.ceil(batches) / config.accumulate))
        return steps, min(config.evaluations, steps)
    budget = config.minutes * 60
    affordable = int(_EVALUATION_SHARE * budget / max(evaluation, 1e-9))
    evaluations = max(1, min(config.evaluations, affordable))
    steps = max(1, int((budget - evaluations * evaluation) / seconds))
    return steps, min(evaluations, steps)


def _seconds_per_batch(
    config: TrainingConfig,
    model: TrainedCrossEncoder,
    dataset: Any,
    loss: torch.nn.Module,
    batch: int,
) -> float:
    """Median seconds of a forward and backward pass; leaves weights and chance untouched."""
    times = []
    order = SeededBatches(range(len(dataset)), batch, drop_last=False, seed=config.seed + 1)
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
