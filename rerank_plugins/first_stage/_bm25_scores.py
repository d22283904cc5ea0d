"""What the postings of a query add up to: for all passages, or for the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Fewer postings than one for so many passages are sorted; more are summed into an array of all.
_SPARSE: Final = 24

Places = NDArray[np.int64]
"""Rows of passages, counted on through all segments."""
Parts = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """What each posting of a query gives to its passage.

    Both ways of summing add a passage's parts in the order of the query's terms, so its sum has
    the same bits whatever segments hold the passages.

    Attributes:
        places: Shape (postings,), list after list; ascending within a list.
        parts: Shape (postings,), above 0.
        lists: Where in these each term of each segment is; a list has a passage once.
        size: How many places there are.
    """

    places: Places
    parts: Parts
    lists: list[slice]
    size: int

    @classmethod
    def of(cls, found: Iterable[tuple[Places, Parts, list[int]]], size: int) -> Scores:
        """Those of several segments: places, parts and the lengths of lists in each."""
        places, parts, lengths = zip(*found, strict=True)
        bounds = accumulate((one for here in lengths for one in here), initial=0)
        lists = [slice(start, stop) for start, stop in pairwise(bounds)]
        if len(places) == 1:
            return cls(places[0], parts[0], lists, size)
        return cls(np.concatenate(places), np.concatenate(parts), lists, size)

    def all(self) -> tuple[Places, Parts]:
        """Every passage with a posting, ascending, and its sum."""
        if self._sparse:
            order = np.argsort(self.places, kind="stable")
            places = self.places[order]
            first = np.diff(places, prepend=-1) > 0
            return places[first], _summed(np.cumsum(first) - 1, self.parts[order])
        sums = self._sums()
        found = np.flatnonzero(sums > 0)
        return found, sums[found]

    def best(self, k: int, allowed: Callable[[Places], NDArray[np.bool_]]) -> tuple[Places, Parts]:
        """At least the best ``k`` of those that are allowed, with ties, and maybe others.

        Args:
            k: How many, at least 1; all that match if they are fewer.
            allowed: Which of some places may be returned.
        """
        if self._sparse:
            return self.all()
        sums = self._sums()
        found = np.flatnonzero(sums >= self._least(sums, k, allowed))
        return found, sums[found]

    def _least(self, sums: Parts, k: int, allowed: Callable[[Places], NDArray[np.bool_]]) -> float:
        """A bound that the best ``k`` reach: the k-th best of one list, the rarest that will do."""
        for span in sorted(self.lists, key=lambda span: span.stop - span.start):
            if span.stop - span.start >= k:
                places = self.places[span]
                values = sums[places[allowed(places)]]
                if len(values) >= k:
                    return float(np.partition(values, len(values) - k)[len(values) - k])
        return float(np.nextafter(0, 1))

    @property
    def _sparse(self) -> bool:
        return len(self.places) * _SPARSE < self.size

    def _sums(self) -> Parts:
        return _summed(self.places, self.parts, self.size)


def _summed(places: Places, parts: Parts, size: int = 0) -> Parts:
    # In the order given, and quicker than ufunc.at.
    return np.asarray(np.bincount(places, weights=parts, minlength=size), dtype=np.float64)
