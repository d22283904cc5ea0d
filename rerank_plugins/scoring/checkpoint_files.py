"""A checkpoint's files before anything is made of them: sizes, names, and settings of ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring.base import LONG_PASSAGES

# Weights, configuration, tokenizer, and code that the checkpoint may bring.
DECIDING = {".bin", ".json", ".model", ".py", ".safetensors", ".txt"}
_WEIGHTS = {".bin", ".safetensors"}
_PLAIN = re.compile(r"[\w-][\w.-]*")
# Bytes; the tokenizer.json of a vocabulary of 260,000 has 35 MB.
_LARGEST_TEXT = 1 << 28
# The deepest models that people use have some 130.
_MOST_LAYERS = 1000


def check_sizes(folder: Path) -> None:
    """Refuses text files that no checkpoint has, before one of them fills the memory."""
    for file in folder.iterdir():
        if file.suffix in DECIDING - _WEIGHTS and file.stat().st_size > _LARGEST_TEXT:
            raise UnsupportedModelError(
                f"{file} must have at most {_LARGEST_TEXT} bytes, but has {file.stat().st_size}"
            )


def check_shards(folder: Path) -> None:
    """Refuses an index of weight files that names one outside the folder."""
    for index in folder.glob("*.index.json"):
        shards = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        if outside := [name for name in shards if not _PLAIN.fullmatch(name)]:
            raise UnsupportedModelError(
                f"{index} must name files beside it alone, but names {outside[0]!r}"
            )


def code_elsewhere(folder: Path) -> list[str]:
    """The other repositories that the checkpoint's classes come from."""
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    places = [str(value).partition("--") for value in named.values()]
    return sorted({repository for repository, between, _ in places if between})


def check_shape(config: Any, folder: Path) -> None:
    """Refuses a config of a model far larger than the weights beside it.

    What weights lack is made up in memory before anyone can see that it was lacking.
    """
    layers = int(getattr(config, "num_hidden_layers", None) or 0)
    if layers > _MOST_LAYERS:
        raise UnsupportedModelError(
            f"a model has at most {_MOST_LAYERS} layers, but config.json in {folder} says {layers}"
        )
    stored = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _WEIGHTS)
    for name in ("vocab_size", "hidden_size", "intermediate_size", "type_vocab_size"):
        rows = int(getattr(config, name, None) or 0)
        width = int(getattr(config, "embedding_size", None) or config.hidden_size)
        # A byte for two numbers at least, and weights that layers share are stored once.
        if stored and rows * width > 2 * stored:
            raise UnsupportedModelError(
                f"config.json in {folder} says {name}={rows}, too much for the {stored} bytes of "
                "weights beside it"
            )


def defaults(block: object, folder: Path) -> dict[str, Any]:
    """The ``rerank_plugins`` block of config.json, checked, with what it leaves open."""
    defaults: dict[str, Any] = {
        "max_length": None,
        "window_tokens": None,
        "long_passages": "truncate",
        "first_stage_weight": 0.0,
        "form": None,
    }
    if not isinstance(block, dict):
        raise UnsupportedModelError(
            f"config.json in {folder} has rerank_plugins={block!r}; it must be an object"
        )
    if unknown := sorted(set(block) - set(defaults)):
        raise UnsupportedModelError(
            f"config.json in {folder} has unknown rerank_plugins settings {unknown}; "
            f"known are {sorted(defaults)}"
        )
    defaults.update(block)
    weight = defaults["first_stage_weight"]
    if not isinstance(weight, (int, float)) or not 0.0 <= weight <= 1.0:
        raise UnsupportedModelError(
            f"config.json in {folder} has first_stage_weight={weight!r}; it must be between 0 and 1"
        )
    try:
        for name in ("max_length", "window_tokens"):
            if defaults[name] is not None:
                check_count(name, defaults[name], minimum=1)
    except InvalidInputError as error:
        raise UnsupportedModelError(f"in config.json in {folder}, {error}") from error
    if defaults["long_passages"] not in LONG_PASSAGES:
        raise UnsupportedModelError(
            f"config.json in {folder} has long_passages={defaults['long_passages']!r}; "
            f"it must be one of {list(LONG_PASSAGES)}"
        )
    return defaults
