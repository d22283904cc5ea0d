"""The vectors of a dense index at one moment, in segments that are never changed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.first_stage._faiss_vectors import COMPRESSED_FROM, KINDS, FaissVectors
from rerank_plugins.first_stage._merging import REMOVED, merge_from
from rerank_plugins.first_stage._passages import Passages
from rerank_plugins.first_stage._vectors import (
    INDEXES,
    ExactVectors,
    IndexChoice,
    IndexKind,
    Keys,
    Vectors,
    joined,
)

# Where ``auto`` leaves one kind for the next: an exact search of so many vectors takes some
# milliseconds still, and a graph of so many holds some gigabytes.
EXACT_UP_TO: Final = 100_000
GRAPH_UP_TO: Final = 1_000_000
# Fewer vectors are searched exactly as fast as through a graph.
GRAPH_FROM: Final = 1024
# New vectors beside a graph or codes are searched exactly until there are so many of them, or
# one for so many that are in it. To take them in, the index is copied.
_BESIDE: Final = 4096
_SHARE_BESIDE: Final = 4
# A graph is built anew when more than one in so many of its vectors is removed.
_REMOVED_FROM_GRAPH: Final = 2


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments in the order of keys; only the first may be a graph or codes.

    Attributes:
        asked: Which kind of index the user wants.
        kind: What most of the vectors are in; new ones are held beside it and searched exactly.
        parts: None is empty.
        removed: For each part, how many of its rows belong to no passage any more.
    """

    asked: IndexChoice = "auto"
    kind: IndexKind = "exact"
    parts: tuple[ExactVectors, ...] = ()
    removed: tuple[int, ...] = ()

    def with_added(self, new: ExactVectors, passages: Passages) -> Segments:
        """With vectors of the next keys; small parts merged, the kind's index built or extended.

        Args:
            new: Not empty.
            passages: Those with the new keys.
        """
        grown = replace(self, parts=(*self.parts, new), removed=(*self.removed, 0))
        rows = list(map(len, grown.parts))
        grown = replace(grown, kind=max(self.kind, self._kind_for(sum(rows)), key=INDEXES.index))
        if grown.kind == "exact" or (grown.kind == "hnsw" and sum(rows) < GRAPH_FROM):
            return grown.merged(passages, merge_from(rows))
        base = grown.parts[0]
        if not isinstance(base, FaissVectors) or base.kind != grown.kind:
            whole = joined(list(grown.rest(passages)))
            return grown.ending(0, KINDS[grown.kind].built(whole))
        beside = sum(rows[1:])
        if beside < _BESIDE and beside * _SHARE_BESIDE < rows[0]:
            return grown.merged(passages, 1 + merge_from(rows[1:]))
        extended = base.extended(joined(list(grown.rest(passages, 1))))
        whole_again = replace(grown, parts=(extended,), removed=grown.removed[:1])
        return whole_again._cleared(0, passages)  # noqa: SLF001  (its own)

    def with_removed(self, keys: Iterable[int], passages: Passages) -> Segments:
        """Without the vectors of some passages.

        Args:
            keys: Whose vectors are here.
            passages: Those without the keys.
        """
        removed, starts = list(self.removed), self._starts()
        for key in keys:
            at = bisect_right(starts, key) - 1
            first, last = np.searchsorted(self.parts[at].owners, [key, key + 1]).tolist()
            removed[at] += last - first
        changed = replace(self, removed=tuple(removed))
        for at in reversed(range(len(removed))):
            changed = changed._cleared(at, passages)  # noqa: SLF001  (its own)
        return changed

    def compact(self, passages: Passages) -> Segments:
        """In at most two parts, without removed rows where the vectors are kept: as stored."""
        base = sum(isinstance(part, FaissVectors) for part in self.parts)
        return self.ending(base, *self.rest(passages, base), join=True)

    def merged(self, passages: Passages, start: int) -> Segments:
        """The parts from ``start`` as one, without removed rows."""
        if len(self.parts) - start < 2:
            return self
        return self.ending(start, *self.rest(passages, start), join=True)

    def rest(self, passages: Passages, start: int = 0) -> Iterator[ExactVectors]:
        """The parts from ``start``, each without removed rows; those with none left are out."""
        for at in range(start, len(self.parts)):
            kept = self.kept(at, passages)
            if kept is None:
                yield self.parts[at]
            elif kept.any():
                yield self.parts[at].only(kept)

    def ending(self, start: int, *last: ExactVectors, join: bool = False) -> Segments:
        """With others, of whose rows none is removed, in place of the parts from ``start``."""
        ends = (joined(list(last)),) if join and last else last
        return replace(
            self,
            parts=(*self.parts[:start], *ends),
            removed=(*self.removed[:start], *(0 for _ in ends)),
        )

    def kept(
        self, at: int, passages: Passages, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_] | None:
        """Which rows of a part are alive, or of passages that are allowed; None for all."""
        part = self.parts[at]
        if allowed is not None:
            return part.at_rows(allowed)
        if not self.removed[at]:
            return None
        first, last = int(part.owners[0]), int(part.owners[-1])
        return part.at_rows(passages.alive_between(first, last), first)

    def stored(self, key: int) -> Vectors:
        """All vectors of a passage that is alive, shape (m, d)."""
        return self.parts[bisect_right(self._starts(), key) - 1].of(np.asarray([key]))[0]

    def scores(self, query: Vectors, keys: Keys) -> NDArray[np.float64]:
        """The scores of passages that are alive, in float64."""
        places = np.searchsorted(self._starts(), keys, side="right") - 1
        found = np.empty(len(keys))
        for at in np.unique(places):
            here = places == at
            found[here] = self.parts[at].scores(query, keys[here])
        return found

    def _starts(self) -> list[int]:
        return [int(part.owners[0]) for part in self.parts]

    def _kind_for(self, rows: int) -> IndexKind:
        if self.asked == "auto":
            if rows <= EXACT_UP_TO:
                return "exact"
            return "hnsw" if rows <= GRAPH_UP_TO else "ivfpq"
        if self.asked == "ivfpq":
            return "ivfpq" if rows >= COMPRESSED_FROM else "exact"
        return self.asked

    def _cleared(self, at: int, passages: Passages) -> Segments:
        """With a part written anew if too much of it is removed."""
        part = self.parts[at]
        share = REMOVED if part.kind == "exact" else _REMOVED_FROM_GRAPH
        kept = self.kept(at, passages)
        if part.kind == "ivfpq" or kept is None or self.removed[at] * share <= len(part):
            return self  # codes cannot be made anew: their vectors are not kept
        rest = part.only(kept)
        if part.kind == "hnsw" and len(rest) >= GRAPH_FROM:
            rest = KINDS["hnsw"].built(rest)
        fresh = (rest,) if len(rest) else ()
        return replace(
            self,
            parts=(*self.parts[:at], *fresh, *self.parts[at + 1 :]),
            removed=(*self.removed[:at], *(0 for _ in fresh), *self.removed[at + 1 :]),
        )
