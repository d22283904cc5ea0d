"""The protocols that first stages and their views follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

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
            InvalidInputError: If the query is not text or is blank, ``k`` is not a whole number
                of at least 0, or the mask has a wrong length.
        """
        ...


@runtime_checkable
class StageView(FirstStage, Protocol):
    """A first stage at one moment: immutable, and safe to share between threads.

    A change makes another view and leaves this one as it is. Several views may be made from
    one; what they have in common they share.

    Attributes:
        size: Keys ever given: 0 to ``size - 1``, the length of a mask. A removed key is never
            given again.
        alive: Shape (size,): True for the keys that are not removed. Read-only.
    """

    @property
    def size(self) -> int:
        """Keys ever given."""
        ...

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): the keys that are not removed."""
        ...

    def with_added(self, texts: Sequence[str]) -> Self:
        """A view with these texts too, under the keys ``size`` to ``size + len(texts) - 1``.

        Raises:
            InvalidInputError: If a text is not a string.
        """
        ...

    def with_removed(self, keys: Iterable[int]) -> Self:
        """A view without these passages; the scores of the others are as if they never were.

        Raises:
            InvalidInputError: If a key is not in the index.
        """
        ...


@runtime_checkable
class StoredStage(FirstStage, Protocol):
    """A first stage that can change, and be saved as a part of something larger.

    It holds a `StageView`; a change replaces it by the next one, in one assignment.
    """

    @property
    def view(self) -> StageView:
        """The passages at this moment."""
        ...

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask, and the next key."""
        ...

    def at(self, view: Any) -> Self:
        """A stage with the same settings that holds another view of the same kind."""
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


@dataclass(frozen=True)
class Survey:
    """What a view says of a query beyond its best candidates, for fusion.

    Attributes:
        candidates: Same as in ``search``.
        mean: Of the scores of all passages of the view, whatever the mask; a passage that
            shares no term with the query has the BM25 score 0.
        deviation: Their standard deviation.
        scores: From keys, shape (n,), to their scores, shape (n,).
    """

    candidates: list[Candidate]
    mean: float
    deviation: float
    scores: Callable[[NDArray[np.int64]], NDArray[np.float64]]


@runtime_checkable
class Surveyed(Protocol):
    """A view or stage that can tell how all of its scores are spread."""

    def survey(self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None) -> Survey:
        """Searches, and tells how the scores of all passages are spread."""
        ...
