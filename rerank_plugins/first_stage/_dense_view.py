"""Dense search at one moment: passages, and the segments that hold their vectors."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from rerank_plugins._telemetry import traced_search, traced_survey
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_iterable
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.first_stage._checks import check_mask, check_texts, key_list
from rerank_plugins.first_stage._embedders import Embedder
from rerank_plugins.first_stage._faiss_vectors import COMPRESSED_FROM, KINDS, FaissVectors
from rerank_plugins.first_stage._merging import REMOVED, merge_from
from rerank_plugins.first_stage._passages import Passages
from rerank_plugins.first_stage._vectors import (
    INDEXES,
    ExactVectors,
    IndexChoice,
    IndexKind,
    Metric,
    Vectors,
    check_dimension,
    checked_owners,
    checked_vectors,
    joined,
)
from rerank_plugins.first_stage.base import Survey
from rerank_plugins.ordering import descending

# Where ``auto`` leaves one kind for the next: an exact search of so many vectors takes some
# milliseconds still, and a graph of so many holds some gigabytes.
EXACT_UP_TO: Final = 100_000
GRAPH_UP_TO: Final = 1_000_000
# Fewer vectors are searched exactly as fast as through a graph.
GRAPH_FROM: Final = 1024
# New vectors beside a graph or codes are searched exactly until there are so many of them, or
# one for so many that are in it. To take them in, the index is copied.
_BESIDE: Final = 4096
_SHARE_BESIDE: Final = 4
# A graph is built anew when more than one in so many of its vectors is removed.
_REMOVED_FROM_GRAPH: Final = 2


@dataclass(frozen=True, eq=False)
class DenseSettings:
    """What does not change with the passages."""

    embedder: Embedder
    metric: Metric
    index: IndexChoice
    batch_size: int


@dataclass(frozen=True, eq=False)
class DenseView:
    """An immutable dense index, as `rerank_plugins.first_stage.base.StageView` asks.

    Attributes:
        settings: Encoder, metric and kind.
        kind: What most of the vectors are in; new ones are held beside it and searched exactly.
        passages: The texts by key.
        segments: In the order of keys; only the first may be a graph or codes.
        removed: For each segment, how many of its rows belong to no passage any more.
        dimension: Of the vectors; None until there are any.
    """

    settings: DenseSettings
    kind: IndexKind = "exact"
    passages: Passages = field(default_factory=Passages)
    segments: tuple[ExactVectors, ...] = ()
    removed: tuple[int, ...] = ()
    dimension: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def __len__(self) -> int:
        return self.passages.count

    @property
    def size(self) -> int:
        """Keys ever given."""
        return self.passages.size

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): the keys that are not removed."""
        return self.passages.alive

    def embedded(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.int64]]:
        """The texts' vectors, shape (m, d), and for each which text it belongs to.

        Raises:
            InvalidInputError: The embeddings are not finite vectors of one dimension, at least
                one for each text.
        """
        gathered = _Gathered(self.settings.metric)
        for batch in self._batches(texts):
            gathered.take(batch, *self.settings.embedder.passages(batch))
        return gathered.whole()

    async def aembedded(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.int64]]:
        """`embedded`, by the encoder's coroutine where it has one; for `with_added`."""
        gathered = _Gathered(self.settings.metric)
        for batch in self._batches(texts):
            gathered.take(batch, *await self.settings.embedder.apassages(batch))
        return gathered.whole()

    def with_added(
        self, texts: Sequence[str], vectors: ArrayLike | None = None, owners: Any = None
    ) -> DenseView:
        """A view with these texts too.

        Args:
            texts: Passages.
            vectors: Their embeddings, shape (m, d), where they are known already.
            owners: Shape (m,): which text each vector belongs to, rising from 0; a text may
                have several, its score being the highest of theirs. None: one each.

        Raises:
            InvalidInputError: A text is not a string, or the embeddings are not finite vectors
                of the index's dimension, at least one for each text.
        """
        listed = check_texts(texts)
        if not listed:
            return self
        if vectors is None:
            checked, owners = self.embedded(listed)
        else:
            wanted = len(listed) if owners is None else None
            checked = checked_vectors(vectors, wanted, self.settings.metric)
            owners = checked_owners(owners, checked, len(listed))
        check_dimension(checked, self.dimension or checked.shape[1])
        new = ExactVectors(owners + self.size, checked, self.settings.metric)
        total = sum(map(len, self.segments)) + len(new)
        grown = replace(
            self,
            kind=max(self.kind, self._kind_for(total), key=INDEXES.index),
            passages=self.passages.with_added(listed),
            segments=(*self.segments, new),
            removed=(*self.removed, 0),
            dimension=checked.shape[1],
        )
        return grown._arranged()  # noqa: SLF001  (its own)

    def with_removed(self, keys: Iterable[int]) -> DenseView:
        """A view without these passages.

        Raises:
            InvalidInputError: A key is not in the index.
        """
        listed = key_list(keys)
        self.passages.check(listed)
        if not listed:
            return self
        removed = list(self.removed)
        starts = [int(segment.owners[0]) for segment in self.segments]
        for key in listed:
            at = bisect_right(starts, key) - 1
            first, last = np.searchsorted(self.segments[at].owners, [key, key + 1]).tolist()
            removed[at] += last - first
        view = replace(self, passages=self.passages.with_removed(listed), removed=tuple(removed))
        for at in reversed(range(len(removed))):
            view = view._cleared(at)  # noqa: SLF001  (its own)
        return view

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """The ``k`` nearest passages, best first.

        Raises:
            InvalidInputError: The query, ``k``, the mask, or the query's embedding is invalid.
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
            InvalidInputError: The vector is not finite or has a wrong dimension, or ``k`` or
                the mask is invalid.
        """
        k = check_count("k", k)
        query = self._one([vector])
        mask = check_mask(mask, self.size)
        if k == 0 or not self._fits(query):
            return []
        if mask is not None and any(self.removed):
            mask = mask & self.alive
        found = []
        for at, segment in enumerate(self.segments):
            kept = self._kept(at, mask)
            if kept is None or kept.any():
                keys = segment.nearest(query, k, kept)
                found.append((keys, segment.scores(query, keys)))
        return self._candidates(found, k)

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
            segment.spread(vector, self._kept(at)) for at, segment in enumerate(self.segments)
        ]
        total = sum(count for count, _, _ in spreads)
        mean = sum(count * mean for count, mean, _ in spreads) / total
        square = sum(count * square for count, _, square in spreads) / total
        return Survey(
            self.search_by_vector(vector, k, mask=mask),
            mean,
            math.sqrt(max(square - mean * mean, 0.0)),
            lambda keys: self._scores(vector, keys),
        )

    def vectors(self, keys: Iterable[int]) -> Vectors:
        """The vectors of passages as they are stored: of length 1 (or 0) under cosine.

        A passage with several has their mean, scaled likewise.

        Returns:
            Shape (number of keys, d).

        Raises:
            InvalidInputError: A key is not in the index.
        """
        listed = list(check_iterable("keys", keys))
        key_list(listed)
        self.passages.check(listed)
        found = np.empty((len(listed), self.dimension or 0), dtype=np.float32)
        for place, key in enumerate(listed):
            stored = self.stored(key)
            one = stored[0] if len(stored) == 1 else stored.mean(axis=0, dtype=np.float64)
            if len(stored) > 1 and self.settings.metric == "cosine":
                one = one / (np.linalg.norm(one) or 1.0)
            found[place] = one
        return found

    def stored(self, key: int) -> Vectors:
        """All vectors of a passage that is alive, shape (m, d)."""
        starts = [int(segment.owners[0]) for segment in self.segments]
        return self.segments[bisect_right(starts, key) - 1].of(np.asarray([key]))[0]

    def compact(self) -> DenseView:
        """The same passages in at most two segments, as they are stored."""
        base = len(self._base())
        view = self._merged(base)
        if len(view.segments) > base and view.removed[base]:
            rest = view.segments[base].only(view.segments[base].at_rows(view.alive))
            view = view._with_segments(base, rest)  # noqa: SLF001  (its own)
        return view

    def _kind_for(self, rows: int) -> IndexKind:
        asked = self.settings.index
        if asked == "auto":
            if rows <= EXACT_UP_TO:
                return "exact"
            return "hnsw" if rows <= GRAPH_UP_TO else "ivfpq"
        if asked == "ivfpq":
            return "ivfpq" if rows >= COMPRESSED_FROM else "exact"
        return asked

    def _base(self) -> tuple[ExactVectors, ...]:
        """The graph or the codes, if there are any yet."""
        return tuple(one for one in self.segments[:1] if isinstance(one, FaissVectors))

    def _arranged(self) -> DenseView:
        """The same with small segments merged, and the kind's index built or extended."""
        rows = list(map(len, self.segments))
        if self.kind == "exact":
            return self._merged(merge_from(rows))
        base = self._base()
        if not base or base[0].kind != self.kind:
            if self.kind == "hnsw" and sum(rows) < GRAPH_FROM:
                return self._merged(merge_from(rows))
            whole = self._merged(0, exact=True).segments[0]
            return self._with_segments(0, KINDS[self.kind].built(whole))
        beside = sum(rows[1:])
        if beside < _BESIDE and beside * _SHARE_BESIDE < rows[0]:
            return self._merged(1 + merge_from(rows[1:]))
        view = self._merged(1, exact=True)
        (index,) = [one for one in base if isinstance(one, FaissVectors)]
        extended = replace(
            view, segments=(index.extended(view.segments[1]),), removed=self.removed[:1]
        )
        return extended._cleared(0)  # noqa: SLF001  (its own)

    def _merged(self, start: int, *, exact: bool = False) -> DenseView:
        """The segments from ``start`` as one, without removed rows."""
        if len(self.segments) - start < 1 + (not exact):
            return self
        parts = [
            segment if (kept := self._kept(at)) is None else segment.only(kept)
            for at, segment in enumerate(self.segments)
            if at >= start
        ]
        return self._with_segments(start, joined([part for part in parts if len(part)]))

    def _with_segments(self, start: int, *last: ExactVectors) -> DenseView:
        """The same with others, all of their rows alive, in place of those from ``start``."""
        last = tuple(segment for segment in last if len(segment))
        return replace(
            self,
            segments=(*self.segments[:start], *last),
            removed=(*self.removed[:start], *(0 for _ in last)),
        )

    def _cleared(self, at: int) -> DenseView:
        """The same with a segment written anew if too much of it is removed."""
        segment, gone = self.segments[at], self.removed[at]
        if segment.kind == "ivfpq":  # the vectors are not there any more to be coded anew
            return self
        share = REMOVED if segment.kind == "exact" else _REMOVED_FROM_GRAPH
        if gone * share <= len(segment):
            return self
        rest = segment.only(segment.at_rows(self.alive))
        if segment.kind == "hnsw" and len(rest) >= GRAPH_FROM:
            rest = KINDS["hnsw"].built(rest)
        fresh = (rest,) if len(rest) else ()
        return replace(
            self,
            segments=(*self.segments[:at], *fresh, *self.segments[at + 1 :]),
            removed=(*self.removed[:at], *(0 for _ in fresh), *self.removed[at + 1 :]),
        )

    def _kept(self, at: int, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.bool_] | None:
        """Which rows of a segment are alive, or of passages that are allowed; None for all."""
        segment = self.segments[at]
        if allowed is not None:
            return segment.at_rows(allowed)
        if not self.removed[at]:
            return None
        first, last = int(segment.owners[0]), int(segment.owners[-1])
        return segment.at_rows(self.passages.alive_between(first, last), first)

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

    def _candidates(
        self, found: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], k: int
    ) -> list[Candidate]:
        keys = np.concatenate([np.empty(0, dtype=np.int64), *(keys for keys, _ in found)])
        scores = np.concatenate([np.empty(0), *(scores for _, scores in found)])
        return [
            Candidate(key, self.passages.text(key), float(scores[at]), rank)
            for rank, at in enumerate(descending(scores, k), start=1)
            for key in (int(keys[at]),)
        ]

    def _scores(self, query: Vectors, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """The scores of passages that are alive."""
        starts = [int(segment.owners[0]) for segment in self.segments]
        places = np.searchsorted(starts, keys, side="right") - 1
        found = np.empty(len(keys))
        for at in np.unique(places):
            here = places == at
            found[here] = self.segments[at].scores(query, keys[here])
        return found

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        listed, size = check_texts(texts), self.settings.batch_size
        starts = range(0, len(listed), size)
        for start in tqdm(starts, desc="Embedding", unit=" batches", disable=None, delay=1):
            yield listed[start : start + size]


class _Gathered:
    """Vectors of one batch after another, checked."""

    def __init__(self, metric: Metric) -> None:
        self._metric: Metric = metric
        self._vectors: list[Vectors] = []
        self._owners: list[NDArray[np.int64]] = []
        self._texts = 0

    def take(self, batch: list[str], embedded: Any, owners: Any) -> None:
        """Adds what was given for some texts."""
        vectors = checked_vectors(embedded, len(batch) if owners is None else None, self._metric)
        if self._vectors:
            check_dimension(vectors, self._vectors[0].shape[1])
        self._owners.append(checked_owners(owners, vectors, len(batch)) + self._texts)
        self._vectors.append(vectors)
        self._texts += len(batch)

    def whole(self) -> tuple[Vectors, NDArray[np.int64]]:
        """All of them."""
        if not self._vectors:
            return np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=np.int64)
        return np.concatenate(self._vectors), np.concatenate(self._owners)
