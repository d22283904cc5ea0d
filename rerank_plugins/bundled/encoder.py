"""Sentence vectors with no network: multilingual-e5-small, trimmed to four languages.

Model: Wang et al. 2024, "Multilingual E5 Text Embeddings"; its card asks for the prefixes
``query: `` and ``passage: ``, the mean of the last layer and unit length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._progress import progress
from rerank_plugins._text import stream_safe
from rerank_plugins._threads import lock_without_forks
from rerank_plugins._validation import check_each
from rerank_plugins.bundled._bodies import (
    EncoderEngine,
    EncoderPrecision,
    check_choices,
    chosen,
    read_body,
)
from rerank_plugins.bundled._folder import FOLDER
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.batching import PACKED_TOKENS_ON_CPU, token_budget_batches
from rerank_plugins.scoring.engines import Choice
from rerank_plugins.scoring.tokenizer_files import read_tokenizer

Side = Literal["query", "passage"]

# Tokens of a window, prefix and ends included, where a passage is longer than the model can read,
# and how many of them the next window repeats.
_WINDOW: Final = 256
_OVERLAP: Final = 64
# Texts tokenized at a time, so that a corpus's token lists never exist together.
_TEXTS_AT_A_TIME: Final = 512


class BundledEncoder:
    """Turns Arabic, French, Polish and English text into vectors of 384 numbers, length 1.

    Cosines lie close together (.7 to .9); only their order tells. Other languages are read by
    the pieces that the four have, and lose accuracy with every piece that is missing.

    Nothing is read before the first use. Safe to share between threads.
    """

    def __init__(
        self,
        folder: str | Path = FOLDER / "encoder",
        *,
        engine: EncoderEngine = "auto",
        precision: EncoderPrecision = "auto",
    ) -> None:
        """Names the folder; nothing is read yet.

        Args:
            folder: Holds ``config.json`` and weights of a BERT encoder, and ``tokenizer.json``.
            engine: ``torch`` or ``openvino``; ``auto`` is OpenVINO where it is installed and was
                measured to be faster. Their vectors differ by less than bf16's rounding.
            precision: ``fp32``, ``bf16``, or ``int8`` (weights and activations of linear layers,
                on any CPU, by torch); ``auto`` is bf16 where the processor computes it natively,
                else fp32. int8 moves vectors: embed an index and its questions alike.

        Raises:
            InvalidInputError: If engine or precision is unknown, or they do not go together.
            MissingDependencyError: OpenVINO is asked for and not installed.
        """
        check_choices(engine, precision)
        self.folder = Path(folder)
        self.engine = engine
        self.precision = precision
        self._lock = lock_without_forks()
        self._loaded: _Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "engine": self.engine, "precision": self.precision}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @staticmethod
    def default() -> BundledEncoder:
        """The encoder that ships with this package, one for the whole process."""
        return _default()

    @property
    def name(self) -> str:
        """What rankings and messages call it."""
        return "bundled-encoder"

    @property
    def dimension(self) -> int:
        """Length of a vector; reads ``config.json`` alone."""
        return int(_config(self.folder)["hidden_size"])

    @property
    def max_length(self) -> int:
        """Tokens of a text, prefix and ends included, that one vector covers."""
        return int(_config(self.folder)["max_position_embeddings"])

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of n queries, shape (n, d); what is over `max_length` tokens is left out.

        Raises:
            UnsupportedModelError: If the folder lacks a file, or the files do not fit together.
        """
        return self._vectors(texts, "query", windows=False)[0]

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of n passages, shape (n, d): a passage of several windows has their mean.

        Prefer `embed_windows` where a passage may have several vectors.

        Raises:
            UnsupportedModelError: If the folder lacks a file, or the files do not fit together.
        """
        texts = check_each("texts", texts, str, "texts")
        vectors, owners = self.embed_windows(texts)
        if len(vectors) == len(texts):
            return vectors
        mean = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        np.add.at(mean, owners, vectors)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        return mean

    encode = encode_document

    def embed_windows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """The vectors of n passages, one per window.

        A passage that the model can read whole is one window; a longer one is cut into windows of
        256 tokens, a quarter of which the next repeats. At search its score is the highest of its
        windows' scores.

        Returns:
            Vectors of shape (windows, d), and for each the place of its text, ascending; every
            text has at least one.

        Raises:
            UnsupportedModelError: If the folder lacks a file, or the files do not fit together.
        """
        return self._vectors(texts, "passage", windows=True)

    def settings(self) -> dict[str, float]:
        """The ``rerank_plugins`` block of ``config.json``: how cosines become scores."""
        return dict(_config(self.folder).get("rerank_plugins", {}))

    def describe(self) -> dict[str, str]:
        """What computes: ``engine``, ``device``, ``precision``, and why it was ``chosen``."""
        choice = chosen(self.engine, self.precision, _config(self.folder))
        return {
            "engine": choice.engine,
            "device": "cpu",
            "precision": choice.precision,
            "chosen": choice.reason,
        }

    def fingerprint(self) -> str:
        """Changes with every file of the folder that can change a vector, and with int8."""
        digest = files_digest(self.folder)
        return f"{digest}-int8" if self.precision == "int8" else digest

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, without prefix and ends."""
        return len(self._load().ids([text], "")[0]) - 2

    def _vectors(
        self, texts: Sequence[str], side: Side, *, windows: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        texts = check_each("texts", texts, str, "texts")
        loaded = self._load()
        parts: list[NDArray[np.float32]] = [np.zeros((0, self.dimension), dtype=np.float32)]
        owners: list[int] = []
        starts = range(0, len(texts), _TEXTS_AT_A_TIME)
        unit = f" x {_TEXTS_AT_A_TIME}"
        for start in progress(starts, desc="Embedding", unit=unit, delay=2):
            some = texts[start : start + _TEXTS_AT_A_TIME]
            rows: list[list[int]] = []
            for place, ids in enumerate(loaded.ids(some, f"{side}: "), start):
                cut = loaded.windows(ids) if windows else [loaded.first(ids)]
                rows += cut
                owners += [place] * len(cut)
            parts.append(loaded.means(rows))
        return np.concatenate(parts), np.array(owners, dtype=np.intp)

    def _load(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                choice = chosen(self.engine, self.precision, _config(self.folder))
                self._loaded = _Loaded(self.folder, choice)
            return self._loaded


class _Loaded:
    """Tokenizer and weights."""

    def __init__(self, folder: Path, choice: Choice) -> None:
        config = _config(folder)
        if not (folder / "tokenizer.json").is_file():
            raise UnsupportedModelError(f"an encoder needs tokenizer.json, but {folder} has none")
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._length = int(config["max_position_embeddings"])
        self._prefix = len(self._tokenizer.encode("passage: ", add_special_tokens=False).ids)
        self._body = read_body(folder, config, choice)
        self._lock = lock_without_forks()

    def ids(self, texts: Sequence[str], prefix: str) -> list[list[int]]:
        given = [prefix + readable(text) for text in texts]
        return [found.ids for found in self._tokenizer.encode_batch_fast(given)]

    def first(self, ids: list[int]) -> list[int]:
        """The row cut to the model's length; its last token stays."""
        return ids if len(ids) <= self._length else [*ids[: self._length - 1], ids[-1]]

    def windows(self, ids: list[int]) -> list[list[int]]:
        """The row, or windows of it that each have prefix and ends."""
        if len(ids) <= self._length:
            return [ids]
        head, text, end = ids[: 1 + self._prefix], ids[1 + self._prefix : -1], ids[-1]
        size = min(_WINDOW, self._length) - len(head) - 1
        step = max(1, size - min(_OVERLAP, size // 4))
        starts = [*range(0, len(text) - size, step), len(text) - size]
        return [[*head, *text[start : start + size], end] for start in starts]

    def means(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Unit vectors of token rows, in their order."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        out = np.empty((len(rows), self._body.dimension), dtype=np.float32)
        for places in token_budget_batches(lengths, PACKED_TOKENS_ON_CPU):
            with self._lock:  # a forward pass at a time: more would fight for cores
                out[places] = self._body([rows[place] for place in places])
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out


def readable(text: str) -> str:
    """The text as a tokenizer takes it in linear time; half of a surrogate pair is ``?``."""
    return stream_safe(text.encode("utf-8", "replace").decode("utf-8"))


@cache
def _default() -> BundledEncoder:
    return BundledEncoder()


@cache
def files_digest(folder: Path) -> str:
    """BLAKE2b of a folder's JSON and safetensors files; read once per process."""
    told = blake2b(digest_size=16)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors"):
            told.update(f"{file.name}\0".encode())
            told.update(file.read_bytes())
    return told.hexdigest()


@cache
def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"{file} could not be read: {error}") from error
    return config
