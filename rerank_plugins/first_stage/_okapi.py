"""rank-bm25 over a view's postings: slow, and independent of our own scoring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.first_stage._postings import Postings


@cache
def _lucene_okapi() -> type[Any]:
    """rank-bm25's BM25Okapi with Lucene's idf: ln(1 + (N - n + .5) / (n + .5)).

    N is the number of passages, n that of the passages with the term. rank-bm25's own idf is
    negative for a term in more than half of the passages, and its floor may be too, so that
    more matches would score lower. Source: Lucene's BM25Similarity.
    """
    from rank_bm25 import BM25Okapi

    class LuceneOkapi(BM25Okapi):  # type: ignore[misc]  # the library has no types
        def _calc_idf(self, nd: dict[int, int]) -> None:
            for term, found_in in nd.items():
                rest = self.corpus_size - found_in
                self.idf[term] = math.log1p((rest + 0.5) / (found_in + 0.5))

    return LuceneOkapi


class Okapi:
    """rank-bm25's index of postings, at least one of which there is.

    Its ``get_scores`` visits every passage once per query term; the postings name those that
    match, and ``get_batch_scores``, the same formula, scores those.
    """

    def __init__(self, postings: Postings, *, k1: float, b: float) -> None:
        self._postings = postings
        self._okapi = _lucene_okapi()(postings.passages(), k1=k1, b=b)

    def match(self, terms: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ascending keys, shape (m,), of the passages with any of the terms; their scores."""
        spans = self._postings.spans(terms)
        known = [term for term, span in zip(terms, spans, strict=True) if span is not None]
        found = [self._postings.rows[span] for span in spans if span is not None]
        rows = np.unique(np.concatenate([np.empty(0, dtype=np.int32), *found]))
        scores = self._okapi.get_batch_scores(known, rows.tolist()) if known else []
        return self._postings.keys[rows], np.asarray(scores, dtype=np.float64)
