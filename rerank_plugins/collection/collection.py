"""A collection: records with ids and metadata over first stages, changed by many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from rerank_plugins._threads import fork_safe_lock, in_thread
from rerank_plugins.collection.filters import Filter
from rerank_plugins.collection.records import Record, check_ids, newest
from rerank_plugins.collection.stages import embedded
from rerank_plugins.collection.view import View
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.dense import Dense


class Collection:
    """Records over one or more first stages.

    A reader takes `view` once and meets no change while it reads. A change makes the next view
    beside the present one and swaps it in by one assignment, so whatever interrupts it leaves
    the old or the new; changes wait for each other. Copies and pickles hold the present view,
    and change on their own from there.

    Args:
        stages: First stages over the records' texts, in the records' order, or empty ones. They
            are never changed: each change makes new ones.
        records: Of several with one id, the last counts; stages that are not empty must then
            have been built without the others.

    Raises:
        InvalidInputError: If a stage holds another number of passages, or the stages differ in
            their keys.
    """

    def __init__(self, stages: Iterable[Any], records: Iterable[Record] = ()) -> None:
        listed, kept = tuple(stages), newest(records)
        filled = [stage for stage in listed if stage.keys_given]
        if filled:
            keys = filled[0].keys
            if len(filled) < len(listed) or any(stage.keys != keys for stage in listed):
                raise InvalidInputError("the stages of a collection must have the same keys")
            if len(keys) != len(kept):
                raise InvalidInputError(
                    f"the stages must index the records, but they hold {len(keys)} passages for "
                    f"{len(kept)} records"
                )
            alive = np.zeros(filled[0].keys_given, dtype=np.bool_)
            alive[keys] = True
            self._view = View.of(listed, kept, alive)
        else:
            empty = View((), np.empty(0, dtype=np.bool_), listed)
            self._view = empty.with_changes(kept, ()) if kept else empty
        self._changing = fork_safe_lock()

    @property
    def view(self) -> View:
        """What it holds now; take it once for what belongs together."""
        return self._view

    def __len__(self) -> int:
        return len(self._view)

    def add(self, records: Iterable[Record]) -> None:
        """Adds records: all of them, or after an error none.

        A record with an id that is there, or twice in the list, replaces the earlier.

        Raises:
            InvalidInputError: If a stage refuses a text or a vector.
        """
        added = newest(records)
        if added:
            self._change(
                lambda view: (
                    added,
                    [view.key(one.id) for one in added if one.id is not None],
                )
            )

    async def aadd(self, records: Iterable[Record]) -> None:
        """`add` that leaves the event loop free and awaits encoders that have a coroutine."""
        added: Sequence[Record] = newest(records)
        dense = [stage for stage in self._view.stages if isinstance(stage, Dense)]
        # A record has room for the vectors of one encoder.
        if len(dense) == 1:
            added = await embedded(dense[0], added)
        await in_thread(self.add, added)

    def delete(self, ids: Iterable[str]) -> None:
        """Removes records; ids that none has are passed over.

        Raises:
            InvalidInputError: If it is not a list, or an element is not an id.
        """
        names = check_ids(ids)
        self._change(lambda view: ((), map(view.key, names)))

    def delete_where(self, kept: Filter | None) -> None:
        """Removes the records that pass the filter; None for all of them."""

        def passing(view: View) -> tuple[Sequence[Record], Iterable[int]]:
            mask = None if kept is None else view.mask(kept, hidden=True)
            return (), np.flatnonzero(view.alive if mask is None else mask).tolist()

        self._change(passing)

    def snapshot(self) -> Self:
        """An independent collection with the same content; takes no time or memory."""
        copied = type(self).__new__(type(self))
        copied.__setstate__(self._view)
        return copied

    def __copy__(self) -> Self:
        return self.snapshot()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Nothing in a view ever changes, and nothing of it is handed out.
        return self.snapshot()

    def __getstate__(self) -> View:
        return self._view

    def __setstate__(self, view: View) -> None:
        self._view = view
        self._changing = fork_safe_lock()

    def _change(
        self, plan: Callable[[View], tuple[Sequence[Record], Iterable[int | None]]]
    ) -> None:
        with self._changing:
            view = self._view
            added, removed = plan(view)
            gone = [key for key in removed if key is not None]
            if added or gone:
                self._view = view.with_changes(added, gone)
