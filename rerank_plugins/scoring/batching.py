"""Batches by token budget: little padding, bounded memory, scores that do not depend on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def token_budget_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.intp]]:
    """Rows grouped so that rows times longest row stays within the budget.

    Rows are sorted by length, longest first, so that neighbours need little padding and the
    largest batch comes first (what does not fit in memory fails at once, not at the end).

    Args:
        lengths: Shape (rows,), tokens a row.
        budget: Padded tokens a batch, at most. A row longer than that is a batch of its own.

    Yields:
        Positions of the rows of one batch; every row comes exactly once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < order.size:
        longest = max(1, int(lengths[order[start]]))
        rows = max(1, budget // longest)
        yield order[start : start + rows]
        start += rows
