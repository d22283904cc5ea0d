"""Search by embeddings over FAISS; the only place where a metric's sign is decided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._checks import check_mask, check_texts
from rerank_plugins.ordering import check_count, descending

Metric = Literal["cosine", "inner_product", "l2"]
IndexKind = Literal["exact", "hnsw"]
Vectors = NDArray[np.float32]

METRICS: Final = ("cosine", "inner_product", "l2")
INDEXES: Final = ("exact", "hnsw")

# HNSW (Malkov and Yashunin, 2018): links a node, and how many nodes are kept in sight while
# building and searching. Faiss's own 40 and 16 for the last two lose recall past 100,000.
_LINKS: Final = 32
_SEEN_BUILDING: Final = 200
_SEEN_SEARCHING: Final = 128
# A walk through a graph that may keep one node in ten costs more than scoring those it may.
_SELECTIVE: Final = 0.1
# Faiss sums in float32, in an order that differs with a vector's place in memory: scores this
# close, relative to the larger vectors at hand, may be one score.
_CLOSE: Final = 1e-5


class Dense:
    """A first stage over embeddings, exact or HNSW.

    Scores are higher-is-better for every metric: the cosine, the inner product, or minus the
    squared Euclidean distance. A zero vector has cosine 0 with everything, and a query whose
    vector is zero under cosine finds nothing.

    ``exact`` returns the true best ``k``, equal scores in order of keys; ``hnsw`` walks a
    graph and may miss some. Either honours a mask to the letter and fills ``k`` as long as
    the mask allows ``k`` passages.

    Any number of threads may search, add and remove; a search sees all of an addition or none
    of it.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        *,
        embed: Any = None,
        metric: Metric = "cosine",
        index: IndexKind = "exact",
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
            index: ``exact``, or ``hnsw`` for millions of passages.
            batch_size: How many texts are handed to ``embed`` at once.

        Raises:
            InvalidInputError: An argument, a text or an embedding breaks a rule.
        """
        if metric not in METRICS:
            raise InvalidInputError(
                f"metric must be one of {', '.join(METRICS)}, but got {metric!r}"
            )
        if index not in INDEXES:
            raise InvalidInputError(f"index must be one of {', '.join(INDEXES)}, but got {index!r}")
        self.metric: Metric = metric
        self.index_kind: IndexKind = index
        self._batch_size = check_count("batch_size", batch_size, minimum=1)
        self._embed_texts, self._embed_query = _embedders(embed)
        self._index: Any = None
        self._texts: dict[int, str] = {}
        self._live = np.empty(0, dtype=bool)  # by key: given, and not removed since
        self._largest_norm = 0.0
        self._lock = _SharedLock()
        self.add(texts)

    def __len__(self) -> int:
        return len(self._texts)

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
        starts = range(0, len(listed), self._batch_size)
        batches = []
        for start in tqdm(starts, desc="Embedding", unit=" batches", disable=None, delay=1):
            batch = listed[start : start + self._batch_size]
            batches.append(self._checked(self._embed_texts(batch), len(batch)))
            _check_dimension(batches[-1], batches[0].shape[1])
        vectors = np.concatenate(batches)
        with self._lock.write():
            if self._index is None:
                self._index = self._new_index(vectors.shape[1])
            _check_dimension(vectors, self._index.d)
            keys = range(len(self._live), len(self._live) + len(listed))
            self._index.add_with_ids(vectors, np.asarray(keys, dtype=np.int64))
            self._texts.update(zip(keys, listed, strict=True))
            self._live = np.append(self._live, np.ones(len(listed), dtype=bool))
            longest = float(np.linalg.norm(vectors, axis=1).max())
            self._largest_norm = max(self._largest_norm, longest)
        return list(keys)

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable; of an HNSW index the vectors stay in memory.

        Raises:
            InvalidInputError: A key is not in the index; nothing is removed then.
        """
        listed = list(dict.fromkeys(keys))
        with self._lock.write():
            for key in listed:
                if key not in self._texts:
                    raise InvalidInputError(f"every key must be in the index, but {key!r} is not")
            if listed and self.index_kind == "exact":
                self._index.remove_ids(np.asarray(listed, dtype=np.int64))
            for key in listed:
                del self._texts[key]
                self._live[key] = False

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
            if k == 0:
                return []
            _check_dimension(query, self._index.d)
            if self.metric == "cosine" and not query.any():
                return []
            keys = np.sort(self._find(query, k, allowed))
            scores = self._scores(query, keys)
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
        listed = list(keys)
        with self._lock.read():
            for key in listed:
                if key not in self._texts:
                    raise InvalidInputError(f"every key must be in the index, but {key!r} is not")
            dimension = 0 if self._index is None else self._index.d
            stored = np.empty((len(listed), dimension), dtype=np.float32)
            for row, key in enumerate(listed):
                stored[row] = self._index.reconstruct(key)
            return stored

    def _checked(self, embedded: Any, count: int) -> Vectors:
        """Shape (count, d): finite, and of length 1 (or 0) under cosine."""
        try:
            vectors = np.asarray(embedded, dtype=np.float64)
        except (TypeError, ValueError) as error:
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

    def _new_index(self, dimension: int) -> Any:
        faiss = _faiss()
        measure = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        if self.index_kind == "exact":
            return faiss.IndexIDMap2(faiss.IndexFlat(dimension, measure))
        graph = faiss.IndexHNSWFlat(dimension, _LINKS, measure)
        graph.hnsw.efConstruction = _SEEN_BUILDING
        return faiss.IndexIDMap2(graph)

    def _find(self, query: Vectors, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Keys, in no order, that the best ``k`` allowed ones are among; 0 < k <= allowed."""
        faiss = _faiss()
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        total = int(allowed.sum())
        exact = self._index
        if self.index_kind == "hnsw":
            graph = faiss.downcast_index(self._index.index)
            if total > _SELECTIVE * self._index.ntotal:
                # All that the walk saw: the cut is made on exact scores, ties by key.
                seen = min(max(_SEEN_SEARCHING, k), total)
                walk = faiss.SearchParametersHNSW(sel=selector, efSearch=seen)
                keys: NDArray[np.int64] = self._index.search(query, seen, params=walk)[1][0]
                keys = keys[keys >= 0]
                if len(keys) >= k:
                    return keys
            # Nothing is ever taken out of a graph, so its rows are numbered by key.
            exact = graph.storage
        chosen = None
        if total < exact.ntotal:
            chosen = faiss.SearchParameters(sel=selector)
        measured, found = exact.search(query, min(k + 1, total), params=chosen)
        if total > k:
            last, following = float(measured[0, k - 1]), float(measured[0, k])
            if self.metric == "l2":
                margin = _CLOSE * following
            else:
                margin = _CLOSE * float(np.linalg.norm(query)) * self._largest_norm
            if abs(last - following) <= margin:
                # Which of several equal scores faiss keeps is chance: take them all in.
                edge = following + margin if self.metric == "l2" else following - margin
                # Faiss leaves the edge itself out.
                away = np.float32(np.inf if self.metric == "l2" else -np.inf)
                beyond = float(np.nextafter(np.float32(edge), away))
                return np.asarray(exact.range_search(query, beyond, params=chosen)[2])
        return np.asarray(found[0, :k])

    def _scores(self, query: Vectors, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """The scores in float64, the same for the same vector wherever it is stored."""
        vectors = self._index.reconstruct_batch(keys).astype(np.float64)
        if self.metric == "l2":
            return np.asarray(-np.square(vectors - query).sum(axis=1))
        products = (vectors * query).sum(axis=1)
        return np.asarray(products.clip(-1, 1) if self.metric == "cosine" else products)


def _faiss() -> Any:
    import faiss

    return faiss


def _check_dimension(vectors: Vectors, dimension: int) -> None:
    if vectors.shape[1] != dimension:
        raise InvalidInputError(
            f"every embedding must have the same dimension, {dimension} here, "
            f"but one has {vectors.shape[1]}: was another model used to build the index?"
        )


def _embedders(embed: Any) -> tuple[Callable[[list[str]], Any], Callable[[str], Any]]:
    """From n texts to (n, d), and from one query to (1, d)."""
    if embed is None:
        from rerank_plugins.first_stage.embedded_encoder import EmbeddedEncoder

        embed = EmbeddedEncoder.default()
    if hasattr(embed, "embed_documents") and hasattr(embed, "embed_query"):
        return embed.embed_documents, lambda query: [embed.embed_query(query)]
    if hasattr(embed, "get_text_embedding_batch") and hasattr(embed, "get_query_embedding"):
        return embed.get_text_embedding_batch, lambda query: [embed.get_query_embedding(query)]
    if hasattr(embed, "encode"):
        # From version 5 sentence-transformers gives each side the prompt its model wants.
        passages = getattr(embed, "encode_document", embed.encode)
        queries = getattr(embed, "encode_query", embed.encode)
        return passages, lambda query: queries([query])
    if callable(embed):
        return embed, lambda query: embed([query])
    raise InvalidInputError(
        "embed must have embed_documents and embed_query, get_text_embedding_batch and "
        "get_query_embedding, or encode, or be callable on a list of texts, "
        f"but is {type(embed).__name__}"
    )


class _SharedLock:
    """Any number of readers or one writer; a waiting writer goes before new readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writer = False

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writer)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writer)
            self._writer = True
            self._changed.wait_for(lambda: self._readers == 0)
        try:
            yield
        finally:
            with self._changed:
                self._writer = False
                self._changed.notify_all()
