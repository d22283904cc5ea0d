"""An immutable part of a dense index; the only place where a metric's sign is decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError

Metric = Literal["cosine", "inner_product", "l2"]
IndexChoice = Literal["auto", "exact", "hnsw", "ivfpq"]
IndexKind = Literal["exact", "hnsw", "ivfpq"]
Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]

METRICS: Final = ("cosine", "inner_product", "l2")
INDEXES: Final = ("auto", "exact", "hnsw", "ivfpq")

# Sums in float32 differ with a vector's place in memory: scores this close, relative to the
# larger vectors present, may be one score.
_CLOSE: Final = 1e-5
# Rows whose differences from the query are held at once.
_CHUNK: Final = 1024
# Below this share of allowed rows only those are multiplied with the query.
_FEW: Final = 0.25
# How many passages tell the mean and the spread of scores where not all are computed.
_SAMPLE: Final = 1024


class ExactVectors:
    """Vectors as they are, compared one by one.

    Attributes:
        owners: int64, shape (rows,), ascending: the key of the passage that each row belongs
            to. A passage may have several rows; its score is the highest of theirs.
        vectors: float32, shape (rows, d); may be mapped from the disk.
        metric: What is compared.
        largest_norm: Of all vectors.
    """

    kind: ClassVar[IndexKind] = "exact"

    def __init__(
        self, owners: Keys, vectors: Vectors, metric: Metric, largest_norm: float | None = None
    ) -> None:
        self.owners = owners
        self.vectors = vectors
        self.metric: Metric = metric
        if largest_norm is None:
            largest_norm = float(np.sqrt(_squares(vectors).max(initial=0)))
        self.largest_norm = largest_norm
        self.several = bool((np.diff(owners) == 0).any())

    def __len__(self) -> int:
        return len(self.owners)

    def at_rows(self, by_key: NDArray[np.bool_], first: int = 0) -> NDArray[np.bool_]:
        """What is said by key, from the key ``first`` on, by row."""
        start, last = int(self.owners[0]), int(self.owners[-1])
        if not self.several and last - start + 1 == len(self):
            return by_key[start - first : last - first + 1]
        return by_key[self.owners - first]

    def stored(self, rows: NDArray[Any]) -> Vectors:
        """The vectors of some rows."""
        return np.asarray(self.vectors[rows])

    def only(self, kept: NDArray[np.bool_]) -> ExactVectors:
        """The rows where ``kept`` is True."""
        return ExactVectors(self.owners[kept], self.vectors[kept], self.metric, self.largest_norm)

    def of(self, keys: Keys) -> tuple[Vectors, NDArray[np.int64]]:
        """All vectors of some passages, and where each passage's begin."""
        starts = np.searchsorted(self.owners, keys)
        if not self.several:
            return self.stored(starts), np.arange(len(keys))
        counts = np.searchsorted(self.owners, keys, side="right") - starts
        begins = np.cumsum(counts) - counts
        rows = np.repeat(starts - begins, counts) + np.arange(counts.sum())
        return self.stored(rows), begins

    def scores(self, query: Vectors, keys: Keys) -> NDArray[np.float64]:
        """The scores of passages in float64, the same wherever a vector is stored.

        Args:
            query: Shape (d,).
            keys: Shape (n,); all of them here.
        """
        if not len(keys):
            return np.empty(0)
        vectors, begins = self.of(keys)
        values = vectors.astype(np.float64)
        if self.metric == "l2":
            measured = -np.square(values - query).sum(axis=1)
        else:
            measured = (values * query).sum(axis=1)
        if self.metric == "cosine":
            measured = measured.clip(-1, 1)
        return np.asarray(np.maximum.reduceat(measured, begins))

    def measured(self, query: Vectors, kept: NDArray[np.bool_] | None) -> tuple[Keys, Vectors]:
        """The passages with a kept row, ascending, and their scores as float32 gives them."""
        owners = self.owners
        if kept is None:
            found = self._products(self.vectors, query)
        elif kept.mean() < _FEW:
            rows = np.flatnonzero(kept)
            owners, found = owners[rows], self._products(self.vectors[rows], query)
        else:
            owners, found = owners[kept], self._products(self.vectors, query)[kept]
        if self.several and len(owners):
            begins = np.flatnonzero(np.diff(owners, prepend=-1))
            owners, found = owners[begins], np.maximum.reduceat(found, begins)
        return owners, found

    def nearest(self, query: Vectors, k: int, kept: NDArray[np.bool_] | None) -> Keys:
        """Keys, ascending, that the best ``k`` of those with a kept row are among.

        Args:
            query: Shape (d,).
            k: At least 1.
            kept: By row; None for all.
        """
        return self.cut(query, k, *self.measured(query, kept))

    def cut(self, query: Vectors, k: int, keys: Keys, found: Vectors) -> Keys:
        """The keys of the best ``k`` scores, and of those that float32 cannot tell from them."""
        if len(keys) <= k:
            return keys
        last = float(np.partition(found, len(found) - k)[len(found) - k])
        if self.metric == "l2":
            edge = last - _CLOSE * abs(last)
        else:
            edge = last - _CLOSE * float(np.linalg.norm(query)) * self.largest_norm
        # What overflowed float32 is left to the scores in float64.
        return keys if not np.isfinite(edge) else keys[~(found < edge)]

    def spread(self, query: Vectors, kept: NDArray[np.bool_] | None) -> tuple[int, float, float]:
        """How many passages have a kept row; mean and mean square of (a sample of) their scores."""
        found = self.measured(query, kept)[1].astype(np.float64)
        if not len(found):
            return 0, 0.0, 0.0
        return len(found), float(found.mean()), float(np.square(found).mean())

    def sampled(self, query: Vectors, kept: NDArray[np.bool_] | None) -> tuple[int, float, float]:
        """`spread` by passages at equal distances, the same for every query."""
        keys = np.unique(self.owners if kept is None else self.owners[kept])
        if not len(keys):
            return 0, 0.0, 0.0
        some = keys[np.linspace(0, len(keys) - 1, min(len(keys), _SAMPLE)).astype(np.int64)]
        found = self.scores(query, some)
        return len(keys), float(found.mean()), float(np.square(found).mean())

    def _products(self, vectors: Vectors, query: Vectors) -> Vectors:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.metric != "l2":
                return np.asarray(vectors @ query)
            found = np.empty(len(vectors), dtype=np.float32)
            for start in range(0, len(vectors), _CHUNK):
                away = vectors[start : start + _CHUNK] - query
                np.einsum("ij,ij->i", away, away, out=found[start : start + _CHUNK])
            return -found


def joined(parts: list[ExactVectors]) -> ExactVectors:
    """Several as one; the keys of each must be above those of the one before."""
    if len(parts) == 1:
        return parts[0]
    return ExactVectors(
        np.concatenate([part.owners for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        parts[0].metric,
        max(part.largest_norm for part in parts),
    )


def check_dimension(vectors: Vectors, dimension: int) -> None:
    """Checks that vectors fit an index.

    Raises:
        InvalidInputError: If they are longer or shorter.
    """
    if vectors.shape[1] != dimension:
        raise InvalidInputError(
            f"every embedding must have the same dimension, {dimension} here, "
            f"but one has {vectors.shape[1]}: was another model used to build the index?"
        )


def checked_vectors(embedded: Any, count: int | None, metric: Metric) -> Vectors:
    """Shape (count, d), or of any length for None: finite, and of length 1 (or 0) under cosine.

    Raises:
        InvalidInputError: If they are not such vectors.
    """
    try:
        vectors = np.asarray(embedded, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"embeddings must be numbers, as many for one text as for another: {error}"
        ) from error
    if vectors.ndim != 2 or vectors.size == 0 or count not in (None, len(vectors)):
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
    if metric == "cosine":
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(norms == 0, 1, norms)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def checked_owners(owners: Any, vectors: Vectors, count: int) -> NDArray[np.int64]:
    """Which of ``count`` texts each vector belongs to; None: one for each.

    Raises:
        InvalidInputError: If they do not rise from 0 to ``count - 1`` without a gap.
    """
    if owners is None:
        return np.arange(count, dtype=np.int64)
    found = np.asarray(owners)
    rises = (
        found.shape == (len(vectors),)
        and np.issubdtype(found.dtype, np.integer)
        and np.array_equal(np.unique(found), np.arange(count))
        and bool((np.diff(found) >= 0).all())
    )
    if not rises:
        raise InvalidInputError(
            f"owners must name for each of the {len(vectors)} vectors its text, rising from 0 to "
            f"{count - 1} without a gap, but got {str(owners)[:100]}"
        )
    return found.astype(np.int64)


def _squares(vectors: Vectors) -> NDArray[np.float64]:
    starts = range(0, len(vectors), 1 << 14)
    parts = [
        np.square(vectors[at : at + (1 << 14)].astype(np.float64)).sum(axis=1) for at in starts
    ]
    return np.concatenate([np.empty(0), *parts])


def _cosine_relevance(score: float) -> float:
    return max(0.0, score)


def _inner_product_relevance(score: float) -> float:
    """The logistic function: inner products are unbounded."""
    return 0.5 + 0.5 * math.tanh(score / 2)


def _l2_relevance(score: float) -> float:
    """1 / (1 + squared distance)."""
    return 1.0 / (1.0 - score)


RELEVANCE: Final[dict[Metric, Callable[[float], float]]] = {
    "cosine": _cosine_relevance,
    "inner_product": _inner_product_relevance,
    "l2": _l2_relevance,
}
"""From a metric's score to a relevance in [0, 1]."""
