"""The two engines under BM25, which give the same scores, and the terms that they count."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins.errors import IndexDamagedError
from rerank_plugins.first_stage import storage

Matches = tuple[NDArray[np.int64], NDArray[np.float64]]


class Terms:
    """Passages as numbers of terms: four bytes for each word of the corpus.

    Attributes:
        vocabulary: From a term to its number, in the order of numbers; every one occurs.
        ids: int32, shape (words,): the passages' terms, one passage after another.
        bounds: int64, shape (passages + 1,): where each passage's terms begin and end.
    """

    def __init__(
        self, vocabulary: dict[str, int], ids: NDArray[np.int32], bounds: NDArray[np.int64]
    ) -> None:
        self.vocabulary = vocabulary
        self.ids = ids
        self.bounds = bounds

    @classmethod
    def none(cls) -> Self:
        """No passages."""
        return cls({}, np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[list[int]]:
        """Each passage's numbers of terms."""
        for start, end in zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True):
            yield self.ids[start:end].tolist()

    def followed_by(self, passages: Iterable[Sequence[str]]) -> Terms:
        """These passages and then more."""
        vocabulary = dict(self.vocabulary)
        ids, bounds = array("i", self.ids.tobytes()), array("q", self.bounds.tobytes())
        for passage in passages:
            ids.extend([vocabulary.setdefault(term, len(vocabulary)) for term in passage])
            bounds.append(len(ids))
        return Terms(
            vocabulary, np.frombuffer(ids, dtype=np.int32), np.frombuffer(bounds, dtype=np.int64)
        )

    def only(self, rows: NDArray[np.bool_]) -> Terms:
        """The passages where ``rows`` is True, and the terms that they have."""
        lengths = np.diff(self.bounds)
        kept = self.ids[np.repeat(rows, lengths)]
        used, ids = np.unique(kept, return_inverse=True)
        words = list(self.vocabulary)
        return Terms(
            {words[old]: new for new, old in enumerate(used.tolist())},
            ids.astype(np.int32),
            np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int64),
        )

    def store(self, out: storage.Writer) -> None:
        """Writes them for `restore`."""
        out.lines("vocabulary.jsonl", self.vocabulary)
        out.array("terms.npy", self.ids)
        out.array("bounds.npy", self.bounds)

    @classmethod
    def restore(cls, part: storage.Reader, size: int) -> Self:
        """The terms of ``size`` passages, mapped from the disk.

        Raises:
            IndexDamagedError: They do not fit together.
        """
        words = part.texts("vocabulary.jsonl")
        bounds = part.array("bounds.npy", np.int64, size + 1)
        ids = part.array("terms.npy", np.int32, int(bounds[-1]))
        _check_rows(bounds, ids, len(words))
        vocabulary = {word: number for number, word in enumerate(words)}
        if len(vocabulary) != len(words):
            raise IndexDamagedError("a vocabulary must hold each term once, but repeats one")
        return cls(vocabulary, ids, bounds)


class Engine(Protocol):
    """Scores the passages that share a term with a query."""

    def __init__(self, passages: Terms, *, k1: float, b: float) -> None:
        """Indexes passages; at least one of them has a term."""

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending rows, shape (m,), of the passages with any of the terms; their scores."""
        ...

    def store(self, out: storage.Writer) -> None:
        """Writes what `restore` cannot quickly make again."""

    @classmethod
    def restore(cls, part: storage.Reader, passages: Terms, *, k1: float, b: float) -> Self:
        """The engine over these passages."""
        ...


@cache
def _lucene_okapi() -> type[Any]:
    """rank-bm25's BM25Okapi with Lucene's idf: ln(1 + (N - n + .5) / (n + .5)).

    N is the number of passages, n that of the passages with the term. rank-bm25's own idf is
    negative for a term in more than half of the passages, and its floor may be too, so that
    more matches would score lower. Source: Lucene's BM25Similarity.
    """
    from rank_bm25 import BM25Okapi

    class LuceneOkapi(BM25Okapi):  # type: ignore[misc]  # the library has no types
        def _calc_idf(self, nd: dict[str, int]) -> None:
            for term, found_in in nd.items():
                rest = self.corpus_size - found_in
                self.idf[term] = math.log1p((rest + 0.5) / (found_in + 0.5))

    return LuceneOkapi


class RankBM25Engine:
    """rank-bm25's BM25Okapi with a positive idf.

    Its ``get_scores`` visits every passage once a query term; an inverted list beside it
    names the passages that match, and ``get_batch_scores``, the same formula, scores those.
    """

    def __init__(self, passages: Terms, *, k1: float, b: float) -> None:
        words = list(passages.vocabulary)
        corpus = [[words[number] for number in numbers] for numbers in passages]
        self._okapi = _lucene_okapi()(corpus, k1=k1, b=b)
        postings: dict[str, list[int]] = {}
        for row, frequencies in enumerate(self._okapi.doc_freqs):
            for term in frequencies:
                postings.setdefault(term, []).append(row)
        self._postings = {term: np.asarray(rows) for term, rows in postings.items()}

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending rows, shape (m,), of the passages with any of the terms; their scores."""
        known = [term for term in terms if term in self._postings]
        rows = _union(self._okapi.corpus_size, (self._postings[term] for term in known))
        return rows, np.asarray(self._okapi.get_batch_scores(known, rows.tolist()))

    def store(self, out: storage.Writer) -> None:
        """Writes nothing: counting the terms again is quick."""

    @classmethod
    def restore(cls, part: storage.Reader, passages: Terms, *, k1: float, b: float) -> Self:  # noqa: ARG003
        """The engine over these passages."""
        return cls(passages, k1=k1, b=b)


class Bm25sEngine:
    """bm25s: the score of every term in every passage, computed when indexing.

    ``method="atire"`` is Okapi's term frequency with its factor k1 + 1, as in rank-bm25.
    """

    def __init__(self, passages: Terms, *, k1: float, b: float) -> None:
        import bm25s

        index = bm25s.BM25(
            k1=k1, b=b, method="atire", idf_method="lucene", dtype="float64", int_dtype="int32"
        )
        scores: dict[str, Any] = index.build_index_from_ids(
            range(len(passages.vocabulary)), passages, show_progress=sys.stderr.isatty()
        )
        self._set(
            passages,
            scores["data"],
            scores["indices"].astype(np.int32, copy=False),
            scores["indptr"].astype(np.int64, copy=False),
        )

    def _set(
        self,
        passages: Terms,
        scores: NDArray[np.float64],
        rows: NDArray[np.int32],
        bounds: NDArray[np.int64],
    ) -> None:
        self._size = len(passages)
        self._vocabulary = passages.vocabulary
        # By term: scores and rows of its passages between two bounds.
        self._scores = scores
        self._rows = rows
        self._bounds = bounds

    def match(self, terms: Sequence[str]) -> Matches:
        """Ascending rows, shape (m,), of the passages with any of the terms; their scores."""
        numbers = [self._vocabulary[term] for term in terms if term in self._vocabulary]
        spans = [slice(self._bounds[i], self._bounds[i + 1]) for i in numbers]
        if not spans:
            return np.empty(0, dtype=np.int64), np.empty(0)
        rows = np.concatenate([self._rows[span] for span in spans])
        parts = np.concatenate([self._scores[span] for span in spans])
        found = _union(self._size, [rows])
        # One pass in C over the same sums as bm25s' own get_scores, several times as fast.
        sums = np.bincount(rows, weights=parts, minlength=self._size)
        return found, np.asarray(sums[found], dtype=np.float64)

    def store(self, out: storage.Writer) -> None:
        """Writes bm25s' three arrays."""
        out.array("scores.npy", self._scores)
        out.array("rows.npy", self._rows)
        out.array("columns.npy", self._bounds)

    @classmethod
    def restore(cls, part: storage.Reader, passages: Terms, *, k1: float, b: float) -> Self:  # noqa: ARG003
        """The engine over these passages, its arrays mapped from the disk.

        Raises:
            IndexDamagedError: The arrays do not fit together.
        """
        bounds = part.array("columns.npy", np.int64, len(passages.vocabulary) + 1)
        rows = part.array("rows.npy", np.int32, int(bounds[-1]))
        scores = part.array("scores.npy", np.float64, int(bounds[-1]))
        _check_rows(bounds, rows, len(passages))
        if not np.isfinite(scores).all():
            raise IndexDamagedError("every stored score must be finite, but one is not")
        engine = cls.__new__(cls)
        engine._set(passages, scores, rows, bounds)  # noqa: SLF001  (its own)
        return engine


ENGINES: Final[dict[str, type[Engine]]] = {"rank-bm25": RankBM25Engine, "bm25s": Bm25sEngine}
"""What ``BM25(engine=...)`` takes."""


def _check_rows(bounds: NDArray[np.int64], numbers: NDArray[np.int32], size: int) -> None:
    """Checks that bounds rise from 0 and that every number is below ``size``."""
    fits = bounds[0] == 0 and (np.diff(bounds) >= 0).all()
    if not fits or (len(numbers) and not 0 <= numbers.min() <= numbers.max() < size):
        raise IndexDamagedError("the arrays of the index do not fit together")


def _union(size: int, rows: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    found = np.zeros(size, dtype=bool)
    for some in rows:
        found[some] = True
    return np.flatnonzero(found).astype(np.int64, copy=False)
