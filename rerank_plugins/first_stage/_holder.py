"""What BM25, Dense and Hybrid share: they hold a view, and a change replaces it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins._threads import fork_safe_lock
from rerank_plugins.candidates import Candidate
from rerank_plugins.first_stage._checks import check_texts
from rerank_plugins.first_stage.base import StageView, Survey

V = TypeVar("V", bound=StageView)


class Holder(Generic[V]):
    """A stage over its current view.

    Searches take the view once and need no lock. A change builds the next view beside it and
    publishes it in one assignment, so whatever interrupts it leaves the old or the new.
    """

    def __init__(self, view: V) -> None:
        self._view = view
        self._changing = fork_safe_lock()  # one writer at a time
        self._changes = 0

    @property
    def view(self) -> V:
        """The passages at this moment: immutable, and safe to share between threads."""
        return self._view

    @property
    def changes(self) -> int:
        """How often it was changed by its own methods; a hybrid over it must know of them."""
        return self._changes

    def take(self, view: V) -> None:
        """Publishes a view that a hybrid over this stage has made."""
        self._view = view

    def at(self, view: V) -> Self:
        """A stage with the same settings that holds another view of its kind."""
        other = copy.copy(self)
        other.__dict__["_view"] = view
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._changing = fork_safe_lock()

    def __len__(self) -> int:
        return len(self.view)

    @property
    def keys(self) -> list[int]:
        """The keys of the passages that can be found, ascending."""
        keys: list[int] = np.flatnonzero(self.view.alive).tolist()
        return keys

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask."""
        return self.view.size

    def add(self, texts: Iterable[str]) -> list[int]:
        """Indexes more texts: all of them, or after an error none.

        Takes as long as they need, however many passages there are.

        Returns:
            Their keys, which are never given again, not even after a removal.

        Raises:
            InvalidInputError: If a text is not a string.
        """
        listed = check_texts(texts)
        return self._added(lambda view: view.with_added(listed))

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable; the scores of the others are as if they had never been.

        Raises:
            InvalidInputError: If a key is not in the index; nothing is removed then.
        """
        self._changed(lambda view: view.with_removed(keys))

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates, best first.

        Args:
            query: Non-blank text.
            k: How many at most.
            mask: One boolean for each key ever given, shape (`keys_given`,); only passages
                where it is True come back. Scores do not depend on it.

        Returns:
            Candidates with a higher-is-better score; equal scores keep the order of keys.

        Raises:
            InvalidInputError: If the query, ``k`` or the mask is invalid.
        """
        return self.view.search(query, k, mask=mask)

    def survey(self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None) -> Survey:
        """Searches, and tells how the scores of all passages are spread."""
        view: Any = self.view
        found: Survey = view.survey(query, k, mask=mask)
        return found

    def _changed(self, change: Callable[[V], V]) -> tuple[V, V]:
        """Replaces the view; the one before and the one after."""
        with self._changing:
            before = self._view
            after = change(before)
            self._changes += 1
            self.take(after)
        return before, after

    def _added(self, change: Callable[[V], V]) -> list[int]:
        before, after = self._changed(change)
        return list(range(before.size, after.size))
