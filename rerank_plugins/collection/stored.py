"""What retrievers and stores do with their collections: add, remove, search, save, load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import Self

from rerank_plugins.collection.collection import Collection
from rerank_plugins.collection.filters import Filter
from rerank_plugins.collection.records import Record, check_ids
from rerank_plugins.collection.stages import position_of, stage_texts
from rerank_plugins.collection.view import View
from rerank_plugins.errors import IndexDamagedError, IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.fusion import check_restored, restored

_KINDS = ("BM25", "Dense")


class Stored:
    """An adapter's retriever or store over collections; its class writes the rest.

    Attributes:
        _KIND: What the manifest calls it.
        _SETTINGS: Attributes that are stored, and options of its class by the same names.
        _ENCODER: The option of its class that takes an encoder, by the framework's word.
        _EMBEDS: Whether it has that option.
    """

    _KIND: ClassVar[str]
    _SETTINGS: ClassVar[tuple[str, ...]] = ()
    _ENCODER: ClassVar[str]
    _EMBEDS: ClassVar[bool] = True

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all of it to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: If it cannot be written.
            InvalidInputError: If metadata, a filter or an option would not come back from JSON
                as it is, or a retriever is not one of this package.
        """
        storage.save(path, self._KIND, self._write)

    def _add(self, records: Sequence[Record]) -> list[str]:
        """Adds records to each of its collections; their ids."""
        for collection in self._collections():
            collection.add(records)
        return [str(record.id) for record in records]

    async def _aadd(self, records: Sequence[Record]) -> list[str]:
        """`_add` that leaves the event loop free and awaits the embedding."""
        for collection in self._collections():
            await collection.aadd(records)
        return [str(record.id) for record in records]

    def _delete(self, ids: Iterable[str]) -> None:
        """Removes the records with these ids; ids that none has are passed over."""
        names = check_ids(ids)
        for collection in self._collections():
            collection.delete(names)

    def _delete_where(self, kept: Filter | None) -> None:
        """Removes the records that pass the filter; None for all of them."""
        for collection in self._collections():
            collection.delete_where(kept)

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        """Its settings, and those of what it holds; JSON values.

        Args:
            collections: Its collections are added to these, each once; see `place`.
        """
        values = ((name, getattr(self, name)) for name in self._SETTINGS)
        settings = {name: one.value if isinstance(one, Enum) else one for name, one in values}
        return {"kind": self._KIND, **settings, **self._told_inside(collections)}

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        """It again, from `_told` and options that go before stored ones."""
        own = {name: one for name, one in given.items() if cls._EMBEDS or name != cls._ENCODER}
        inside = cls._made_inside(told, collections, own)
        return cls(**{**{name: told[name] for name in cls._SETTINGS}, **inside, **own})

    def _told_inside(self, collections: list[Collection]) -> dict[str, Any]:
        """What it holds."""
        return {"collection": place(self._collections()[0], collections)}

    @classmethod
    def _made_inside(
        cls,
        told: Mapping[str, Any],
        collections: list[Collection],
        given: dict[str, Any],  # noqa: ARG003
    ) -> dict[str, Any]:
        """Options with what `_told_inside` told; takes from ``given`` what it has used."""
        return {"collection": collections[told["collection"]]}

    def _collections(self: Any) -> list[Collection]:
        """Each of its collections once, what may fail when records are added first."""
        return [self.collection]

    @staticmethod
    def _line(record: Record) -> Any:
        """A record as a JSON value.

        Raises:
            InvalidInputError: If it would not come back as it is.
        """
        raise NotImplementedError

    @staticmethod
    def _record(line: Any) -> Record:
        """The record that `_line` gave."""
        raise NotImplementedError

    def _write(self, out: storage.Writer) -> None:
        collections: list[Collection] = []
        told = self._told(collections)
        storage.check_json("options", told)
        out.settings |= {"made_of": told, "collections": len(collections)}
        for number, one in enumerate(collections):
            self._write_collection(out.part(f"collection{number}"), one)

    def _write_collection(self, out: storage.Writer, collection: Collection) -> None:
        view = collection.view
        out.settings["stages"] = [_kind_of(stage) for stage in view.stages]
        out.array("alive.npy", view.alive)
        out.lines("records.jsonl", map(self._line, view))
        for number, stage in enumerate(view.stages):
            stage.store(out.part(f"stage{number}"), texts=False)

    @classmethod
    def _load(
        cls, path: str | os.PathLike[str], embed: Any, analyzer: Any, given: Mapping[str, Any]
    ) -> Self:
        """What `save` wrote, once it is sure that encoder and analyzer are what they were."""
        collections: list[Collection] = []

        def make(part: storage.Reader) -> Stored:
            collections[:] = [
                cls._read_collection(part.part(f"collection{number}"), embed, analyzer)
                for number in range(part.settings["collections"])
            ]
            return cls._made(part.settings["made_of"], collections, given)

        found = cast("Self", storage.load(path, cls._KIND, make))
        for one in collections:
            for stage in one.view.stages:
                check_restored(stage)
        return found

    @classmethod
    def _read_collection(cls, part: storage.Reader, embed: Any, analyzer: Any) -> Collection:
        records = [cls._record(line) for line in part.lines("records.jsonl")]
        stages = [
            restored(kind, part.part(f"stage{number}"), stage_texts(kind, records), embed, analyzer)
            for number, kind in enumerate(part.settings["stages"])
        ]
        try:
            collection = Collection(stages, records)
        except InvalidInputError as error:
            raise IndexDamagedError(
                f"records and stages do not belong together: {error}"
            ) from error
        if not np.array_equal(collection.view.alive, part.array("alive.npy", np.bool_)):
            raise IndexDamagedError("alive.npy must have the keys of the records")
        return collection


@dataclass(frozen=True)
class Place:
    """Where a retriever searches: a stage of a collection, and its filter or None."""

    collection: Collection
    stage: int
    filter: Any = None


class Staged(Stored):
    """One that searches a stage of its ``collection``; `_STAGE` is the stage's class."""

    _STAGE: ClassVar[type[Any]]

    def _at(self: Any) -> int:
        return position_of(self._STAGE, self.collection)

    def _index(self: Any) -> Any:
        """The stage as it is now."""
        return self.collection.view.stages[self._at()]

    def _search(
        self: Any, query: str, k: int, kept: Filter | None, vector: ArrayLike | None = None
    ) -> list[tuple[Any, float]]:
        """The framework's objects of at most ``k`` records, its own, with their scores.

        Args:
            query: Non-blank text.
            k: How many at most.
            kept: What they must pass.
            vector: The query's embedding, shape (d,), where there is one.
        """
        view: View = self.collection.view
        found = view.search(query, k, kept, stage=self._at(), vector=vector)
        return [(record.item, 0.0 if one.score is None else one.score) for record, one in found]


def place(collection: Collection, collections: list[Collection]) -> int:
    """Where the collection is in the list, at the end if it was not there."""
    for number, one in enumerate(collections):
        if one is collection:
            return number
    collections.append(collection)
    return len(collections) - 1


def filter_told(keep: Any) -> dict[str, Any]:
    """A retriever's filter as a JSON value: a dict, or that there is a function or none."""
    return {"values": dict(keep)} if isinstance(keep, Mapping) else {"function": keep is not None}


def filter_made(told: Mapping[str, Any], given: Any) -> Any:
    """The filter that `filter_told` told, or the one given in its place.

    Raises:
        IndexMismatchError: If it was a function and none is given: without it, records would
            come back that were to be kept back.
    """
    if given is None and told.get("function"):
        raise IndexMismatchError(
            "the retriever had a function as its filter, which is not stored: "
            "give it again as filter="
        )
    return told.get("values") if given is None else given


def _kind_of(stage: object) -> str:
    """What `restored` knows the stage by.

    Raises:
        InvalidInputError: If it is not one of this package's own.
    """
    kind = type(stage).__name__
    if kind not in _KINDS:
        raise InvalidInputError(
            f"a collection can be saved when its stages are {' or '.join(_KINDS)}, "
            f"but one is {kind}"
        )
    return kind
