"""Long passages: their windows, and which of them the model reads.

``best`` reads the windows that share most with the query. Terms are tokens, which the model's
tokenizer has normalized already; each is weighed by how few of the passage's own windows have
it (BM25's idf, Lucene's form), since windows of one passage are all that is compared. So what a
passage scores depends on no other passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.base import LongPassages


def window_parts(
    query: Sequence[int], passage: Sequence[int], size: int, how: LongPassages, most: int
) -> tuple[list[tuple[int, int]], bool]:
    """The parts of a passage that is longer than a window, best first; and if they are all of it.

    Windows are of nearly equal size: a last window of a few words would be scored without its
    context.

    Args:
        query: Token ids.
        passage: Token ids, more than ``size``.
        size: Tokens a window.
        how: ``first``, ``best``, ``max`` or ``mean``.
        most: Windows that ``best`` takes.
    """
    tokens = len(passage)
    if how == "first":
        return [(0, size)], False
    count = -(-tokens // size)
    edges = [tokens * part // count for part in range(count + 1)]
    parts = list(pairwise(edges))
    if how != "best" or count <= most:
        return parts, True
    weights = shared_weights(query, passage, edges)
    chosen = np.argsort(-weights, kind="stable")[:most]
    return [parts[place] for place in chosen.tolist()], False


def shared_weights(
    query: Sequence[int], passage: Sequence[int], edges: Sequence[int]
) -> NDArray[np.float64]:
    """Shape (windows,): the idf, summed, of the query's tokens that each window has."""
    windows = len(edges) - 1
    terms = np.unique(np.asarray(query, dtype=np.int64))
    ids = np.asarray(passage, dtype=np.int64)
    hits = np.flatnonzero(np.isin(ids, terms))
    where = np.searchsorted(np.asarray(edges[1:]), hits, side="right")
    has = np.zeros((windows, terms.size), dtype=np.bool_)
    has[where, np.searchsorted(terms, ids[hits])] = True
    number = has.sum(axis=0)
    idf = np.log1p((windows - number + 0.5) / (number + 0.5))
    return np.asarray(has @ idf, dtype=np.float64)


def within_allowance(
    lengths: NDArray[np.int64],
    turns: NDArray[np.int64],
    queries: Sequence[str],
    allowance: dict[str, int],
) -> NDArray[np.bool_]:
    """Which rows may be read: each pair's first one, and more while their query has tokens left.

    Args:
        lengths: Shape (rows,), tokens per row.
        turns: Shape (rows,), 0 for a pair's first choice, 1 for its second...
        queries: Of each row.
        allowance: Tokens left, by query; what is read is taken from it.
    """
    kept = np.zeros(len(lengths), dtype=np.bool_)
    for row in np.argsort(turns, kind="stable").tolist():
        query, length = queries[row], int(lengths[row])
        if turns[row] == 0 or length <= allowance[query]:
            kept[row] = True
            allowance[query] -= length
        else:
            allowance[query] = 0  # the next window is as long: none of a later turn comes first
    return kept
