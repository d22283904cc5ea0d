"""What the frameworks' hybrid retrievers share: fusing lists, or a collection's own stages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate
from rerank_plugins.collection.collection import Collection
from rerank_plugins.collection.filters import Filter
from rerank_plugins.collection.stored import Stored
from rerank_plugins.collection.view import View
from rerank_plugins.errors import IndexDamagedError, InvalidInputError
from rerank_plugins.first_stage.fusion import SETTINGS, Hybrid


@dataclass(frozen=True)
class Shared:
    """The view that all retrievers of a hybrid search; fused by the scores of all passages.

    Attributes:
        view: Of their collection.
        stages: Which of its stages they search.
        kept: What they find passes this filter.
        hybrid: Fuses stages.
    """

    view: View
    stages: list[int]
    kept: Filter | None
    hybrid: Callable[[Iterable[Any]], Hybrid]

    def search(self, query: str, k: int) -> list[tuple[Any, Candidate]]:
        """The framework's objects of at most ``k`` records, the collection's own, best first."""
        found = self.view.fused(self.hybrid, query, k, self.kept, stages=self.stages)
        return [(record.item, one) for record, one in found]

    async def asearch(self, query: str, k: int) -> list[tuple[Any, Candidate]]:
        """`search` that leaves the event loop free and awaits encoders' coroutines."""
        found = await self.view.afused(self.hybrid, query, k, self.kept, stages=self.stages)
        return [(record.item, one) for record, one in found]


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
        _HANDED: Options of loading that go to its retrievers.
    """

    _KINDS: ClassVar[tuple[type[Any], ...]] = ()
    _HANDED: ClassVar[tuple[str, ...]]

    def _hybrid(self: Any, stages: Iterable[Any]) -> Hybrid:
        """The stages fused as its settings say.

        Raises:
            InvalidInputError: If a setting is invalid.
        """
        return Hybrid(list(stages), **{name: getattr(self, name) for name in SETTINGS})

    def _fusion(self, lists: Sequence[list[Candidate]], size: int = 0) -> Hybrid:
        return self._hybrid(Found(found, size) for found in lists)

    def _search(
        self, plan: Shared | Sequence[Any], query: str, k: int, ask: Callable[[int, Any], Any]
    ) -> list[tuple[Any, Candidate]]:
        """The framework's objects of at most ``k`` passages, best first; copy them.

        Args:
            plan: The view that the retrievers share, or they themselves.
            query: What is asked.
            k: How many at most.
            ask: From a retriever's number, from 1, and the retriever to what it finds.
        """
        if isinstance(plan, Shared):
            return plan.search(query, k)
        found = [ask(number, stage) for number, stage in enumerate(plan, start=1)]
        return self._fused(found, query, k)

    async def _asearch(
        self,
        plan: Shared | Sequence[Any],
        query: str,
        k: int,
        ask: Callable[[int, Any], Awaitable[Any]],
    ) -> list[tuple[Any, Candidate]]:
        """`_search` that asks all retrievers at once."""
        if isinstance(plan, Shared):
            return await plan.asearch(query, k)
        found = [ask(number, stage) for number, stage in enumerate(plan, start=1)]
        return self._fused(await asyncio.gather(*found), query, k)

    def _fused(self, found: Sequence[Any], query: str, k: int) -> list[tuple[Any, Candidate]]:
        """At most ``k`` of what the retrievers found, by `_fused_lists`."""
        raise NotImplementedError

    def _fused_lists(
        self, lists: Sequence[Mapping[Hashable, tuple[Any, float | None]]], query: str, k: int
    ) -> list[tuple[Any, Candidate]]:
        """At most ``k`` of what the retrievers found, best first, as the first of them gave it.

        Args:
            lists: For each retriever, object and score by what identifies a passage, best first.
            query: What they were asked.
            k: How many at most.
        """
        first: dict[Hashable, Any] = {}
        for found in lists:
            for identity, (one, _) in found.items():
                first.setdefault(identity, one)
        keys = {identity: key for key, identity in enumerate(first)}
        candidates = [
            [
                # Fusing reads scores and ranks alone.
                Candidate(keys[identity], "", score, rank)
                for rank, (identity, (_, score)) in enumerate(found.items(), start=1)
            ]
            for found in lists
        ]
        objects = list(first.values())
        ranked = self._fusion(candidates, len(objects)).search(query, k)
        return [(objects[one.key], one) for one in ranked]

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

    def _shared(self: Any, read: Callable[[Any], Filter | None]) -> Shared | None:
        """The one view of all retrievers; None if they have several, or do more than search it.

        Args:
            read: From the filter that they have in common to the collection's.
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
        stages = [one.stage for one in known]
        return Shared(first.collection.view, stages, read(first.filter), self._hybrid)

    def _told_inside(self, collections: list[Collection]) -> dict[str, Any]:
        stages = self._own()
        return {
            **self._fusion([[] for _ in stages]).settings,
            "retrievers": [stage._told(collections) for stage in stages],  # noqa: SLF001
        }

    @classmethod
    def _made_inside(
        cls, told: Mapping[str, Any], collections: list[Collection], given: dict[str, Any]
    ) -> dict[str, Any]:
        handed = {name: given.pop(name) for name in cls._HANDED if name in given}
        stages = []
        for inner in told["retrievers"]:
            kind = next((one for one in cls._KINDS if inner["kind"] == one._KIND), None)  # noqa: SLF001
            if kind is None:
                raise IndexDamagedError(f"unknown kind of retriever: {inner['kind']!r}")
            stages.append(kind._made(inner, collections, handed))  # noqa: SLF001
        return {"retrievers": stages, **{name: told[name] for name in SETTINGS}}
