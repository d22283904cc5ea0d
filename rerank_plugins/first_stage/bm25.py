"""BM25 (Okapi) over analysed text, with two engines that give the same scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._checks import check_mask, check_texts
from rerank_plugins.first_stage.analysis import Analyzer, analyzer_for
from rerank_plugins.ordering import check_count, descending

# rank-bm25's floor for the idf of a term that stands in more than half of the passages.
_EPSILON: Final = 0.25

Matches = tuple[NDArray[np.int64], NDArray[np.float64]]


class Engine(Protocol):
    """Scores the passages that share a term with a query."""

    def __init__(self, passages: Sequence[Sequence[str]], *, k1: float, b: float) -> None:
        """Indexes passages given as terms; at least one of them has a term."""

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending keys, shape (m,), of the passages with any of the terms; their scores."""
        ...


class RankBM25Engine:
    """rank-bm25's BM25Okapi, which defines the score.

    Its ``get_scores`` visits every passage once a query term; an inverted list beside it
    names the passages that match, and ``get_batch_scores``, the same formula, scores those.
    """

    def __init__(self, passages: Sequence[Sequence[str]], *, k1: float, b: float) -> None:
        from rank_bm25 import BM25Okapi

        self._okapi = BM25Okapi(passages, k1=k1, b=b, epsilon=_EPSILON)
        postings: dict[str, list[int]] = {}
        for key, frequencies in enumerate(self._okapi.doc_freqs):
            for term in frequencies:
                postings.setdefault(term, []).append(key)
        self._postings = {term: np.asarray(keys) for term, keys in postings.items()}

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending keys, shape (m,), of the passages with any of the terms; their scores."""
        known = [term for term in terms if term in self._postings]
        keys = _union(self._okapi.corpus_size, (self._postings[term] for term in known))
        return keys, np.asarray(self._okapi.get_batch_scores(known, keys.tolist()))


class Bm25sEngine:
    """bm25s: the score of every term in every passage, computed when indexing.

    It has no idf of rank-bm25's kind (negative values raised to a quarter of the mean idf), so
    it is built with Lucene's, which is never zero, and each term's column is scaled over.
    """

    def __init__(self, passages: Sequence[Sequence[str]], *, k1: float, b: float) -> None:
        import bm25s

        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(t, len(vocabulary)) for t in terms] for terms in passages]
        self._index = bm25s.BM25(
            k1=k1, b=b, method="atire", idf_method="lucene", dtype="float64", int_dtype="int32"
        )
        self._index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        scores: dict[str, Any] = self._index.scores
        n, found_in = len(passages), np.diff(scores["indptr"])
        okapi = np.log(n - found_in + 0.5) - np.log(found_in + 0.5)
        okapi[okapi < 0] = _EPSILON * okapi.mean()
        scores["data"] *= np.repeat(
            okapi / np.log1p((n - found_in + 0.5) / (found_in + 0.5)), found_in
        )

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending keys, shape (m,), of the passages with any of the terms; their scores."""
        ids: list[int] = self._index.get_tokens_ids(terms)
        indptr, indices = self._index.scores["indptr"], self._index.scores["indices"]
        scores = self._index.get_scores_from_ids(ids)
        keys = _union(len(scores), (indices[indptr[i] : indptr[i + 1]] for i in ids))
        return keys, scores[keys]


ENGINES: Final[dict[str, type[Engine]]] = {"rank-bm25": RankBM25Engine, "bm25s": Bm25sEngine}
"""What ``BM25(engine=...)`` takes."""


def _union(size: int, keys: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    found = np.zeros(size, dtype=bool)
    for some in keys:
        found[some] = True
    return np.flatnonzero(found).astype(np.int64, copy=False)


class BM25:
    """Keyword search: a first stage over BM25 scores.

    A passage comes back when it shares a term with the query, whatever its score: in a small
    corpus Okapi's idf of a term that stands in half of the passages or more is zero or even
    negative, and a passage is not lost for that. A passage that shares no term never comes
    back, so fewer than ``k`` may.

    The index does not change once it is built; searches are safe in any number of threads.
    """

    def __init__(
        self,
        texts: Iterable[str],
        *,
        language: str = "auto",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        engine: str = "rank-bm25",
        k1: float = 1.5,
        b: float = 0.75,
    ) -> None:
        """Indexes the texts; a text's key is its position.

        Args:
            texts: Passages; an iterator is read once. Empty ones are kept and never found.
            language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
            analyzer: Text to terms, in place of the language's; a ``query`` method beside the
                call, if it has one, reads the queries.
            engine: ``rank-bm25``, or ``bm25s``: the same scores from more memory, in a
                fraction of the time once there are tens of thousands of passages.
            k1: How fast repeats of a term stop counting; above 0. Default: rank-bm25's.
            b: How much long passages are held back, in [0, 1]. Default: rank-bm25's.

        Raises:
            InvalidInputError: A value breaks one of these rules.
        """
        if engine not in ENGINES:
            raise InvalidInputError(
                f"engine must be one of {', '.join(ENGINES)}, but got {engine!r}"
            )
        if not (math.isfinite(k1) and k1 > 0):
            raise InvalidInputError(f"k1 must be a finite number above 0, but got {k1!r}")
        if not 0 <= b <= 1:
            raise InvalidInputError(f"b must be in [0, 1], but got {b!r}")
        self.texts = check_texts(texts)
        self.analyzer = analyzer_for(language, texts=self.texts) if analyzer is None else analyzer
        self.engine = engine
        self.k1 = k1
        self.b = b
        self._query_terms = getattr(self.analyzer, "query", self.analyzer)
        passages = [
            self.analyzer(text)
            for text in tqdm(self.texts, desc="Analysing", unit=" passages", disable=None, delay=1)
        ]
        # Okapi divides by the mean length and by the number of terms.
        self._engine = ENGINES[engine](passages, k1=k1, b=b) if any(passages) else None

    def __len__(self) -> int:
        return len(self.texts)

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates that share a term with the query, best first.

        Args:
            query: Non-blank text.
            k: How many at most.
            mask: Shape (number of texts,); only passages where it is True come back. Scores
                do not depend on it: idf is always that of the whole corpus.

        Returns:
            Candidates with their Okapi score; equal scores keep the order of keys.

        Raises:
            InvalidInputError: The query, ``k`` or the mask breaks the rule above.
        """
        query = check_query(query)
        k = check_count("k", k)
        mask = check_mask(mask, len(self.texts))
        if self._engine is None:
            return []
        keys, scores = self._engine.match(self._query_terms(query))
        if mask is not None:
            keys, scores = keys[mask[keys]], scores[mask[keys]]
        return [
            Candidate(
                key=int(keys[at]), text=self.texts[keys[at]], score=float(scores[at]), rank=rank
            )
            for rank, at in enumerate(descending(scores, k), start=1)
        ]
