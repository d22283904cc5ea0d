"""What a collection holds at one moment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from rerank_plugins._lazy import lazy
from rerank_plugins._threads import in_thread
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection.filters import Filter, matching
from rerank_plugins.collection.records import Block, Record
from rerank_plugins.collection.stages import asked_once, with_added, with_removed
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.fusion import Hybrid

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """Records, stages and which keys are alive: immutable, so that readers share it freely.

    Attributes:
        blocks: The records, by consecutive keys.
        alive: Shape (keys ever given,), False where a record was removed.
        stages: The first stages; each has the records' texts under the same keys.
    """

    blocks: tuple[Block, ...]
    alive: Mask
    stages: tuple[Any, ...]

    @classmethod
    def of(cls, stages: Sequence[Any], records: Iterable[Record], alive: Mask) -> Self:
        """The view of stages that have indexed the records already, under the living keys."""
        placed: list[Record | None] = [None] * len(alive)
        for key, record in zip(np.flatnonzero(alive).tolist(), records, strict=True):
            placed[key] = record
        return cls((Block(0, placed),) if placed else (), alive, tuple(stages))

    def __len__(self) -> int:
        return self._count

    @lazy
    def _count(self) -> int:
        return int(np.count_nonzero(self.alive))

    def __iter__(self) -> Iterator[Record]:
        """The living records, in order of their keys."""
        for block in self.blocks:
            alive = self._living(block).tolist()
            yield from (one for one, here in zip(block.records, alive, strict=True) if here and one)

    def record(self, key: int) -> Record:
        """The record of a living key."""
        at = bisect_right(self.blocks, key, key=lambda block: block.start) - 1
        block = self.blocks[at]
        found = block.records[key - block.start]
        if found is None:
            raise KeyError(key)
        return found

    def key(self, id_: str) -> int | None:
        """The key of the living record with this id."""
        for block in reversed(self.blocks):
            key = block.keys.get(id_)
            if key is not None:
                return key if self.alive[key] else None
        return None

    def mask(self, *filters: Filter | None, hidden: bool = False) -> Mask | None:
        """Which keys a search may return, shape (keys ever given,); None for all the living.

        Args:
            *filters: All must hold; None for no filter.
            hidden: Whether records that no search may return are among them.

        Raises:
            InvalidInputError: If a filter's value cannot be compared with a record's.
        """
        kept = [one for one in filters if one is not None]
        unseen = [] if hidden else [key for block in self.blocks for key in block.hidden]
        if not kept and not unseen:
            return None
        mask = self.alive.copy()
        mask[unseen] = False
        for part in kept:
            for block in self.blocks:
                here = slice(block.start, block.start + len(block))
                mask[here] &= matching(part, block, mask[here])
        return mask

    def search(
        self,
        query: str,
        k: int,
        *filters: Filter | None,
        stage: int = 0,
        vector: ArrayLike | None = None,
    ) -> list[tuple[Record, Candidate]]:
        """At most ``k`` records that pass the filters, best first, as a stage finds them.

        Args:
            query: Non-blank text.
            k: How many at most.
            *filters: All must hold; None for no filter.
            stage: Position of the stage that searches.
            vector: The query's embedding, shape (d,), where there is one; then the query is
                not read.

        Raises:
            InvalidInputError: As the stage's ``search`` and `mask` do.
        """
        mask, searched = self.mask(*filters), self.stages[stage]
        if vector is None:
            found = searched.search(query, k, mask=mask)
        else:
            found = searched.search_by_vector(vector, k, mask=mask)
        return [(self.record(one.key), one) for one in found]

    async def asearch(
        self, query: str, k: int, *filters: Filter | None, stage: int = 0
    ) -> list[tuple[Record, Candidate]]:
        """`search` that leaves the event loop free and awaits an encoder's coroutine."""
        searched = self.stages[stage]
        if not isinstance(searched, Dense):
            return await in_thread(self.search, query, k, *filters, stage=stage)
        mask = await in_thread(self.mask, *filters)
        found = await searched.asearch(query, k, mask=mask)
        return [(self.record(one.key), one) for one in found]

    def fused(
        self,
        hybrid: Callable[[list[Any]], Hybrid],
        query: str,
        k: int,
        *filters: Filter | None,
        stages: Sequence[int],
    ) -> list[tuple[Record, Candidate]]:
        """`search` in several stages at once.

        Args:
            hybrid: Fuses them.
            query: Non-blank text.
            k: How many at most.
            *filters: All must hold; None for no filter.
            stages: Positions of the stages.
        """
        found = hybrid([self.stages[at].view for at in stages])
        return self._fused(found, query, k, filters)

    async def afused(
        self,
        hybrid: Callable[[list[Any]], Hybrid],
        query: str,
        k: int,
        *filters: Filter | None,
        stages: Sequence[int],
    ) -> list[tuple[Record, Candidate]]:
        """`fused` that leaves the event loop free and awaits encoders' coroutines."""
        views = [await asked_once(self.stages[at], query) for at in stages]
        return await in_thread(self._fused, hybrid(views), query, k, filters)

    def _fused(
        self, hybrid: Hybrid, query: str, k: int, filters: Iterable[Filter | None]
    ) -> list[tuple[Record, Candidate]]:
        found = hybrid.search(query, k, mask=self.mask(*filters))
        return [(self.record(one.key), one) for one in found]

    def with_changes(self, added: Sequence[Record], removed: Iterable[int]) -> View:
        """The next view; this one stays as it is."""
        gone = sorted(set(removed))
        stages = tuple(with_removed(with_added(one, added), gone) for one in self.stages)
        alive = np.ones(len(self.alive) + len(added), dtype=np.bool_)
        alive[: len(self.alive)] = self.alive
        alive[gone] = False
        blocks = _compacted(self.blocks, alive)
        if added:
            blocks = _merged([*blocks, Block(len(self.alive), added)], alive)
        return View(blocks, alive, stages)

    def _living(self, block: Block) -> Mask:
        return self.alive[block.start : block.start + len(block)]


def _compacted(blocks: tuple[Block, ...], alive: Mask) -> tuple[Block, ...]:
    """The blocks; those of which half was dropped since they were made let go of it."""
    kept = []
    for block in blocks:
        living = int(np.count_nonzero(alive[block.start : block.start + len(block)]))
        held = block.held
        kept.append(_rebuilt([block], alive) if held > 2 * living else block)
    return tuple(kept)


def _merged(blocks: list[Block], alive: Mask) -> tuple[Block, ...]:
    """Blocks whose lengths at least halve from one to the next, so that they stay few.

    A record is copied once for each doubling of the collection.
    """
    while len(blocks) > 1 and len(blocks[-2]) < 2 * len(blocks[-1]):
        blocks[-2:] = [_rebuilt(blocks[-2:], alive)]
    return tuple(blocks)


def _rebuilt(blocks: Sequence[Block], alive: Mask) -> Block:
    start = blocks[0].start
    records = [one for block in blocks for one in block.records]
    for at in np.flatnonzero(~alive[start : start + len(records)]).tolist():
        records[at] = None
    return Block(start, records)
