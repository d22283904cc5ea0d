"""Weighted means of a base checkpoint and one fine-tuned from it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError


def merge_weights(base: str | Path, tuned: str | Path, weight: float, out: str | Path) -> Path:
    """Writes the checkpoint ``(1 - weight) * base + weight * tuned``.

    The Polish card merges original and fine-tuned weights after distillation, so that what
    the base knew of other texts is not lost (Wortsman et al. 2022, WiSE-FT). Each weight is
    computed in float64 and rounded once, to the tuned checkpoint's own type; all other files
    are the tuned checkpoint's.

    Args:
        base: Folder of the original checkpoint, safetensors.
        tuned: Folder of the checkpoint tuned from it.
        weight: Share of the tuned weights, in [0, 1].
        out: Folder to write; must not exist.

    Returns:
        ``out``.

    Raises:
        InvalidInputError: If the weight is outside [0, 1], or ``out`` exists.
        UnsupportedModelError: If the checkpoints have no safetensors, or other weights than each
            other.
    """
    base, tuned, out = Path(base), Path(tuned), Path(out)
    if not 0 <= weight <= 1:
        raise InvalidInputError(f"weight must be in [0, 1], but got {weight}")
    if out.exists():
        raise InvalidInputError(f"{out} exists: give a folder that does not, or remove it")
    originals, tuneds = _tensors(base), _tensors(tuned)
    if originals.keys() != tuneds.keys():
        odd = sorted(originals.keys() ^ tuneds.keys())
        raise UnsupportedModelError(
            f"{base} and {tuned} must have the same weights, but only one has {odd[:4]}"
        )
    merged: dict[str, torch.Tensor] = {}
    for name, file in tuneds.items():
        new, old = _read(file, name), _read(originals[name], name)
        if new.shape != old.shape:
            raise UnsupportedModelError(
                f"{name} must have one shape, but it has {tuple(old.shape)} in {base} and "
                f"{tuple(new.shape)} in {tuned}"
            )
        if new.is_floating_point():
            new = (old.double() * (1 - weight) + new.double() * weight).to(new.dtype)
        merged[name] = new.contiguous()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        folder = Path(made) / "merged"
        shutil.copytree(tuned, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
        folder.rename(out)
    return out


def _tensors(folder: Path) -> dict[str, Path]:
    """The file that holds each weight."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        return {name: folder / file for name, file in table["weight_map"].items()}
    file = folder / "model.safetensors"
    if not file.is_file():
        raise UnsupportedModelError(f"{folder} has no model.safetensors to merge")
    with safe_open(file, framework="pt") as weights:
        return dict.fromkeys(weights.keys(), file)


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as weights:
        tensor: torch.Tensor = weights.get_tensor(name)
    return tensor
