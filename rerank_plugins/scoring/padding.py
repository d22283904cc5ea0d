"""Models whose scores depend on padding: found by a trial, and run a length at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.encoding import Batch

Forward = Callable[[Batch], NDArray[np.float32]]

# How far a padded row may be from itself alone, as a share of logits above 1: rounding alone.
_NEAR = 1e-4
_NEAR_IN_HALF = 0.05


def depends_on_padding(forward: Forward, batch: Batch, precision: str) -> bool:
    """Whether the rows' logits change with the padding around them, or padding cannot be.

    Args:
        forward: Logits of a batch, shape (rows, labels).
        batch: Rows of different lengths.
        precision: Of the model: ``fp32``, ``bf16``, ``fp16``.
    """
    try:
        padded, alone = forward(batch), a_length_at_a_time(forward, batch)
    except Exception:  # noqa: BLE001 - if not for padding, it fails by itself where pairs are scored
        return True
    near = _NEAR if precision == "fp32" else _NEAR_IN_HALF
    return bool((np.abs(padded - alone) > near * np.maximum(1.0, np.abs(alone))).any())


def a_length_at_a_time(
    forward: Forward, batch: Batch, end_id: int | None = None
) -> NDArray[np.float32]:
    """Logits of the rows, each computed without padding; shape (rows, labels), float32.

    Args:
        forward: Logits of a batch.
        batch: Any rows, padded on either side.
        end_id: The token of which rows of a batch must have equally many, as models with an
            encoder and a decoder ask (they score at its last place); None for no such token.
    """
    parts = list(_alike(batch, end_id))
    logits = [forward(part) for _, part in parts]
    found = np.zeros((len(batch.input_ids), logits[0].shape[1]), dtype=np.float32)
    for (places, _), some in zip(parts, logits, strict=True):
        found[places] = some
    return found


def _alike(batch: Batch, end_id: int | None) -> Iterator[tuple[NDArray[np.intp], Batch]]:
    """Positions of rows of one length and as many end tokens, and these rows unpadded."""
    real = batch.attention_mask.astype(np.bool_)
    ends = np.zeros(len(real), np.int64) if end_id is None else _count(batch, real, end_id)
    kinds = np.stack([real.sum(axis=1), ends], axis=1)
    for kind in np.unique(kinds, axis=0):
        places = np.flatnonzero((kinds == kind).all(axis=1))
        types = batch.token_type_ids
        yield (
            places,
            Batch(
                _unpadded(batch.input_ids, real, places),
                _unpadded(batch.attention_mask, real, places),
                None if types is None else _unpadded(types, real, places),
            ),
        )


def _count(batch: Batch, real: NDArray[np.bool_], end_id: int) -> NDArray[np.int64]:
    return np.asarray(((batch.input_ids == end_id) & real).sum(axis=1), dtype=np.int64)


def _unpadded(
    values: NDArray[np.int64], real: NDArray[np.bool_], places: NDArray[np.intp]
) -> NDArray[np.int64]:
    return np.stack([values[at][real[at]] for at in places])
