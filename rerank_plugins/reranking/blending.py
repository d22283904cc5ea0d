"""The model's logits and the first stage's scores made one opinion, and probabilities of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._validation import is_number
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def blended(
    logits: NDArray[np.float64], candidates: Sequence[Candidate], weight: float
) -> NDArray[np.float64]:
    """Logits moved towards the first stage's opinion, on the logits' own scale.

    Both scores are standardized over the list (mean 0, deviation 1) and averaged; the
    average is put back on the scale of the logits, so that probabilities keep their meaning.
    A list in which a first-stage score is missing keeps its logits.

    Raises:
        InvalidInputError: If a first-stage score is NaN, infinite or no number.
    """
    given = [candidate.score for candidate in candidates]
    if weight == 0.0 or not candidates or any(score is None for score in given):
        return logits
    for number, score in enumerate(given):
        if not is_number(score):
            raise InvalidInputError(
                f"first-stage scores must be finite to be blended, but number {number} is {score}"
            )
    first = np.asarray(given, dtype=np.float64)
    blend = (1.0 - weight) * _standardized(logits) + weight * _standardized(first)
    return np.asarray(logits.mean() + logits.std() * blend)


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = values.std()
    if deviation == 0.0:
        return np.zeros_like(values)
    return np.asarray((values - values.mean()) / deviation)
