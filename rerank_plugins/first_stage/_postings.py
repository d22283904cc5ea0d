"""An immutable part of a BM25 index: which passages have a term, how often, and how long they are.

A posting is a row (4 bytes) and a code (2, rarely 4) for its pair of term frequency and passage
length. A score needs nothing else of a passage, so the scores of all pairs, a few thousand,
are computed for a query's view, and each posting looks its own up.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Passages that are counted together when building, which bounds the memory of sorting them.
_BUILT_TOGETHER: Final = 1 << 16
# Postings that are moved together when merging, likewise.
_MOVED_TOGETHER: Final = 1 << 22


class Vocabulary(dict[str, int]):
    """Numbers of terms. ``vocabulary[term]`` numbers a new term; ``get`` does not.

    It only grows, and a number means the same term to every view that shares it. Each step is
    one atomic operation: threads need no lock, and an interrupt leaves at most a term without
    postings.
    """

    def __init__(self, numbered: Iterable[tuple[str, int]] = ()) -> None:
        super().__init__(numbered)
        self._next = count(max(self.values(), default=-1) + 1)

    def __missing__(self, term: str) -> int:
        return self.setdefault(term, next(self._next))

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[list[tuple[str, int]]]]:
        return Vocabulary, (list(dict(self).items()),)


@dataclass(frozen=True, eq=False, slots=True)
class Occurrences:
    """The postings of some terms in one segment, one term after another.

    Attributes:
        terms: Which of the terms have postings here.
        lengths: How many each of these has.
        rows: Shape (postings,), ascending within a term.
        codes: Shape (postings,), as in `Postings`.
    """

    terms: list[int]
    lengths: list[int]
    rows: NDArray[np.int64]
    codes: NDArray[np.int64]

    def found_in(self, kept: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """How many rows have each of ``terms``; with ``kept``, how many of the kept ones."""
        if kept is None:
            return np.asarray(self.lengths, dtype=np.int64)
        starts = np.cumsum([0, *self.lengths[:-1]])
        return np.add.reduceat(kept[self.rows], starts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Postings:
    """Some passages by their terms. Rows are numbered from 0 in the order of keys.

    Attributes:
        keys: int64, shape (rows,), ascending.
        lengths: int32, shape (rows,): terms in each passage.
        terms: int32, shape (terms,), ascending numbers of the vocabulary; each has a posting.
        bounds: int64, shape (terms + 1,): where each term's postings begin and end.
        rows: int32, shape (postings,), ascending within a term.
        codes: uint16 or uint32, shape (postings,): positions in ``pairs``.
        pairs: int64, shape (pairs,), ascending: length * 2**32 + term frequency.
    """

    keys: NDArray[np.int64]
    lengths: NDArray[np.int32]
    terms: NDArray[np.int32]
    bounds: NDArray[np.int64]
    rows: NDArray[np.int32]
    codes: NDArray[Any]
    pairs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """Term frequency of each pair."""
        return self.pairs & 0xFFFFFFFF

    def spans(self, numbers: Sequence[int]) -> list[slice | None]:
        """Where the postings of each of these terms are; None for a term without any."""
        if not len(self.terms):
            return [None] * len(numbers)
        wanted = np.asarray(numbers, dtype=np.int32)
        places = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
        known = (self.terms[places] == wanted).tolist()
        starts, stops = self.bounds[places].tolist(), self.bounds[places + 1].tolist()
        return [
            slice(start, stop) if there else None
            for there, start, stop in zip(known, starts, stops, strict=True)
        ]

    def occurrences(self, numbers: Sequence[int]) -> Occurrences | None:
        """The postings of these terms; None if there are none."""
        known = [(at, span) for at, span in enumerate(self.spans(numbers)) if span is not None]
        if not known:
            return None
        return Occurrences(
            terms=[at for at, _ in known],
            lengths=[span.stop - span.start for _, span in known],
            # numpy indexes by int64: cast here, they are not cast again at each use.
            rows=np.concatenate([self.rows[span] for _, span in known], dtype=np.int64),
            codes=np.concatenate([self.codes[span] for _, span in known], dtype=np.int64),
        )

    def impacts(self, mean_length: float, k1: float, b: float) -> NDArray[np.float64]:
        """Okapi's tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)) of each pair.

        Computed value by value, so that the same pair has the same bits in every segment. A
        positive floor keeps a match a match where an extreme ``k1`` makes it nothing.
        """
        frequency = self.frequencies.astype(np.float64)
        length = (self.pairs >> 32).astype(np.float64)
        held_back = frequency + k1 * (1 - b + b * length / mean_length)
        return np.maximum(frequency * (k1 + 1) / held_back, 1e-200)

    def only(self, kept: NDArray[np.bool_]) -> Postings:
        """The rows where ``kept`` is True."""
        stays = kept[self.rows]
        # A running sum, because reduceat counts an empty run as one.
        sums = np.concatenate([[0], np.cumsum(stays)])
        bounds = sums[self.bounds]
        used = np.diff(bounds) > 0
        numbers = np.cumsum(kept, dtype=np.int64) - 1
        return Postings(
            keys=self.keys[kept],
            lengths=self.lengths[kept],
            terms=self.terms[used],
            bounds=np.concatenate([[0], bounds[1:][used]]),
            rows=numbers[self.rows[stays]].astype(np.int32),
            codes=self.codes[stays],
            pairs=self.pairs,
        )

    def passages(self) -> list[list[int]]:
        """Each row's term numbers, repeated as often as they occur; their order is lost."""
        frequency = self.frequencies[self.codes]
        terms = np.repeat(np.repeat(self.terms, np.diff(self.bounds)), frequency)
        order = np.argsort(np.repeat(self.rows, frequency), kind="stable")
        cuts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)]).tolist()
        listed = terms[order].tolist()
        return [listed[cuts[row] : cuts[row + 1]] for row in range(len(self))]


def built(passages: Iterable[Sequence[str]], first: int, vocabulary: Vocabulary) -> Postings:
    """Counts passages whose keys start with ``first``."""
    parts: list[Postings] = []
    ids, bounds = array("i"), array("q", [0])
    number = vocabulary.__getitem__
    for passage in passages:
        ids.extend(map(number, passage))
        bounds.append(len(ids))
        if len(bounds) > _BUILT_TOGETHER:
            parts.append(_counted(ids, bounds, first))
            first += len(bounds) - 1
            ids, bounds = array("i"), array("q", [0])
    if len(bounds) > 1 or not parts:
        parts.append(_counted(ids, bounds, first))
    return merged(parts)


def merged(parts: Sequence[Postings]) -> Postings:
    """Several as one; the keys of each must be above those of the one before."""
    if len(parts) == 1:
        return parts[0]
    terms = _union([part.terms for part in parts])
    pairs = _union([part.pairs for part in parts])
    places = [np.searchsorted(terms, part.terms) for part in parts]
    counts = np.zeros(len(terms), dtype=np.int64)
    for part, place in zip(parts, places, strict=True):
        counts[place] += np.diff(part.bounds)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty(bounds[-1], dtype=np.int32)
    codes = np.empty(bounds[-1], dtype=np.uint16 if len(pairs) <= 1 << 16 else np.uint32)
    free = bounds[:-1].copy()  # where each term's next posting goes
    first = 0
    for part, place in zip(parts, places, strict=True):
        renamed = np.searchsorted(pairs, part.pairs).astype(codes.dtype)
        shift = free[place] - part.bounds[:-1]
        for some in _runs(part.bounds):
            span = slice(*part.bounds[[some.start, some.stop]].tolist())
            moved = np.repeat(shift[some], np.diff(part.bounds[some.start : some.stop + 1]))
            moved += np.arange(span.start, span.stop)
            rows[moved] = part.rows[span] + np.int32(first)
            codes[moved] = renamed[part.codes[span]]
        free[place] += np.diff(part.bounds)
        first += len(part)
    return Postings(
        keys=np.concatenate([part.keys for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        terms=terms,
        bounds=bounds,
        rows=rows,
        codes=codes,
        pairs=pairs,
    )


def _counted(ids: array[int], bounds: array[int], first: int) -> Postings:
    """Passages from the numbers of their terms, one passage after another."""
    lengths = np.diff(np.asarray(bounds, dtype=np.int64)).astype(np.int32)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.asarray(ids, dtype=np.int32).astype(np.int64) << 32 | rows
    places.sort()
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    places = places[starts]
    frequency = np.diff(starts, append=len(ids))
    rows = places & 0xFFFFFFFF
    terms, begins = np.unique(places >> 32, return_index=True)
    codes, pairs = _coded(lengths, rows, frequency)
    return Postings(
        keys=np.arange(first, first + len(lengths), dtype=np.int64),
        lengths=lengths,
        terms=terms.astype(np.int32),
        bounds=np.append(begins, len(rows)).astype(np.int64),
        rows=rows.astype(np.int32),
        codes=codes,
        pairs=pairs,
    )


def _coded(
    lengths: NDArray[np.int32], rows: NDArray[np.int64], frequency: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A code for each posting's pair, and the pairs; through a table, because sorting is slow."""
    of_length, length = np.unique(lengths, return_inverse=True)
    occurs = np.bincount(frequency) > 0
    of_frequency = np.flatnonzero(occurs)
    places = length[rows] * len(of_frequency) + (np.cumsum(occurs) - 1)[frequency]
    used = np.zeros(len(of_length) * len(of_frequency), dtype=np.bool_)
    used[places] = True
    pairs = np.flatnonzero(used)
    kind = np.uint16 if len(pairs) <= 1 << 16 else np.uint32
    codes = (np.cumsum(used) - 1).astype(kind)[places]
    if not len(pairs):
        return codes, np.empty(0, dtype=np.int64)
    by_length, by_frequency = np.divmod(pairs, len(of_frequency))
    return codes, of_length.astype(np.int64)[by_length] << 32 | of_frequency[by_frequency]


def _union(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.unique(np.concatenate(arrays))


def _runs(bounds: NDArray[np.int64]) -> list[slice]:
    """The terms in runs that have about so many postings as are moved together."""
    marks = np.arange(0, int(bounds[-1]), _MOVED_TOGETHER)
    cuts = np.unique(np.append(np.searchsorted(bounds, marks), len(bounds) - 1)).tolist()
    return [slice(start, stop) for start, stop in pairwise(cuts)]
