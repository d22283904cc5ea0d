"""The vectors of an index by their texts, for a scorer that would encode the passages again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._dense_view import DenseView
from rerank_plugins.first_stage.dense import Dense


class KnownVectors:
    """What a `Dense` index holds, by text; follows the index as it changes.

    ::

        dense = Dense(passages)
        scorer = VectorScorer(load_encoder(), known=KnownVectors(dense))
        Reranker(scorer).rerank(query, BM25(passages).search(query, 50))  # encodes the query alone

    Takes some 100 bytes per passage beside the index. Compressed indexes (``ivfpq``) give
    compressed vectors.

    Args:
        dense: An index over the scorer's own encoder, with ``metric="cosine"``.

    Raises:
        InvalidInputError: The index is of another metric.
    """

    def __init__(self, dense: Dense) -> None:
        if dense.metric != "cosine":
            raise InvalidInputError(
                f"dense must be an index with metric='cosine', but its metric is {dense.metric!r}"
            )
        self._dense = dense
        self._seen: tuple[DenseView, dict[str, int]] | None = None

    def vectors_of(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors, shape (windows, d), of those of the texts that the index has."""
        view, keys = self._current()
        return {
            text: np.asarray(view.segments.stored(keys[text]), dtype=np.float32)
            for text in texts
            if text in keys
        }

    def _current(self) -> tuple[DenseView, dict[str, int]]:
        seen = self._seen  # one reference, so that threads need no lock
        view = self._dense.view
        if seen is None or seen[0] is not view:
            places = zip(view.passages.texts(), view.passages.keys.tolist(), strict=True)
            seen = self._seen = (view, dict(places))
        return seen
