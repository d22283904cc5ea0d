"""Records: what a collection holds, in immutable blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from rerank_plugins._lazy import lazy
from rerank_plugins._validation import check_iterable
from rerank_plugins.collection.columns import Column
from rerank_plugins.errors import InvalidInputError

T = TypeVar("T")

LONGEST_ID: Final = 4096
"""Characters of an id."""


@dataclass(frozen=True, slots=True)
class Record:
    """One document or node.

    Attributes:
        id: What it is replaced and deleted by; None where it has no id.
        text: What is searched.
        metadata: What it is filtered by.
        item: The framework's object, the collection's own copy of it.
        vector: Embeddings that came with it, shape (d,) or (m, d); None to have the text
            embedded.
        hidden: Whether no search may return it, as when it has neither text nor vector.
    """

    id: str | None
    text: str
    metadata: Mapping[str, Any]
    item: Any = None
    vector: Any = None
    hidden: bool = False


class Block:
    """Records under consecutive keys. Immutable but for what is computed once from it.

    Attributes:
        start: The first key.
        records: By key, from ``start``; None where one was dropped.
    """

    def __init__(self, start: int, records: Sequence[Record | None]) -> None:
        self.start = start
        self.records = tuple(records)
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getstate__(self) -> dict[str, Any]:
        return {"start": self.start, "records": self.records, "_columns": {}}

    @lazy
    def keys(self) -> dict[str, int]:
        """Keys by id; the last of several with the same id."""
        listed = enumerate(self.records, self.start)
        return {one.id: key for key, one in listed if one is not None and one.id is not None}

    @lazy
    def held(self) -> int:
        """How many records are in it."""
        return sum(one is not None for one in self.records)

    @lazy
    def hidden(self) -> list[int]:
        """Keys of the records that no search may return."""
        listed = enumerate(self.records, self.start)
        return [key for key, one in listed if one is not None and one.hidden]

    def column(self, field: str) -> Column:
        """The values of a metadata field, indexed when they are first asked for."""
        column = self._columns.get(field)
        if column is None:
            # Two threads may both make it: they make the same.
            listed = [None if one is None else one.metadata for one in self.records]
            column = self._columns[field] = Column(field, listed)
        return column


def check_id(value: object) -> str:
    """The id as text; a whole number becomes its digits.

    Raises:
        InvalidInputError: If it is neither, is empty or longer than `LONGEST_ID`, or holds half
            of a surrogate pair, which UTF-8 cannot encode.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidInputError(f"every id must be text, but one is {type(value).__name__}")
    if not 0 < len(value) <= LONGEST_ID:
        raise InvalidInputError(
            f"every id must have 1 to {LONGEST_ID} characters, but one has {len(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"every id must be encodable as UTF-8: {error}") from error
    # Without the subclass, as that of an Enum: what is stored comes back equal.
    return str(value)


def check_ids(ids: object) -> list[str]:
    """The ids, each once, in the order given.

    Raises:
        InvalidInputError: If it is not a list, or as in `check_id`.
    """
    return list(dict.fromkeys(map(check_id, check_iterable("ids", ids))))


def own(value: T) -> T:
    """A deep copy of metadata; plain data is copied without the detour of `copy.deepcopy`.

    Raises:
        InvalidInputError: If a value cannot be copied.
    """
    try:
        return cast("T", _copied(value))
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"metadata must be data that can be copied, but copying failed: {error}"
        ) from error


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {name: _copied(held) for name, held in value.items()}
    if kind is list:
        return [_copied(held) for held in value]
    return copy.deepcopy(value)


_ATOMS: Final = frozenset({str, int, float, bool, type(None), bytes})


def newest(records: Iterable[Record]) -> list[Record]:
    """The records without those that a later one of the list replaces."""
    listed = list(records)
    last = {one.id: place for place, one in enumerate(listed)}
    return [one for place, one in enumerate(listed) if one.id is None or last[one.id] == place]
