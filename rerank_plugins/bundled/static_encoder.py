"""Sentence vectors from a table: the mean of one static vector per token, for a million texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import lock_without_forks
from rerank_plugins._validation import check_each
from rerank_plugins.bundled._folder import FOLDER
from rerank_plugins.bundled.encoder import files_digest, readable
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.long_texts import blocks_of

_TENSOR: Final = "embedding.weight"


class StaticEncoder:
    """Turns texts into vectors by looking up and averaging token vectors.

    Reads its files on first use. Safe to share between threads.
    """

    def __init__(self, folder: str | Path = FOLDER / "static") -> None:
        """Names the folder; nothing is read yet.

        Args:
            folder: Holds ``tokenizer.json`` and ``model.safetensors`` with the tensor
                ``embedding.weight``, shape (vocabulary, d), any float type.
        """
        self.folder = Path(folder)
        self._lock = lock_without_forks()
        self._loaded: tuple[Any, NDArray[np.float32], int | None] | None = None

    @staticmethod
    def default() -> StaticEncoder:
        """The encoder that ships with this package, one for the whole process."""
        return _default()

    @property
    def name(self) -> str:
        """What rankings and messages call it."""
        return "bundled-static"

    @property
    def dimension(self) -> int:
        """d, the length of a vector."""
        return int(self._load()[1].shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of n texts.

        Returns:
            Shape (n, d), each of length 1; zero for a text without a known token. The whole
            text counts: there is no length limit. Half of a surrogate pair reads as ``?``.

        Raises:
            UnsupportedModelError: If the folder lacks a file, or the files do not fit together.
        """
        texts = check_each("texts", texts, str, "texts")
        tokenizer, table, unknown = self._load()
        vectors = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        # A long text in blocks, which take linear time.
        blocks = [blocks_of(readable(text)) for text in texts]
        tokens = iter(
            tokenizer.encode_batch_fast(list(chain.from_iterable(blocks)), add_special_tokens=False)
        )
        for row, own in enumerate(blocks):
            known = [
                token for some in islice(tokens, len(own)) for token in some.ids if token != unknown
            ]
            if known:
                mean = table[known].mean(axis=0)
                vectors[row] = mean / (np.linalg.norm(mean) or 1.0)
        return vectors

    encode_query = encode
    encode_document = encode

    def embed_windows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """The vectors of n passages, shape (n, d), and 0 to n-1: the whole text is one window."""
        return self.encode(texts), np.arange(len(texts), dtype=np.intp)

    def settings(self) -> dict[str, float]:
        """How cosines become scores: nothing is stated."""
        return {"scale": 8.0, "middle": 0.4, "first_stage_weight": 0.8}

    def fingerprint(self) -> str:
        """Changes with every file of the folder that can change a vector."""
        return files_digest(self.folder)

    def _load(self) -> tuple[Any, NDArray[np.float32], int | None]:
        with self._lock:
            if self._loaded is None:
                self._loaded = _read(self.folder)
            return self._loaded


@cache
def _default() -> StaticEncoder:
    return StaticEncoder()


def _read(folder: Path) -> tuple[Any, NDArray[np.float32], int | None]:
    """The tokenizer, the table in float32, and the id of the unknown token."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    for name in ("tokenizer.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UnsupportedModelError(f"a static encoder needs {name}, but {folder} has none")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tensors = load_file(folder / "model.safetensors")
    if _TENSOR not in tensors:
        raise UnsupportedModelError(
            f"{folder / 'model.safetensors'} must hold the tensor {_TENSOR}, "
            f"but holds {', '.join(sorted(tensors)) or 'none'}"
        )
    table = tensors[_TENSOR].astype(np.float32)
    if table.ndim != 2 or len(table) < tokenizer.get_vocab_size():
        raise UnsupportedModelError(
            f"{_TENSOR} must have a row for each of the tokenizer's "
            f"{tokenizer.get_vocab_size()} tokens, but has shape {table.shape}"
        )
    return tokenizer, table, _unknown_id(tokenizer)


def _unknown_id(tokenizer: Any) -> int | None:
    """The id that stands for what the vocabulary lacks; it means nothing and is left out."""
    # Unigram models know the id, the others the token.
    model = json.loads(tokenizer.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    found: int | None = tokenizer.token_to_id(token) if token else None
    return found
