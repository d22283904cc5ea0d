"""Weights as they lie in a checkpoint folder: safetensors, in one file or in shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_plugins.scoring.blocks import Blocks, has_blocks

if TYPE_CHECKING:
    import torch

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Names that early BERT checkpoints have, and the later ones.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def read_tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    """Tensors by name, mapped from the disk: memory is taken as they are used.

    Weights in blocks of 4 or 8 bits (see `rerank_plugins.scoring.blocks`) come as float32, each
    decoded when it is asked for.

    Raises:
        UnsupportedModelError: If a file of blocks is damaged.
        OSError: If the file does not exist or cannot be read.
        SafetensorError: If a file is damaged.
        ValueError: If the index of the shards is not JSON.
        KeyError: If the index of the shards lacks its map.
    """
    if has_blocks(folder):
        return Blocks(folder)
    from safetensors.torch import load_file

    files = [_SINGLE]
    if not (folder / _SINGLE).is_file() and (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        files = sorted(set(index["weight_map"].values()))
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        # The name alone: an index must not lead out of the folder.
        for name, tensor in load_file(folder / Path(file).name).items():
            for old, new in _OLD_NAMES.items():
                name = name.replace(old, new)  # noqa: PLW2901
            tensors[name] = tensor
    return tensors
