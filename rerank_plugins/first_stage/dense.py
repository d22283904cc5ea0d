"""Search by embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm
from typing_extensions import Self

from rerank_plugins._telemetry import traced_search
from rerank_plugins._validation import check_choice, check_count, check_iterable
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._checks import check_keys, check_mask, check_texts, key_list
from rerank_plugins.first_stage._embedders import embedders
from rerank_plugins.first_stage._locks import SharedLock
from rerank_plugins.first_stage._vector_index import (
    INDEXES,
    METRICS,
    IndexChoice,
    IndexKind,
    Metric,
    VectorIndex,
    Vectors,
    check_dimension,
)
from rerank_plugins.ordering import descending

__all__ = ["Dense", "IndexChoice", "IndexKind", "Metric"]

# How many texts a loaded index is tried on, and how far a vector may be from the stored one, as
# a share of its length: rounding and compression stay below a fifth, another model is at 1.4.
_PROBES: Final = 16
_FARTHEST: Final = 0.5


class Dense:
    """A first stage over embeddings: exact, HNSW or IVF-PQ.

    Scores are higher-is-better for every metric: the cosine, the inner product, or minus the
    squared Euclidean distance. A zero vector has cosine 0 with everything, and a query whose
    vector is zero under cosine finds nothing.

    ``exact`` returns the true best ``k``, equal scores in order of keys; ``hnsw`` walks a
    graph and may miss some; ``ivfpq`` keeps a byte for each two numbers, so it may miss some
    more, and its scores are those of the compressed vectors. Each honours a mask to the letter
    and fills ``k`` as long as the mask allows ``k`` passages.

    Any number of threads may search, add and remove; a search sees all of an addition or none
    of it.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        *,
        embed: Any = None,
        metric: Metric = "cosine",
        index: IndexChoice = "auto",
        batch_size: int = 256,
    ) -> None:
        """Embeds and indexes the texts; the first text's key is 0.

        Args:
            texts: Passages; an iterator is read once.
            embed: A LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding``, a
                sentence-transformers model (anything with ``encode``), or a callable from a
                list of n texts to an array of shape (n, d). None: the encoder that ships
                with this package, which needs no network.
            metric: ``cosine``, ``inner_product`` or ``l2``.
            index: ``exact``; ``hnsw``, for hundreds of thousands of passages; ``ivfpq``, for
                millions, which stays exact below 10,000 and learns its codes from the texts
                that take it there, so better add many at once; or ``auto``: exact up to
                100,000 passages, then hnsw up to a million, then ivfpq.
            batch_size: How many texts are handed to ``embed`` at once.

        Raises:
            InvalidInputError: An argument, a text or an embedding breaks a rule.
        """
        check_choice("metric", metric, METRICS)
        check_choice("index", index, INDEXES)
        self.metric: Metric = metric
        self.index: IndexChoice = index
        self._batch_size = check_count("batch_size", batch_size, minimum=1)
        self._embed_texts, self._embed_query = embedders(embed)
        self._vectors: VectorIndex | None = None
        self._texts: dict[int, str] = {}
        self._live = np.empty(0, dtype=bool)  # by key: given, and not removed since
        self._lock = SharedLock()
        self.add(texts)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def index_kind(self) -> IndexKind:
        """``exact``, ``hnsw`` or ``ivfpq``: what the passages are in now."""
        if self._vectors is not None:
            return self._vectors.kind
        return "hnsw" if self.index == "hnsw" else "exact"

    @property
    def keys(self) -> list[int]:
        """The keys of the passages that can be found, ascending."""
        return list(self._texts)

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask."""
        return len(self._live)

    def add(self, texts: Iterable[str]) -> list[int]:
        """Embeds and indexes more texts: all of them, or after an error none.

        Returns:
            Their keys, which are never given again, not even after a removal.

        Raises:
            InvalidInputError: A text is no string, or the embeddings are not one finite
                vector of the index's dimension for each text.
        """
        listed = check_texts(texts)
        if not listed:
            return []
        vectors = self._embedded(listed)
        with self._lock.write():
            if self._vectors is None:
                self._vectors = VectorIndex(vectors.shape[1], self.metric, self.index)
            check_dimension(vectors, self._vectors.dimension)
            keys = self._vectors.add(vectors)
            self._texts.update(zip(keys, listed, strict=True))
            live = np.zeros(keys.stop, dtype=bool)
            live[: len(self._live)] = self._live
            live[keys.start :] = True
            self._live = live
        return list(keys)

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable; in an index that is not exact the vectors stay in memory.

        Raises:
            InvalidInputError: A key is not in the index; nothing is removed then.
        """
        listed = key_list(keys)
        with self._lock.write():
            check_keys(listed, self._texts)
            if self._vectors is not None:
                self._vectors.remove(listed)
            for key in listed:
                del self._texts[key]
                self._live[key] = False

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """The ``k`` nearest passages, best first.

        Args:
            query: Non-blank text.
            k: How many at most.
            mask: One boolean for each key ever given, shape (largest such key + 1,); only
                passages where it is True come back.

        Returns:
            Candidates with a higher-is-better score; equal scores keep the order of keys.

        Raises:
            InvalidInputError: The query, ``k``, the mask, or the query's embedding breaks a
                rule.
        """
        query = check_query(query)
        k = check_count("k", k)
        check_mask(mask, len(self._live))
        if k == 0 or not self._texts:
            return []
        return self.search_by_vector(self._checked(self._embed_query(query), 1)[0], k, mask=mask)

    def search_by_vector(
        self, vector: ArrayLike, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """As ``search``, for a query that is embedded already.

        Args:
            vector: Shape (d,).
            k: How many at most.
            mask: As in ``search``.

        Raises:
            InvalidInputError: The vector is not finite or has a wrong dimension, or ``k`` or
                the mask breaks the rule of ``search``.
        """
        k = check_count("k", k)
        query = self._checked([vector], 1)
        with self._lock.read():
            mask = check_mask(mask, len(self._live))
            allowed = self._live if mask is None else self._live & mask
            k = min(k, int(allowed.sum()))
            if k == 0 or self._vectors is None:
                return []
            check_dimension(query, self._vectors.dimension)
            if self.metric == "cosine" and not query.any():
                return []
            keys = np.sort(self._vectors.find(query, k, allowed))
            scores = self._vectors.scores(query, keys)
            return [
                Candidate(
                    key=int(keys[at]),
                    text=self._texts[int(keys[at])],
                    score=float(scores[at]),
                    rank=rank,
                )
                for rank, at in enumerate(descending(scores, k), start=1)
            ]

    def vectors(self, keys: Iterable[int]) -> Vectors:
        """The vectors of passages as they are stored: of length 1 (or 0) under cosine.

        Returns:
            Shape (number of keys, d).

        Raises:
            InvalidInputError: A key is not in the index.
        """
        listed = list(check_iterable("keys", keys))
        key_list(listed)
        with self._lock.read():
            check_keys(listed, self._texts)
            if self._vectors is None:
                return np.empty((0, 0), dtype=np.float32)
            return self._vectors.vectors(listed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a folder, in place of the one that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
        """
        storage.save(path, "Dense", self.store)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, embed: Any = None) -> Self:
        """Reads an index that `save` wrote, its vectors mapped from the disk.

        Args:
            path: The folder.
            embed: What embedded the passages, as of the class: encoders are not stored. It is
                asked for one of the passages, to see that it is the same.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: ``embed`` gives other vectors than it did, or the index is of
                another kind.
        """
        found = storage.load(path, "Dense", lambda part: cls.restore(part, embed=embed))
        found.check_encoder()
        return found

    def store(self, out: storage.Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts only if asked for."""
        with self._lock.read():
            out.settings |= {
                "metric": self.metric,
                "index": self.index,
                "batch_size": self._batch_size,
                "vectors": None if self._vectors is None else self._vectors.settings,
            }
            if texts:
                out.lines("texts.jsonl", self._texts.values())
            out.array("live.npy", self._live)
            if self._vectors is not None:
                out.file("vectors.faiss", self._vectors.write)

    @classmethod
    def restore(
        cls, part: storage.Reader, *, texts: list[str] | None = None, embed: Any = None
    ) -> Self:
        """The index that `store` gave; call `check_encoder` before it is used.

        Args:
            part: Where the files are.
            texts: The passages in the order of keys, where they were not stored with it.
            embed: As of `load`.
        """
        told = part.settings
        dense = cls(
            embed=embed, metric=told["metric"], index=told["index"], batch_size=told["batch_size"]
        )
        live = np.array(part.array("live.npy", np.bool_))
        keys = np.flatnonzero(live).tolist()
        texts = part.texts("texts.jsonl", len(keys)) if texts is None else texts
        dense._texts = dict(zip(keys, texts, strict=True))
        dense._live = live
        if told["vectors"] is not None:
            dense._vectors = VectorIndex.read(
                part.path("vectors.faiss"), told["vectors"], dense.metric, dense.index, live
            )
        return dense

    def check_encoder(self) -> None:
        """Checks that the encoder of a restored index gives the vectors that it gave.

        Raises:
            IndexMismatchError: It does not.
        """
        for key, text in islice(self._texts.items(), _PROBES):
            stored = self.vectors([key])[0].astype(np.float64)
            length = float(np.linalg.norm(stored))
            given = self._checked(self._embed_texts([text]), 1)[0]
            if given.shape != stored.shape:
                raise IndexMismatchError(
                    f"the index holds vectors of {len(stored)} numbers, but this encoder gives "
                    f"{len(given)}: load it with the encoder that made it"
                )
            if length > 0:
                if np.linalg.norm(given - stored) > _FARTHEST * length:
                    raise IndexMismatchError(
                        "the encoder must give the vectors that it gave when the index was made, "
                        "but gives another one for the same passage: load the index with the "
                        "encoder that made it"
                    )
                return

    def _embedded(self, texts: list[str]) -> Vectors:
        """Shape (number of texts, d), filled batch by batch."""
        vectors: Vectors | None = None
        starts = range(0, len(texts), self._batch_size)
        for start in tqdm(starts, desc="Embedding", unit=" batches", disable=None, delay=1):
            texts_here = texts[start : start + self._batch_size]
            batch = self._checked(self._embed_texts(texts_here), len(texts_here))
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
            check_dimension(batch, vectors.shape[1])
            vectors[start : start + len(batch)] = batch
        return np.empty((0, 0), dtype=np.float32) if vectors is None else vectors

    def _checked(self, embedded: Any, count: int) -> Vectors:
        """Shape (count, d): finite, and of length 1 (or 0) under cosine."""
        try:
            vectors = np.asarray(embedded, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(
                f"embeddings must be numbers, as many for one text as for another: {error}"
            ) from error
        if vectors.shape[:1] != (count,) or vectors.ndim != 2 or vectors.size == 0:
            raise InvalidInputError(
                f"embeddings must be one vector for each text, here {count}, "
                f"but have shape {vectors.shape}"
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(vectors.astype(np.float32)).all(axis=1)
        if not finite.all():
            raise InvalidInputError(
                "embeddings must be finite in float32, but that of text number "
                f"{int(np.argmin(finite))} of its batch is not"
            )
        if self.metric == "cosine":
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(norms == 0, 1, norms)
        return np.ascontiguousarray(vectors, dtype=np.float32)
