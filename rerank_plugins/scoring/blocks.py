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
# What a file of blocks may hold, by safetensors' names.
_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "u1", "I8": "i1"}


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
        import torch

        return torch.from_numpy(self.array(name))

    def array(self, name: str) -> NDArray[np.float32]:
        """The same without torch."""
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

    def __init__(self, stored: NDArray[Any], scale: NDArray[np.float16] | None) -> None:
        self._stored, self._scale = stored, scale
        self.shape = tuple(stored.shape)
        if len(self.shape) == 3:
            self.shape = (self.shape[0], self.shape[1] * BLOCK)

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of these numbers, shape (n, columns).

        Raises:
            IndexError: If there is no such row.
        """
        scale = self._scale
        return _decoded(self._stored[ids], None if scale is None else scale[ids])


class _File:
    """One safetensors file, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._stored, shared = _mapped(path)
            self.shared = {
                str(name): (str(sibling), str(there)) for name, (sibling, there) in shared.items()
            }
        # Names of weights, and how each is stored.
        self.names: dict[str, str] = {}
        for name in sorted(self._stored):
            stem, _, kind = name.rpartition(".")
            if kind in ("q4", "q8"):
                self.names[stem] = name
            elif kind != "scale" or not {f"{stem}.q4", f"{stem}.q8"} & self._stored.keys():
                self.names[name] = name

    def decoded(self, name: str) -> NDArray[np.float32]:
        with self._errors():
            return _decoded(*self._parts(name))

    def rows(self, name: str) -> Rows:
        with self._errors():
            integers, scale = self._parts(name)
            _decoded(integers[:1], None if scale is None else scale[:1])
            return Rows(integers, scale)

    def size(self, name: str) -> int:
        stored = self.names[name]
        return self._stored[stored].size * (2 if stored.endswith(".q4") else 1)

    def _parts(self, name: str) -> tuple[NDArray[Any], NDArray[np.float16] | None]:
        stored = self.names[name]
        scale = None if stored == name else self._stored[f"{name}.scale"]
        return self._stored[stored], scale

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (AttributeError, KeyError, OSError, TypeError, ValueError, SafetensorError) as e:
            raise UnsupportedModelError(f"{self.path} could not be read: {e}") from e


def _mapped(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A file's tensors, left on the disk until they are used, and what it shares.

    safetensors checks the file, but gives copies to numpy; so the places are read from its
    header (8 bytes of length, then JSON).
    """
    from safetensors import safe_open

    cast("Any", safe_open(path, framework="np"))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    shared = json.loads(header.pop("__metadata__", {}).get("shared", "{}"))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    return {
        name: data[slice(*told["data_offsets"])]
        .view(_TYPES[told["dtype"]])
        .reshape(told["shape"])
        .view(np.ndarray)
        for name, told in header.items()
    }, shared


def _decoded(integers: NDArray[Any], scale: NDArray[np.float16] | None) -> NDArray[np.float32]:
    """Float32, as the module's docstring says."""
    if scale is None:
        return integers.astype(np.float32)
    if integers.dtype == np.uint8:
        blocks = np.concatenate((integers & 15, integers >> 4), axis=2).astype(np.float32)
        blocks -= 8
    else:
        blocks = integers.astype(np.float32).reshape(len(integers), -1, BLOCK)
    blocks *= scale.astype(np.float32)[:, :, None]
    return blocks.reshape(len(blocks), -1)


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
