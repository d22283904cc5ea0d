"""Okapi BM25 over the package's analysis, all scores of a question at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from rerank_plugins.first_stage.analysis import analyzer_for

K1, B, FLOOR = 1.5, 0.75, 0.25  # rank-bm25's own


class Index:
    """Scores as rank-bm25's `BM25Okapi` gives them, for mining by the ten thousand.

    Args:
        texts: the passages.
        language: of the analysis.
    """

    def __init__(self, texts: Sequence[str], language: str) -> None:
        self.analyze = analyzer_for(language)
        self.terms: dict[str, int] = {}
        rows, columns, counts = [], [], []
        lengths = np.zeros(len(texts))
        for row, text in enumerate(texts):
            terms = self.analyze(text)
            lengths[row] = len(terms)
            for term, count in Counter(terms).items():
                rows.append(row)
                columns.append(self.terms.setdefault(term, len(self.terms)))
                counts.append(count)
        tf = np.array(counts, dtype=np.float64)
        column = np.array(columns)
        df = np.bincount(column)
        idf = np.log(len(texts) - df + 0.5) - np.log(df + 0.5)
        idf = np.where(idf < 0, FLOOR * idf.mean(), idf)
        norm = K1 * (1 - B + B * lengths / lengths.mean())[np.array(rows)]
        values = idf[column] * tf * (K1 + 1) / (tf + norm)
        self.matrix = csc_matrix((values, (rows, column)), shape=(len(texts), len(df)))

    def scores(self, question: str) -> NDArray[np.float64]:
        """BM25 of every passage, (passages,)."""
        terms = [self.terms[t] for t in self.analyze.query(question) if t in self.terms]
        return np.asarray(self.matrix[:, terms].sum(axis=1)).ravel()

    def top(self, scores: NDArray[np.float64], count: int) -> list[int]:
        """The best `count` passages, best first; those that match nothing are left out."""
        order = np.argsort(-scores, kind="stable")[:count]
        return [int(i) for i in order if scores[i] > 0]
