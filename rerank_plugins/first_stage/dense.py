"""Search by embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_choice, check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import IndexDamagedError, IndexMismatchError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._checks import check_texts
from rerank_plugins.first_stage._dense_segments import Segments
from rerank_plugins.first_stage._dense_view import DenseSettings, DenseView
from rerank_plugins.first_stage._embedders import Embedder
from rerank_plugins.first_stage._faiss_vectors import KINDS, FaissVectors
from rerank_plugins.first_stage._holder import Holder
from rerank_plugins.first_stage._passages import Passages
from rerank_plugins.first_stage._vectors import (
    INDEXES,
    METRICS,
    ExactVectors,
    IndexChoice,
    IndexKind,
    Metric,
    Vectors,
    checked_vectors,
)

__all__ = ["Dense", "IndexChoice", "IndexKind", "Metric"]

# How many texts a loaded index is tried on, and how far a vector may be from the stored one, as
# a share of its length: rounding and compression stay below a fifth, another model is at 1.4.
_PROBES: Final = 16
_FARTHEST: Final = 0.5


class Dense(Holder[DenseView]):
    """A first stage over embeddings: exact, HNSW or IVF-PQ.

    Scores are higher-is-better for every metric: the cosine, the inner product, or minus the
    squared Euclidean distance. A zero vector has cosine 0 with everything, and a query whose
    vector is zero under cosine finds nothing. A passage may have several vectors, for its
    windows, say; its score is the highest of theirs.

    ``exact`` returns the true best ``k``, equal scores in order of keys; ``hnsw`` walks a
    graph and may miss some; ``ivfpq`` keeps a byte for each two numbers, so it may miss some
    more, and its scores are those of the compressed vectors. New vectors stand beside a graph
    or codes, searched exactly, until there are enough to take them in. Each kind honours a mask
    to the letter and fills ``k`` as long as the mask allows ``k`` passages.

    Any number of threads may search, add and remove; a search sees all of a change or none of
    it.
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
                list of n texts to an array of shape (n, d). If it also has ``embed_windows``,
                from n texts to vectors, shape (m, d), and to the text that each vector belongs
                to, shape (m,), rising from 0, passages are embedded by that. None: the encoder
                that ships with this package, which needs no network.
            metric: ``cosine``, ``inner_product`` or ``l2``.
            index: ``exact``; ``hnsw``, for hundreds of thousands of passages, exact below 1,024
                vectors; ``ivfpq``, for millions, which stays exact below 10,000 and learns its
                codes from the texts that take it there, so better add many at once; or
                ``auto``: exact up to 100,000 vectors, then hnsw up to a million, then ivfpq.
            batch_size: How many texts are handed to ``embed`` at once.

        Raises:
            InvalidInputError: If an argument, a text or an embedding is invalid.
        """
        check_choice("metric", metric, METRICS)
        check_choice("index", index, INDEXES)
        batch_size = check_count("batch_size", batch_size, minimum=1)
        view = DenseView(
            DenseSettings(Embedder(embed), metric, batch_size),
            segments=Segments(index, "hnsw" if index == "hnsw" else "exact"),
        )
        super().__init__(view)
        self.add(texts)

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return self._view.settings.metric

    @property
    def index(self) -> IndexChoice:
        """As it was asked for."""
        return self._view.segments.asked

    @property
    def index_kind(self) -> IndexKind:
        """``exact``, ``hnsw`` or ``ivfpq``: what the passages are in now."""
        return self._view.segments.kind

    def add(
        self, texts: Iterable[str], *, vectors: ArrayLike | None = None, owners: Any = None
    ) -> list[int]:
        """Embeds and indexes more texts: all of them, or after an error none.

        Args:
            texts: Passages.
            vectors: Their embeddings, shape (m, d), where they are known already.
            owners: Shape (m,): which text each vector belongs to, rising from 0; None: one
                vector for each text.

        Returns:
            Their keys, which are never given again, not even after a removal.

        Raises:
            InvalidInputError: If a text is not a string, or the embeddings are not finite vectors
                of the index's dimension, one for each text.
        """
        listed = check_texts(texts)
        if listed and vectors is None:
            vectors, owners = self._view.embedded(listed)  # other writers need not wait for it
        return self._added(lambda view: view.with_added(listed, vectors, owners))

    async def aadd(self, texts: Iterable[str]) -> list[int]:
        """`add`, by the encoder's coroutine where it has one.

        Raises:
            InvalidInputError: As in `add`.
        """
        listed = check_texts(texts)
        vectors, owners = await self._view.aembedded(listed)
        return await in_thread(self.add, listed, vectors=vectors, owners=owners)

    async def asearch(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """`search`, by the encoder's coroutine where it has one.

        Raises:
            InvalidInputError: As in `search`.
        """
        return await self._view.asearch(query, k, mask=mask)

    def search_by_vector(
        self, vector: ArrayLike, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """As ``search``, for a query that is embedded already.

        Args:
            vector: Shape (d,).
            k: How many at most.
            mask: As in ``search``.

        Raises:
            InvalidInputError: If the vector is not finite or has a wrong dimension, or ``k`` or
                the mask is invalid.
        """
        return self._view.search_by_vector(vector, k, mask=mask)

    def vectors(self, keys: Iterable[int]) -> Vectors:
        """The vectors of passages as they are stored: of length 1 (or 0) under cosine.

        A passage with several has their mean, scaled likewise.

        Returns:
            Shape (number of keys, d).

        Raises:
            InvalidInputError: If a key is not in the index.
        """
        return self._view.vectors(keys)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a folder, in place of the one that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: If it cannot be written.
        """
        storage.save(path, "Dense", self.store)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, embed: Any = None) -> Self:
        """Reads an index that `save` wrote, its vectors mapped from the disk.

        Args:
            path: The folder.
            embed: What embedded the passages, as in the class: encoders are not stored. It is
                asked for one of the passages, to see that it is the same.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: Another version of this library wrote it.
            IndexMismatchError: ``embed`` gives other vectors than it did, or the index is of
                another kind.
        """
        found = storage.load(path, "Dense", lambda part: cls.restore(part, embed=embed))
        found.check_encoder()
        return found

    def store(self, out: storage.Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts only if asked for."""
        view = self._view
        segments = view.segments.compact(view.passages)
        out.settings |= {
            "metric": self.metric,
            "index": self.index,
            "batch_size": view.settings.batch_size,
            "dimension": view.dimension,
            "kind": segments.kind,
            "segments": [[one.kind, len(one), one.largest_norm] for one in segments.parts],
        }
        if texts:
            out.lines("texts.jsonl", view.passages.texts())
        out.array("live.npy", view.alive)
        for number, segment in enumerate(segments.parts):
            out.array(f"owners{number}.npy", segment.owners)
            if isinstance(segment, FaissVectors):
                out.file(f"vectors{number}.faiss", segment.write)
            else:
                out.array(f"vectors{number}.npy", np.ravel(segment.vectors))

    @classmethod
    def restore(
        cls, part: storage.Reader, *, texts: list[str] | None = None, embed: Any = None
    ) -> Self:
        """The index that `store` gave; call `check_encoder` before it is used.

        Args:
            part: Where the files are.
            texts: The passages in the order of keys, where they were not stored with it.
            embed: As in `load`.

        Raises:
            IndexDamagedError: If the files do not fit together.
        """
        told = part.settings
        dense = cls(
            embed=embed, metric=told["metric"], index=told["index"], batch_size=told["batch_size"]
        )
        alive = part.array("live.npy", np.bool_)
        count = int(np.count_nonzero(alive))
        texts = part.texts("texts.jsonl", count) if texts is None else texts
        if told["kind"] not in get_args(IndexKind):
            raise IndexDamagedError(f"unknown kind of index: {told['kind']!r}")
        parts = tuple(
            _stored_segment(part, number, told["dimension"], dense.metric, *one)
            for number, one in enumerate(told["segments"])
        )
        _check_owners(parts, alive)
        removed = tuple(int(np.count_nonzero(~one.at_rows(alive))) for one in parts)
        dense._view = replace(
            dense._view,
            passages=Passages.restored(alive, texts),
            segments=Segments(dense.index, told["kind"], parts, removed),
            dimension=told["dimension"],
        )
        return dense

    def check_encoder(self) -> None:
        """Checks that the encoder of a restored index gives the vectors that it gave.

        Raises:
            IndexMismatchError: If it does not.
        """
        view = self._view
        for key, text in islice(zip(self.keys, view.passages.texts(), strict=True), _PROBES):
            stored = view.segments.stored(key).astype(np.float64)
            length = float(np.linalg.norm(stored))
            embedded, _ = view.settings.embedder.passages([text])
            given = checked_vectors(embedded, None, self.metric).astype(np.float64)
            if given.shape[1] != stored.shape[1]:
                raise IndexMismatchError(
                    f"the index holds vectors of {stored.shape[1]} numbers, but this encoder "
                    f"gives {given.shape[1]}: load it with the encoder that made it"
                )
            if length > 0:
                alike = given.shape == stored.shape
                if not alike or np.linalg.norm(given - stored) > _FARTHEST * length:
                    raise IndexMismatchError(
                        "the encoder must give the vectors that it gave when the index was made, "
                        "but gives another one for the same passage: load the index with the "
                        "encoder that made it"
                    )
                return


def _stored_segment(
    part: storage.Reader, number: int, dimension: int, metric: Metric, *told: Any
) -> ExactVectors:
    """A segment, mapped from the disk.

    Raises:
        IndexDamagedError: If the files do not fit together.
    """
    kind, rows, largest_norm = told
    owners = part.array(f"owners{number}.npy", np.int64, rows)
    if not len(owners) or (np.diff(owners) < 0).any():
        raise IndexDamagedError("the owners of vectors must be keys, ascending, but are not")
    if kind == "exact":
        vectors = part.array(f"vectors{number}.npy", np.float32, rows * dimension)
        return ExactVectors(owners, vectors.reshape(rows, dimension), metric, float(largest_norm))
    path = part.path(f"vectors{number}.faiss")
    return KINDS[kind].read(path, owners, dimension, metric, float(largest_norm))


def _check_owners(segments: Sequence[ExactVectors], alive: NDArray[np.bool_]) -> None:
    """Checks that every passage has a vector, and that segments are in the order of keys.

    Raises:
        IndexDamagedError: If they are not.
    """
    known = np.zeros(len(alive), dtype=np.bool_)
    last = -1
    for segment in segments:
        first, end = int(segment.owners[0]), int(segment.owners[-1])
        if not last < first <= end < len(alive):
            raise IndexDamagedError("the keys of the index's vectors do not fit its passages")
        known[segment.owners] = True
        last = end
    if not known[alive].all():
        raise IndexDamagedError("every passage must have a vector, but one has none")
