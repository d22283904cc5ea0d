"""Stage 4: on the dev parts, how much BM25 to blend in, and how sigmoid becomes a probability."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from recipes.bundled import pairs
from rerank_plugins import ScoreCache, load_reranker
from rerank_plugins.evaluation import compare

log = logging.getLogger(__name__)

BLENDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
QUESTIONS = 40  # a set: 12,000 pairs in all


@dataclass(frozen=True, slots=True)
class Choice:
    """What the dev parts chose.

    Attributes:
        weight: BM25's share of the blend.
        scale: factor of the logits.
        shift: added to the scaled logits.
        report: nDCG@10 by set and weight.
    """

    weight: float
    scale: float
    shift: float
    report: dict[str, dict[str, float]]


def platt(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and shift that make sigmoid(scale x logit + shift) fit the labels (Platt, 1999)."""
    x, y = torch.from_numpy(logits), torch.from_numpy(right.astype(np.float64))
    values = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=100)

    def closure() -> float:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(values[0] * x + values[1], y)
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    scale, shift = values.tolist()
    return scale, shift


def choose(folder: Path, model: Path, runs: Path) -> Choice:
    """Rerank the dev questions with every blend and choose.

    Args:
        folder: the data.
        model: the checkpoint as trained.
        runs: folder where answers are kept, so that a break loses none.
    """
    cache = ScoreCache(1 << 20)  # every blend is made of the same logits
    rerankers = {
        f"{w}": load_reranker(
            model, scale="logit", first_stage_weight=w, deduplicate=False, cache=cache
        )
        for w in BLENDS
    }
    report: dict[str, dict[str, float]] = {}
    logits, right = [], []
    for data, first_stage in pairs.dev(folder):
        found = compare(data, {"BM25": first_stage}, rerankers, queries=QUESTIONS, runs=runs)
        report[data.name] = {
            system.reranker or "BM25": float(system.values["nDCG@10"].mean())
            for system in found.systems.values()
        }
        passages = found.scored_passages(f"BM25 + {BLENDS[0]}")
        logits.append(passages.scores)
        right.append(passages.relevant)
    means = {w: float(np.mean([by[f"{w}"] for by in report.values()])) for w in BLENDS}
    weight = max(means, key=lambda w: means[w])
    scale, shift = platt(np.concatenate(logits), np.concatenate(right))
    log.info("blend %.1f of BM25, logits x %.3f %+.3f, %s", weight, scale, shift, means)
    return Choice(weight, scale, shift, report)
