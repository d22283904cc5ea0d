"""Stage 7a: on the dev parts, how much BM25 to blend in, and how sigmoid becomes a probability."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import BertForSequenceClassification

from recipes.embedded import pairs
from recipes.embedded.rerank import BLENDS, Tokens, logits_of, measure, quick

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the dev parts chose.

    Attributes:
        weight: BM25's share of the blend.
        scale: factor of the logits.
        shift: added to the scaled logits.
        report: nDCG@10 by source and weight.
    """

    weight: float
    scale: float
    shift: float
    report: dict[str, object]


def platt(logits: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shift that make sigmoid(scale x logit + shift) fit the labels (Platt, 1999)."""
    x, y = torch.from_numpy(logits), torch.from_numpy(right)
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


def choose(
    model: BertForSequenceClassification,
    tokenizer: Tokenizer,
    questions: Sequence[pairs.DevQuestion],
) -> Choice:
    """Score the dev questions and choose.

    Args:
        model: as trained.
        tokenizer: of the recipe.
        questions: dev questions with their candidates.
    """
    texts = [t for q in questions for t in (q.question, *q.passages)]
    tokens = Tokens.of(tokenizer, texts)
    logits = logits_of(quick(model), tokens, questions)
    found = measure(questions, logits)
    means = {w: float(np.mean([by[w] for by in found.values()])) for w in BLENDS}
    weight = max(means, key=lambda w: means[w])
    right = [np.isin(np.arange(len(q.passages)), q.relevant) for q in questions]
    scale, shift = platt(np.concatenate(logits), np.concatenate(right).astype(np.float64))
    log.info("blend %.1f of BM25, logits x %.3f %+.3f, %s", weight, scale, shift, means)
    report: dict[str, object] = {"means": means, "sets": found, "scale": scale, "shift": shift}
    return Choice(weight, scale, shift, report)
