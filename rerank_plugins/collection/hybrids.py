"""What the frameworks' hybrid retrievers share: fusing lists, or a collection's own stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate
from rerank_plugins.collection.collection import Collection
from rerank_plugins.collection.stored import Stored
from rerank_plugins.errors import IndexDamagedError, InvalidInputError
from rerank_plugins.first_stage.fusion import SETTINGS, Hybrid


@dataclass(frozen=True)
class Place:
    """Where a retriever searches: a stage of a collection, and its filter or None."""

    collection: Collection
    stage: int
    filter: Any = None


class Found:
    """What a framework's retriever found for one query, as a stage that `Hybrid` can fuse.

    Args:
        candidates: Best first.
        size: How many passages all the stages found together.
    """

    def __init__(self, candidates: list[Candidate], size: int) -> None:
        self.candidates = candidates
        self.size = size

    def __len__(self) -> int:
        return self.size

    def search(
        self,
        query: str,  # noqa: ARG002
        k: int,
        *,
        mask: NDArray[np.bool_] | None = None,  # noqa: ARG002
    ) -> list[Candidate]:
        """The first ``k`` of what was found; there is no other query to ask."""
        return self.candidates[:k]


class Fused(Stored):
    """Several retrievers as one; has ``retrievers`` and the `SETTINGS` of a `Hybrid`.

    Attributes:
        _KINDS: The classes whose retrievers can be changed and saved; its own is the last.
    """

    _KINDS: ClassVar[tuple[type[Any], ...]] = ()

    def _hybrid(self: Any, stages: Iterable[Any]) -> Hybrid:
        """The stages fused as its settings say.

        Raises:
            InvalidInputError: If a setting is invalid.
        """
        return Hybrid(list(stages), **{name: getattr(self, name) for name in SETTINGS})

    def _fusion(self, lists: Sequence[list[Candidate]], size: int = 0) -> Hybrid:
        return self._hybrid(Found(found, size) for found in lists)

    def _own(self: Any) -> list[Any]:
        """The retrievers, if all are of this package.

        Raises:
            InvalidInputError: If one is of another kind.
        """
        for stage in self.retrievers:
            # Exactly these: a class made of one of them would come back as another.
            if type(stage) not in self._KINDS:
                raise InvalidInputError(
                    "a hybrid can be changed and saved when its retrievers are "
                    f"{', '.join(kind.__name__ for kind in self._KINDS)}, but one is "
                    f"{type(stage).__name__}"
                )
        return list(self.retrievers)

    def _collections(self) -> list[Collection]:
        # Embedding is what fails: vectors come last as a rule, and go first here.
        listed = [one for stage in reversed(self._own()) for one in stage._collections()]  # noqa: SLF001
        return list({id(one): one for one in listed}.values())

    def _shared(self: Any) -> tuple[Collection, list[int], Any] | None:
        """The one collection of all retrievers, their stages and their filter; None if none is.

        Such a hybrid reads one view, and fuses by the scores of all passages.
        """
        places = [
            stage._place() if isinstance(stage, self._KINDS[:-1]) else None  # noqa: SLF001
            for stage in self.retrievers
        ]
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            return None
        first = known[0]
        if any(
            one.collection is not first.collection or one.filter != first.filter for one in known
        ):
            return None
        return first.collection, [one.stage for one in known], first.filter

    def _told_inside(self, collections: list[Collection]) -> dict[str, Any]:
        stages = self._own()
        return {
            **self._fusion([[] for _ in stages]).settings,
            "retrievers": [stage._told(collections) for stage in stages],  # noqa: SLF001
        }

    @classmethod
    def _made_inside(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The retrievers of `_told_inside`, made with these options, and the settings."""
        stages = []
        for inner in told["retrievers"]:
            kind = next((one for one in cls._KINDS if inner["kind"] == one._KIND), None)  # noqa: SLF001
            if kind is None:
                raise IndexDamagedError(f"unknown kind of retriever: {inner['kind']!r}")
            stages.append(kind._made(inner, collections, given))  # noqa: SLF001
        return stages, {name: told[name] for name in SETTINGS}
