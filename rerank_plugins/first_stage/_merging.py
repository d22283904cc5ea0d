"""When small segments become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Segments this small are one; above, each is at least twice as large as all after it together.
# So there are at most log2(N / SMALL) segments, and a passage is moved as often. Source: the
# logarithmic method (Bentley and Saxe, 1980), which Lucene's LogMergePolicy follows too.
SMALL: Final = 64
# A segment is written anew when more than one in so many of its entries is removed.
REMOVED: Final = 4


def merge_from(sizes: Sequence[int]) -> int:
    """The first of the last segments that are to become one, once one was added."""
    start = len(sizes) - 1
    total = sizes[start]
    while start and (sizes[start - 1] < 2 * total or sizes[start - 1] + total <= SMALL):
        start -= 1
        total += sizes[start]
    return start
