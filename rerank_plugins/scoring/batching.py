"""Batches by token budget: little padding, bounded memory, scores that do not depend on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock

logger = logging.getLogger(__name__)

# A CPU's matrix products are as fast with 512 tokens as with more, so a padded batch has no more:
# rows sorted by length are then alike. Passages of mixed lengths through OpenVINO on AVX2: small
# models take as long with 1024, twelve layers of 768 take a tenth longer, with 4096 half as long
# again.
PADDED_TOKENS_ON_CPU = 512
# A packed batch has no padding to save, but what is between its matrix products runs from the
# processor's cache with 1,024 tokens, also where other work takes a part of it: 2,048 take 1.3
# times as long in int8 then, and 8,192 1.4 to 1.9 times with the cache to themselves. 512 gain
# nothing.
PACKED_TOKENS_ON_CPU = 1024


class TokenLimit:
    """Padded tokens that a device was seen to have no memory for; learned, for threads."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self._lock = fork_safe_lock()

    def within(self, budget: int) -> int:
        """The budget, or what is left of it."""
        limit = self._limit
        return budget if limit is None else min(budget, limit)

    def failed(self, tokens: int) -> None:
        """Notes that a batch of so many tokens did not fit: half of it is tried from now on."""
        with self._lock:
            # Another thread may have learned of less meanwhile.
            limit = self._limit = self.within(max(1, tokens // 2))
        logger.warning(
            "a batch of %d tokens did not fit in memory; from here on batches have %d at most",
            tokens,
            limit,
        )


def token_budget_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.intp]]:
    """Rows grouped so that rows times longest row stays within the budget.

    Rows are sorted by length, longest first, so that neighbours need little padding and the
    largest batch comes first (what does not fit in memory fails at once, not at the end).

    Args:
        lengths: Shape (rows,), tokens per row.
        budget: Padded tokens per batch, at most. A row longer than that is a separate batch.

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
