"""Weights kept as blocks of 32 numbers: 4 or 8 bits each, and a scale per block.

The form is Q4_0's and Q8_0's of the ggml library: within a block, weight = scale x integer, the
integer in -8..7 or -127..127. A matrix ``X`` of shape (rows, columns) is stored in a safetensors
file as ``X.scale`` (float16, (rows, columns / 32)) beside ``X.q4`` (uint8, (rows, columns / 32,
16): low nibbles are the first half of a block, high ones the second, both plus 8) or ``X.q8``
(int8, (rows, columns)). Every other tensor is stored under its own name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

FILE: Final = "blocks.safetensors"
BLOCK: Final = 32


def has_blocks(folder: Path) -> bool:
    """Whether a checkpoint folder keeps its weights in this form."""
    return (folder / FILE).is_file()


def read_blocks(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder by name, float32.

    A file may say in its metadata, under ``shared``, that a tensor is kept by a sibling folder (a
    JSON object from tensor name to the folder's name and the name there): two models with one
    table store it once.

    Raises:
        UnsupportedModelError: If a file is missing or damaged, or its parts do not fit together.
    """
    import torch

    weights, shared = _read(folder)
    for name, (sibling, there) in shared.items():
        if not re.fullmatch(r"\w+", sibling):
            raise UnsupportedModelError(
                f"{folder / FILE} must name a sibling folder for {name}, but names {sibling!r}"
            )
        found, _ = _read(folder.parent / sibling, there)
        if there not in found:
            raise UnsupportedModelError(f"{folder.parent / sibling / FILE} has no {there}")
        weights[name] = found[there]
    return {name: torch.from_numpy(values) for name, values in weights.items()}


def _read(
    folder: Path, only: str | None = None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, tuple[str, str]]]:
    """The tensors of one file, or one of them, and what others keep for it."""
    from safetensors import SafetensorError, safe_open

    weights: dict[str, NDArray[np.float32]] = {}
    try:
        with safe_open(folder / FILE, framework="numpy") as file:
            shared = {
                str(name): (str(sibling), str(there))
                for name, (sibling, there) in json.loads(
                    (file.metadata() or {}).get("shared", "{}")
                ).items()
            }
            names = set(file.keys())
            for name in sorted(names):
                stem, _, kind = name.rpartition(".")
                packed = kind in ("q4", "q8")
                if only not in (None, stem if packed else name):
                    continue
                if packed:
                    unpack = _from_4_bits if kind == "q4" else _from_8_bits
                    weights[stem] = unpack(file.get_tensor(name), file.get_tensor(f"{stem}.scale"))
                elif kind != "scale" or not {f"{stem}.q4", f"{stem}.q8"} & names:
                    weights[name] = file.get_tensor(name).astype(np.float32)
    except (AttributeError, OSError, TypeError, ValueError, SafetensorError) as error:
        raise UnsupportedModelError(f"{folder / FILE} could not be read: {error}") from error
    return weights, shared


def to_8_bits(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """A matrix as integers and scales, rounded to the nearest.

    Args:
        weights: Shape (rows, columns); columns a multiple of 32.

    Returns:
        The integers, (rows, columns), and the scales, (rows, columns / 32).
    """
    blocks = weights.reshape(len(weights), -1, BLOCK)
    scale = (np.abs(blocks).max(axis=2) / 127).astype(np.float16)
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)[:, :, None]
    integers = np.clip(np.rint(blocks / divisor), -127, 127).astype(np.int8)
    return integers.reshape(weights.shape), scale


def _from_4_bits(nibbles: NDArray[np.uint8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    rows, blocks, _ = nibbles.shape
    out = np.empty((rows, blocks, BLOCK), dtype=np.float32)
    out[:, :, : BLOCK // 2] = nibbles & 15
    out[:, :, BLOCK // 2 :] = nibbles >> 4
    out -= 8
    out *= scale.astype(np.float32)[:, :, None]
    return out.reshape(rows, blocks * BLOCK)


def _from_8_bits(integers: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    rows, columns = integers.shape
    out = integers.astype(np.float32).reshape(rows, -1, BLOCK)
    out *= scale.astype(np.float32)[:, :, None]
    return out.reshape(rows, columns)
