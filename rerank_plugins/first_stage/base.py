"""The protocol that every first stage follows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate


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
