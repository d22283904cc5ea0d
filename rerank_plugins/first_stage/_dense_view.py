"""Dense search at one moment: passages, and the segments that hold their vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins._progress import progress
from rerank_plugins._telemetry import traced_search, traced_survey
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_iterable
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._checks import check_mask, check_texts, key_list
from rerank_plugins.first_stage._dense_segments import Segments
from rerank_plugins.first_stage._embedders import Embedder, Gathered
from rerank_plugins.first_stage._passages import Passages, PassagesView
from rerank_plugins.first_stage._vectors import (
    ExactVectors,
    Metric,
    Vectors,
    check_dimension,
    checked_owners,
    checked_vectors,
)
from rerank_plugins.first_stage.base import Survey


@dataclass(frozen=True, eq=False)
class DenseSettings:
    """What does not change with the passages."""

    embedder: Embedder
    metric: Metric
    batch_size: int


@dataclass(frozen=True, eq=False)
class DenseView(PassagesView):
    """An immutable dense index, as `rerank_plugins.first_stage.base.StageView` asks.

    Attributes:
        settings: Encoder and metric.
        passages: The texts by key.
        segments: Their vectors.
        dimension: Of the vectors; None until there are any.
    """

    settings: DenseSettings
    passages: Passages = field(default_factory=Passages)
    segments: Segments = field(default_factory=Segments)
    dimension: int | None = None

    def embedded(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.int64]]:
        """The texts' vectors, shape (m, d), and for each which text it belongs to.

        Raises:
            InvalidInputError: If the embeddings are not finite vectors of one dimension, at least
                one for each text.
        """
        gathered = Gathered(self.settings.metric)
        for batch in self._batches(texts):
            gathered.take(batch, *self.settings.embedder.passages(batch))
        return gathered.whole()

    async def aembedded(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.int64]]:
        """`embedded`, by the encoder's coroutine where it has one; for `with_added`."""
        gathered = Gathered(self.settings.metric)
        for batch in self._batches(texts):
            gathered.take(batch, *await self.settings.embedder.apassages(batch))
        return gathered.whole()

    def with_added(
        self, texts: Sequence[str], vectors: Any = None, owners: Any = None
    ) -> DenseView:
        """A view with these texts too.

        Args:
            texts: Passages.
            vectors: Their embeddings, where they are known already: shape (m, d), or one for
                each text, None for those that are to be embedded.
            owners: Shape (m,): which text each vector belongs to, rising from 0; a text may
                have several, its score being the highest of theirs. None: one each.

        Raises:
            InvalidInputError: If a text is not a string, or the embeddings are not finite vectors
                of the index's dimension, at least one for each text.
        """
        listed = check_texts(texts)
        if not listed:
            return self
        found, owned = self._completed(listed, vectors, owners)
        check_dimension(found, self.dimension or found.shape[1])
        new = ExactVectors(owned + self.size, found, self.settings.metric)
        passages = self.passages.with_added(listed)
        return replace(
            self,
            passages=passages,
            segments=self.segments.with_added(new, passages),
            dimension=found.shape[1],
        )

    def with_removed(self, keys: Iterable[int]) -> DenseView:
        """A view without these passages.

        Raises:
            InvalidInputError: If a key is not in the index.
        """
        listed = key_list(keys)
        self.passages.check(listed)
        if not listed:
            return self
        passages = self.passages.with_removed(listed)
        return replace(
            self, passages=passages, segments=self.segments.with_removed(listed, passages)
        )

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """The ``k`` nearest passages, best first.

        Raises:
            InvalidInputError: If the query, ``k``, the mask, or the query's embedding is invalid.
        """
        if not self._asked(query, k, mask):
            return []
        vector = self._one(self.settings.embedder.query(query))
        return self.search_by_vector(vector, k, mask=mask)

    async def asearch(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """`search`, by the encoder's coroutine where it has one.

        Raises:
            InvalidInputError: As in `search`.
        """
        if not self._asked(query, k, mask):
            return []
        vector = self._one(await self.settings.embedder.aquery(query))
        return await in_thread(self.search_by_vector, vector, k, mask=mask)

    def search_by_vector(
        self, vector: ArrayLike, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """`search` for a query that is embedded already.

        Args:
            vector: Shape (d,).
            k: How many at most.
            mask: As in ``search``.

        Raises:
            InvalidInputError: If the vector is not finite or has a wrong dimension, or ``k`` or
                the mask is invalid.
        """
        k = check_count("k", k)
        query = self._one([vector])
        mask = check_mask(mask, self.size)
        if k == 0 or not self._fits(query):
            return []
        if mask is not None and any(self.segments.removed):
            mask = mask & self.alive
        nearest = [np.empty(0, dtype=np.int64)]
        for at, part in enumerate(self.segments.parts):
            kept = self.segments.kept(at, self.passages, mask)
            if kept is None or kept.any():
                nearest.append(part.nearest(query, k, kept))
        keys = np.concatenate(nearest)
        return self._candidates(keys, self.segments.scores(query, keys), k)

    @traced_survey
    def survey(self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None) -> Survey:
        """As ``search``, with mean and deviation of all scores.

        Those of a graph or codes are estimated from 1,024 passages at equal distances.

        Raises:
            InvalidInputError: As in `search`.
        """
        asked = self._asked(query, k, mask)
        vector = self._one(self.settings.embedder.query(query)) if asked else None
        if vector is None or not self._fits(vector):
            return Survey([], 0.0, 0.0, lambda keys: np.zeros(len(keys)))
        spreads = [
            part.spread(vector, self.segments.kept(at, self.passages))
            for at, part in enumerate(self.segments.parts)
        ]
        total = sum(count for count, _, _ in spreads)
        mean = sum(count * mean for count, mean, _ in spreads) / total
        square = sum(count * square for count, _, square in spreads) / total
        return Survey(
            self.search_by_vector(vector, k, mask=mask),
            mean,
            math.sqrt(max(square - mean * mean, 0.0)),
            lambda keys: self.segments.scores(vector, keys),
        )

    def vectors(self, keys: Iterable[int]) -> Vectors:
        """The vectors of passages as they are stored: of length 1 (or 0) under cosine.

        A passage with several has their mean, scaled likewise.

        Returns:
            Shape (number of keys, d).

        Raises:
            InvalidInputError: If a key is not in the index.
        """
        listed = list(check_iterable("keys", keys))
        key_list(listed)
        self.passages.check(listed)
        found = np.empty((len(listed), self.dimension or 0), dtype=np.float32)
        for place, key in enumerate(listed):
            stored = self.segments.stored(key)
            one = stored[0] if len(stored) == 1 else stored.mean(axis=0, dtype=np.float64)
            if len(stored) > 1 and self.settings.metric == "cosine":
                one = one / (np.linalg.norm(one) or 1.0)
            found[place] = one
        return found

    def _asked(self, query: Any, k: Any, mask: Any) -> bool:
        """Whether there is anything to find; checks what was given."""
        check_query(query)
        check_mask(mask, self.size)
        return bool(check_count("k", k) and len(self))

    def _fits(self, query: Vectors) -> bool:
        """Whether the vector finds anything; checks its dimension."""
        if not len(self) or self.dimension is None:
            return False
        check_dimension(query[np.newaxis], self.dimension)
        return self.settings.metric != "cosine" or bool(query.any())

    def _one(self, embedded: Any) -> Vectors:
        vector: Vectors = checked_vectors(embedded, 1, self.settings.metric)[0]
        return vector

    def _completed(
        self, texts: list[str], vectors: Any, owners: Any
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """The vectors of all texts, those embedded that are not given, and whose each is."""
        if vectors is None:
            return self.embedded(texts)
        metric = self.settings.metric
        if owners is not None or not any(vector is None for vector in vectors):
            found = checked_vectors(vectors, len(texts) if owners is None else None, metric)
            return found, checked_owners(owners, found, len(texts))
        if len(vectors) != len(texts):
            raise InvalidInputError(
                f"vectors must be one for each of the {len(texts)} texts, but are {len(vectors)}"
            )
        missing = [place for place, vector in enumerate(vectors) if vector is None]
        found, owned = self.embedded([texts[place] for place in missing])
        owned = np.asarray(missing, dtype=np.int64)[owned]
        known = [place for place, vector in enumerate(vectors) if vector is not None]
        if known:
            given = checked_vectors([vectors[place] for place in known], len(known), metric)
            check_dimension(given, found.shape[1])
            found, owned = np.concatenate([given, found]), np.concatenate([known, owned])
        order = np.argsort(owned, kind="stable")
        return found[order], owned[order]

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        listed, size = check_texts(texts), self.settings.batch_size
        starts = range(0, len(listed), size)
        for start in progress(starts, desc="Embedding", unit=" batches", delay=1):
            yield listed[start : start + size]
