"""The only sort and the only cut: descending, ties keep their order, NaN is an error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins._validation import check_finite


def descending(scores: ArrayLike, k: int | None = None) -> NDArray[np.intp]:
    """Positions of the ``k`` highest scores (all when None), best first, ties in order.

    Linear in the number of scores plus the sort of the ``k`` that stay, so that a first
    stage can call it on millions of scores.

    Args:
        scores: Shape (n,); every value finite.
        k: How many; more than n gives n.

    Returns:
        Shape (min(k, n),).

    Raises:
        NonFiniteScoreError: If a score is NaN or infinite.
    """
    values = check_finite(scores)
    n = values.size
    if k is None or k >= n:
        return np.argsort(-values, kind="stable")
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    smallest_kept = np.partition(values, n - k)[n - k]
    above = np.flatnonzero(values > smallest_kept)
    tied = np.flatnonzero(values == smallest_kept)[: k - above.size]
    kept = np.sort(np.concatenate([above, tied]))
    return kept[np.argsort(-values[kept], kind="stable")]
