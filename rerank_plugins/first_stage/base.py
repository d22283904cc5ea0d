"""The protocol that every first stage follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate
from rerank_plugins.first_stage.storage import Writer


@runtime_checkable
class FirstStage(Protocol):
    """Finds candidates for a query among the passages that it indexed."""

    def __len__(self) -> int:
        """Number of passages that can be found."""
        ...

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates, best first.

        Args:
            query: Non-empty text.
            k: How many at most; 0 gives none, more than there are gives all that match.
            mask: Shape (largest key + 1,), True where a passage may be returned. A passage
                outside the mask never comes back, whatever ``k`` is.

        Returns:
            Candidates with the passage's key, a finite higher-is-better score, and ranks
            from 1. Equal scores keep the order of keys.

        Raises:
            InvalidInputError: The query is not text or is blank, ``k`` is not a whole number
                of at least 0, or the mask has a wrong length.
        """
        ...


@runtime_checkable
class StoredStage(FirstStage, Protocol):
    """A first stage that can change, and be saved as a part of something larger."""

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask, and the next key."""
        ...

    def add(self, texts: Iterable[str]) -> list[int]:
        """Indexes more texts; their keys."""
        ...

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable."""
        ...

    def store(self, out: Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts only if asked for."""
        ...
