"""First stages as a collection uses them: never changed, each change makes the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rerank_plugins.collection.records import Record, newest
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense


def with_added(stage: Any, records: Sequence[Record]) -> Any:
    """The stage with the records' texts under the next keys."""
    if not records:
        return stage
    texts = stage_texts(type(stage).__name__, records)
    if not isinstance(stage, Dense) or all(record.vector is None for record in records):
        return stage.at(stage.view.with_added(texts))
    bare = [at for at, record in enumerate(records) if record.vector is None]
    if bare:
        records = _with_vectors(records, bare, *stage.view.embedded([texts[at] for at in bare]))
    given = [np.atleast_2d(np.asarray(record.vector)) for record in records]
    owners = np.repeat(np.arange(len(given)), [len(vectors) for vectors in given])
    return stage.at(stage.view.with_added(texts, np.concatenate(given), owners))


def words_and_vectors(
    records: Iterable[Record], embed: Any, *, language: str, engine: str
) -> tuple[list[Any], list[Record]]:
    """BM25 and Dense over the newest of the records, and these: what a hybrid's collection has."""
    kept = newest(records)
    words = BM25([record.text for record in kept], language=language, engine=engine)
    return [words, with_added(Dense(embed=embed), kept)], kept


async def embedded(stage: Any, records: Sequence[Record]) -> Sequence[Record]:
    """The records with vectors, as the stage's encoder gives them; its coroutine is awaited."""
    bare = [at for at, record in enumerate(records) if record.vector is None]
    if not bare or not isinstance(stage, Dense):
        return records
    texts = stage_texts("Dense", records)
    found = await stage.view.aembedded([texts[at] for at in bare])
    return _with_vectors(records, bare, *found)


async def asked_once(stage: Any, query: str) -> Any:
    """The stage's view, for this query alone: it is embedded already, by the coroutine."""
    if not isinstance(stage, Dense):
        return stage.view
    vector = await stage.view.settings.embedder.aquery(query)
    known: Any = _Known(vector)
    return replace(stage.view, settings=replace(stage.view.settings, embedder=known))


class _Known:
    """In an encoder's place, the one vector that it is asked for."""

    def __init__(self, vector: Any) -> None:
        self._vector = vector

    def query(self, text: str) -> Any:  # noqa: ARG002
        """Shape (1, d)."""
        return self._vector


def with_removed(stage: Any, keys: Sequence[int]) -> Any:
    """The stage without these keys."""
    return stage.at(stage.view.with_removed(keys)) if keys else stage


def _with_vectors(
    records: Sequence[Record], bare: Sequence[int], vectors: Any, owners: Any
) -> list[Record]:
    """The records, those at ``bare`` with their rows of the vectors."""
    filled = list(records)
    for place, at in enumerate(bare):
        filled[at] = replace(records[at], vector=vectors[owners == place])
    return filled


def stage_texts(kind: str, records: Sequence[Record]) -> list[str]:
    """The texts that a stage of that kind has of the records.

    An embedding model may refuse empty text, so that a hidden record has a dot for it.
    """
    if kind != "Dense":
        return [record.text for record in records]
    return [record.text or ("." if record.hidden else "") for record in records]


def position_of(kind: type[Any], held: Any) -> int:
    """Where the stage of that class is in a collection or a view.

    Raises:
        InvalidInputError: If there is no such stage.
    """
    stages = getattr(held, "view", held).stages
    for position, stage in enumerate(stages):
        if isinstance(stage, kind):
            return position
    raise InvalidInputError(
        f"the collection must have a {kind.__name__} stage, but has "
        f"{', '.join(type(stage).__name__ for stage in stages) or 'none'}"
    )
