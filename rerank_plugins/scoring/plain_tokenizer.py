"""Config and tokenizer without transformers, where it would only read the two files.

Importing transformers takes longer than loading a small model. Its generic tokenizer class adds
nothing to tokenizer.json, so a checkpoint that states that class and settings known here is
read directly; every other one is transformers' to read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from rerank_plugins.scoring.packed import against_packing
from rerank_plugins.scoring.tokenizer_files import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GENERIC: Final = {"PreTrainedTokenizerFast", "TokenizersBackend"}
_TOKENS: Final = {
    "bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token",
}  # fmt: skip
_OTHERS: Final = {
    "backend", "clean_up_tokenization_spaces", "is_local", "local_files_only",
    "model_input_names", "model_max_length", "tokenizer_class",
}  # fmt: skip
_NUMBERS: Final = (
    "hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads",
    "num_hidden_layers", "pad_token_id", "type_vocab_size", "vocab_size",
)  # fmt: skip
# As transformers has it for tokenizers that state no limit or no inputs.
_NO_LIMIT: Final = 10**30
_INPUTS: Final = ["input_ids", "attention_mask"]


@dataclass(frozen=True, slots=True)
class PlainTokenizer:
    """What is read of a transformers tokenizer, under the same names."""

    backend_tokenizer: Tokenizer
    model_max_length: float
    model_input_names: list[str]
    settings: dict[str, Any]
    is_fast: bool = True

    @property
    def vocab_files_names(self) -> dict[str, str]:
        """The file that it was read from."""
        return {"tokenizer_file": "tokenizer.json"}

    @property
    def pad_token_id(self) -> int | None:
        """None where no such token is stated; likewise below."""
        return self._id("pad_token")

    @property
    def cls_token_id(self) -> int | None:
        """First token of a BERT pair."""
        return self._id("cls_token")

    @property
    def sep_token_id(self) -> int | None:
        """Separator of a BERT pair."""
        return self._id("sep_token")

    @property
    def bos_token_id(self) -> int | None:
        """First token of a RoBERTa pair."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Separator of a RoBERTa pair."""
        return self._id("eos_token")

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Tokens of ids."""
        return [str(self.backend_tokenizer.id_to_token(one)) for one in ids]

    def _id(self, name: str) -> int | None:
        token = self.settings.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)


def read_plainly(folder: Path, raw: dict[str, Any]) -> tuple[Any, PlainTokenizer] | None:
    """Config, with its values as attributes, and tokenizer; None where transformers must read.

    Args:
        folder: The checkpoint's.
        raw: Its config.json.
    """
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    if not _is_plain(raw) or not all(file.is_file() for file in files):
        return None
    settings = json.loads(files[1].read_text(encoding="utf-8"))
    if not _is_generic(settings):
        return None
    tokenizer = read_tokenizer(files[0])
    if any(tokenizer.token_to_id(settings[name]) is None for name in _TOKENS & set(settings)):
        return None  # a token that transformers would add
    labels = raw.get("id2label")
    config = SimpleNamespace(
        **{**raw, "num_labels": raw.get("num_labels", 2) if labels is None else len(labels)}
    )
    return config, PlainTokenizer(
        backend_tokenizer=tokenizer,
        model_max_length=settings.get("model_max_length", _NO_LIMIT),
        model_input_names=settings.get("model_input_names", _INPUTS),
        settings=settings,
    )


def _is_plain(raw: dict[str, Any]) -> bool:
    numbers = all(isinstance(raw.get(name), int) for name in _NUMBERS)
    return numbers and against_packing(raw) is None and "auto_map" not in raw


def _is_generic(settings: dict[str, Any]) -> bool:
    return (
        settings.get("tokenizer_class") in _GENERIC
        and not set(settings) - _TOKENS - _OTHERS
        and all(isinstance(settings.get(name, ""), str) for name in _TOKENS)
    )
