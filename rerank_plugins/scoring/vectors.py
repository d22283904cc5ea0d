"""Scores by a text encoder: the cosine of query and passage, each passage encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Protocol

from rerank_plugins._memo import ByteBoundedDict
from rerank_plugins._validation import check_count
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.vector_file import VectorFile

_MB: Final = 1 << 20
# Passages encoded between two looks at the clock.
_AT_A_TIME: Final = 16
# Characters of a passage that would hold up all others, with a dozen windows or more.
_LONG: Final = 1 << 13
# How cosines become logits where the encoder's folder does not say: e5's lie between .7 and .9.
SCALE: Final = 40.0
MIDDLE: Final = 0.84
WEIGHT: Final = 0.4


class Encoder(Protocol):
    """What turns texts into vectors of length 1; see `rerank_plugins.bundled.BundledEncoder`."""

    @property
    def name(self) -> str:
        """What rankings show."""
        ...

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, d)."""
        ...

    def embed_windows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Vectors of shape (windows, d), and the place of the text that each belongs to."""
        ...

    def settings(self) -> Mapping[str, float]:
        """``scale``, ``middle`` and ``first_stage_weight``, where the encoder states them."""
        ...

    def fingerprint(self) -> str:
        """Tells its files from all others."""
        ...


class Known(Protocol):
    """Where passages' vectors may be known already, such as a `Dense` index."""

    def vectors_of(self, texts: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Of the texts that it has: their vectors, shape (windows, d), each of length 1."""
        ...


class VectorScorer:
    """A `Scorer` over a bi-encoder. A passage is encoded once; a known one costs a dot product.

    A passage's score is the highest cosine of its windows with the query, as a logit:
    ``scale * (cosine - middle)``, by which the sigmoid is a probability on held-back questions.

    Vectors are kept by text, in memory and, where ``path`` is given, in a file that several
    processes may share. Safe to share between threads.

    Args:
        encoder: Turns texts into vectors.
        memory_mb: Megabytes of passages' vectors to hold; 100,000 passages of one window take
            some 160.
        path: An SQLite file of vectors, made when missing; None for none.
        known: Asked before a passage is encoded: give the `Dense` index that finds the
            candidates, so that nothing is encoded twice.

    Raises:
        InvalidInputError: ``memory_mb`` is not a whole number of at least 1, or ``path`` cannot be
            used.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        memory_mb: int = 256,
        path: str | Path | None = None,
        known: Known | None = None,
    ) -> None:
        self.encoder = encoder
        self.path = None if path is None else Path(path)
        self._memory_mb = check_count("memory_mb", memory_mb, minimum=1)
        self._known = known
        self._set_up()

    def _set_up(self) -> None:
        self._queries: ByteBoundedDict[str, NDArray[np.float32]] = ByteBoundedDict(_MB, _size)
        self._passages: ByteBoundedDict[str, NDArray[np.float32]] = ByteBoundedDict(
            self._memory_mb * _MB, _size
        )
        self._file = None if self.path is None else VectorFile(self.path)

    def __getstate__(self) -> dict[str, Any]:
        # Settings travel to another process, vectors do not.
        left = ("_queries", "_passages", "_file")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.encoder.name

    @property
    def first_stage_weight(self) -> float:
        """What the encoder states; .4, the best for e5 over BM25, where it states nothing."""
        return float(self.encoder.settings().get("first_stage_weight", WEIGHT))

    def fingerprint(self) -> str:
        """Tells the encoder's files from all others; a cache of scores asks for it."""
        return self.encoder.fingerprint()

    keeps_deadlines = True

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit per pair; nothing of a passage is left out.

        Against the clock (``stop_at``), known passages are scored whatever there is of time to
        encode others, and those are encoded in the order of the pairs, those of many windows
        last. Options that are for cross-encoders are not looked at.
        """
        settings = self.encoder.settings()
        queries = self._encoded_queries(list(dict.fromkeys(query for query, _ in pairs)))
        texts = [passage for _, passage in pairs]
        if options.stop_at is None:
            passages = self.vectors_of(texts)
        else:
            passages = self._vectors_in_time(texts, options.stop_at)
        scored = np.array([passage in passages for passage in texts], dtype=np.bool_)
        cosines = np.array(
            [
                (passages[passage] @ queries[query]).max() if passage in passages else 0.0
                for query, passage in pairs
            ],
            dtype=np.float64,
        )
        scale, middle = settings.get("scale", SCALE), settings.get("middle", MIDDLE)
        return PairScores(
            scale * (cosines - middle),
            np.zeros(len(pairs), dtype=np.bool_),
            scored=None if scored.all() else scored,
        )

    def _vectors_in_time(
        self, texts: Sequence[str], stop_at: float
    ) -> dict[str, NDArray[np.float32]]:
        """Vectors of the known passages, and of as many others as there is time for."""
        unique = list(dict.fromkeys(texts))
        found = self._already(unique)
        missing = [text for text in unique if text not in found]
        missing.sort(key=lambda text: len(text) > _LONG)
        pace: float | None = None  # seconds a character
        while missing and (left := stop_at - perf_counter()) > 0:
            fitting = _fitting(missing, left, pace)
            if not fitting:
                break
            part, missing = missing[:fitting], missing[fitting:]
            begin = perf_counter()
            found |= self._encoded(part)
            pace = (perf_counter() - begin) / sum(len(text) + 1 for text in part)
        return found

    def warm_up(self) -> None:
        """Loads the encoder, so that no query waits for it."""
        self.encoder.encode_query(["a"])

    def remember(self, passages: Sequence[str]) -> None:
        """Encodes what is not known yet, so that later queries find it: a warm-up."""
        self.vectors_of(passages)

    def _encoded_queries(self, texts: list[str]) -> dict[str, NDArray[np.float32]]:
        found = {text: vector for text in texts if (vector := self._queries.find(text)) is not None}
        missing = [text for text in texts if text not in found]
        if missing:
            for text, vector in zip(missing, self.encoder.encode_query(missing), strict=True):
                found[text] = vector.copy()
                self._queries.keep(text, found[text])
        return found

    def vectors_of(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Every passage's vectors, shape (windows, d); what is not known is encoded and kept."""
        unique = list(dict.fromkeys(texts))
        found = self._already(unique)
        missing = [text for text in unique if text not in found]
        return found | self._encoded(missing) if missing else found

    def _encoded(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of texts that are not known, which are known from then on."""
        vectors, owners = self.encoder.embed_windows(texts)
        edges = np.searchsorted(owners, np.arange(len(texts) + 1))
        made = {
            text: vectors[edges[place] : edges[place + 1]].copy()
            for place, text in enumerate(texts)
        }
        if self._file is not None:
            self._file.keep({self._key(text): rows for text, rows in made.items()})
        self._remember(made)
        return made

    def _already(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors that are in memory, in what was given as known, or in the file."""
        found = {
            text: vectors for text in texts if (vectors := self._passages.find(text)) is not None
        }
        new: dict[str, NDArray[np.float32]] = {}
        if self._known is not None:
            new.update(self._known.vectors_of([text for text in texts if text not in found]))
        if self._file is not None:
            rest = [text for text in texts if text not in found and text not in new]
            keys = {text: self._key(text) for text in rest}
            kept = self._file.find(list(keys.values()))
            new.update({text: kept[key] for text, key in keys.items() if key in kept})
        self._remember(new)
        return found | new

    def _remember(self, new: Mapping[str, NDArray[np.float32]]) -> None:
        for text, rows in new.items():
            self._passages.keep(text, rows)

    def _key(self, text: str) -> bytes:
        """Under which the file keeps a text's vectors."""
        own = self.fingerprint().encode()
        return blake2b(text.encode("utf-8", "surrogatepass"), key=own, digest_size=16).digest()

    def describe(self) -> dict[str, Any]:
        """What scores, as native types."""
        return {
            "model": self.name,
            "kind": "bi-encoder",
            **getattr(self.encoder, "describe", dict)(),
            "first_stage_weight": self.first_stage_weight,
            "passages_in_memory": len(self._passages),
            "path": None if self.path is None else str(self.path),
        }


def _fitting(texts: Sequence[str], seconds: float, pace: float | None) -> int:
    """How many texts to encode next; half of the time left may go, or all of it for one."""
    if pace is None:
        return 1
    spent = 0.0
    for count, text in enumerate(texts[:_AT_A_TIME]):
        cost = pace * (len(text) + 1)
        if spent + cost > seconds / 2:
            return count or int(cost <= seconds)
        spent += cost
    return min(len(texts), _AT_A_TIME)


def _size(text: str, vectors: NDArray[np.float32]) -> int:
    return len(text.encode("utf-8", "surrogatepass")) + vectors.nbytes + 150
