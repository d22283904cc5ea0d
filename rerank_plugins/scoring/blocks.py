"""Weights kept as blocks of 32 numbers: 4 or 8 bits each, and a scale per block.

The form is Q4_0's and Q8_0's of the ggml library: within a block, weight = scale x integer, the
integer in -8..7 or -127..127. A matrix ``X`` of shape (rows, columns) is stored in a safetensors
file as ``X.scale`` (float16, (rows, columns / 32)) beside ``X.q4`` (uint8, (rows, columns / 32,
16): low nibbles are the first half of a block, high ones the second, both plus 8) or ``X.q8``
(int8, (rows, columns)). Every other tensor is stored under its own name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

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


class Blocks(Mapping[str, "torch.Tensor"]):
    """Weights of a folder by name, float32; each is decoded when it is asked for, and not kept.

    A file may say in its metadata, under ``shared``, that a tensor is kept by a sibling folder (a
    JSON object from tensor name to the folder's name and the name there): two models with one
    table store it once.

    Args:
        folder: The checkpoint's.

    Raises:
        UnsupportedModelError: If a file is missing or damaged, or its parts do not fit together;
            by look-ups too.
    """

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[_File, str]] = {}
        own = _File(folder / FILE)
        self._places |= {name: (own, name) for name in own.names}
        siblings: dict[str, _File] = {}
        for name, (sibling, there) in own.shared.items():
            if not re.fullmatch(r"\w+", sibling):
                raise UnsupportedModelError(
                    f"{own.path} must name a sibling folder for {name}, but names {sibling!r}"
                )
            if sibling not in siblings:
                siblings[sibling] = _File(folder.parent / sibling / FILE)
            if there not in siblings[sibling].names:
                raise UnsupportedModelError(f"{siblings[sibling].path} has no {there}")
            self._places[name] = siblings[sibling], there

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, name: str) -> torch.Tensor:
        file, there = self._places[name]
        return file.decoded(there)

    def rows(self, name: str) -> Rows:
        """Decodes rows of a matrix as they are looked up: a table of words stays in its file."""
        file, there = self._places[name]
        return file.rows(there)

    def count(self) -> int:
        """Number of weights."""
        return sum(file.size(there) for file, there in self._places.values())


def read_blocks(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder by name, float32.

    Raises:
        UnsupportedModelError: As `Blocks`.
    """
    return dict(Blocks(folder))


class Rows:
    """A matrix of which rows are looked up where they are stored.

    Args:
        stored: Shape (rows, columns) or, of 4 bits, (rows, columns / 32, 16).
        scale: Shape (rows, columns / 32); None for a matrix that is not in blocks.
    """

    def __init__(self, stored: torch.Tensor, scale: torch.Tensor | None) -> None:
        self._stored, self._scale = stored, scale
        self.shape = tuple(stored.shape)
        if len(self.shape) == 3:
            self.shape = (self.shape[0], self.shape[1] * BLOCK)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, shape (n, columns), float32.

        Raises:
            IndexError: If there is no such row.
        """
        scale = self._scale
        return _decoded(
            self._stored.index_select(0, ids),
            None if scale is None else scale.index_select(0, ids),
        )


def rows_of(tensors: Mapping[str, torch.Tensor], name: str) -> Rows:
    """The rows of a matrix, of weights in blocks or of others."""
    return tensors.rows(name) if isinstance(tensors, Blocks) else Rows(tensors[name].cpu(), None)


class _File:
    """One safetensors file, open and mapped."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        with self._errors():
            self._open = cast("Any", safe_open(path, framework="pt"))
            stored = set(self._open.keys())
            shared = json.loads((self._open.metadata() or {}).get("shared", "{}"))
            self.shared = {
                str(name): (str(sibling), str(there)) for name, (sibling, there) in shared.items()
            }
        # Names of weights, and how each is stored.
        self.names: dict[str, str] = {}
        for name in sorted(stored):
            stem, _, kind = name.rpartition(".")
            if kind in ("q4", "q8"):
                self.names[stem] = name
            elif kind != "scale" or not {f"{stem}.q4", f"{stem}.q8"} & stored:
                self.names[name] = name

    def decoded(self, name: str) -> torch.Tensor:
        with self._errors():
            return _decoded(*self._stored(name))

    def rows(self, name: str) -> Rows:
        with self._errors():
            integers, scale = self._stored(name)
            _decoded(integers[:1], None if scale is None else scale[:1])
            return Rows(integers, scale)

    def size(self, name: str) -> int:
        with self._errors():
            shape: list[int] = self._open.get_slice(self.names[name]).get_shape()
            return math.prod(shape) * (2 if self.names[name].endswith(".q4") else 1)

    def _stored(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        stored = self.names[name]
        scale = None if stored == name else self._open.get_tensor(f"{name}.scale")
        return self._open.get_tensor(stored), scale

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (AttributeError, OSError, RuntimeError, TypeError, ValueError, SafetensorError) as e:
            raise UnsupportedModelError(f"{self.path} could not be read: {e}") from e


def _decoded(integers: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Float32, as the module's docstring says."""
    import torch

    if scale is None:
        return integers.float()
    if integers.dtype == torch.uint8:
        halves = (integers & 15, integers >> 4)
        blocks = torch.cat(halves, dim=2).float().sub_(8)
    else:
        blocks = integers.float().view(len(integers), -1, BLOCK)
    return blocks.mul_(scale.float()[:, :, None]).flatten(1)


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
