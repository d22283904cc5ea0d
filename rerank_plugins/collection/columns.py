"""One metadata field of a block of records, indexed for filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError

Mask = NDArray[np.bool_]

# Whole numbers up to here are exact as floats.
_EXACT: Final = 1 << 53
_COLLECTIONS: Final = (list, tuple, set, frozenset)


class Column:
    """The distinct values of a field, and which record has which.

    Args:
        field: Its name.
        records: The metadata of each record; None for one that is gone.

    Attributes:
        field: Its name.
        codes: Shape (records,), the place of each record's value in ``values``; 0 for none.
        values: The distinct values; the first stands for records without the field.
        numbers: Shape (values,), as float64, NaN for None and for records without the field;
            None if some value is not a number, or not exact as a float.
    """

    def __init__(self, field: str, records: Sequence[Mapping[str, Any] | None]) -> None:
        self.field = field
        self.values: list[Any] = [None]
        self._codes: dict[Any, int] = {}
        self._holders: dict[Any, list[int]] = {}
        self.codes = np.fromiter(
            (0 if one is None else self._code(one) for one in records), np.int32, len(records)
        )
        self.numbers = _numbers(self.values)

    def has(self) -> Mask:
        """Which records have the field, shape (records,)."""
        return np.asarray(self.codes != 0)

    def equal(self, wanted: Iterable[Any]) -> Mask:
        """Which records' values equal one of these."""
        return self._where(self._codes.get(_key(self.field, one), 0) for one in wanted)

    def holding(self, wanted: Iterable[Any]) -> Mask:
        """Which records' values are lists (or tuples, or sets) that hold one of these."""
        held = (self._holders.get(_key(self.field, one), ()) for one in wanted)
        return self._where(code for codes in held for code in codes)

    def compared(self, compare: Callable[[Any, Any], Any], wanted: float) -> Mask | None:
        """An ordering of numbers at once; None if these values need it one by one."""
        if self.numbers is None or abs(wanted) > _EXACT:
            return None
        # A comparison with NaN is false, as it is to be for None and missing values.
        return np.asarray(compare(self.numbers, wanted)[self.codes])

    def passing(self, test: Callable[[Any], bool], alive: Mask) -> Mask:
        """Which of the living records have a value that passes a test; called once per value."""
        table = np.zeros(len(self.values), dtype=np.bool_)
        for code in np.unique(self.codes[alive]).tolist():
            if code:
                table[code] = bool(test(self.values[code]))
        return np.asarray(table[self.codes])

    def _where(self, codes: Iterable[int]) -> Mask:
        found = sorted({code for code in codes if code})
        if not found:
            return np.zeros(len(self.codes), dtype=np.bool_)
        if len(found) == 1:
            return np.asarray(self.codes == found[0])
        table = np.zeros(len(self.values), dtype=np.bool_)
        table[found] = True
        return np.asarray(table[self.codes])

    def _code(self, metadata: Mapping[str, Any]) -> int:
        if self.field not in metadata:
            return 0
        value = metadata[self.field]
        key = _key(self.field, value)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self.values)
            self.values.append(value)
            if isinstance(value, _COLLECTIONS):
                for held in {_key(self.field, one) for one in value}:
                    self._holders.setdefault(held, []).append(code)
        return code


class _Marked(tuple[Any, ...]):
    """A list as a key: equal to a list of equal elements, to no tuple."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Marked) and tuple.__eq__(self, other)

    __hash__ = tuple.__hash__


def _key(field: str, value: Any) -> Any:
    """What equal values have in common and others have not, to look them up by.

    Raises:
        InvalidInputError: If the value is neither hashable nor made of lists, dicts and sets.
    """
    if isinstance(value, list):
        return _Marked(_key(field, one) for one in value)
    if isinstance(value, dict):
        return _Marked(("{}", frozenset((name, _key(field, one)) for name, one in value.items())))
    if isinstance(value, set):
        return frozenset(value)
    try:
        hash(value)
    except TypeError as error:
        raise InvalidInputError(
            f"metadata to filter by must be plain data, but {field!r} is or holds "
            f"{type(value).__name__}"
        ) from error
    return value if value == value else object()  # noqa: PLR0124  (NaN equals nothing)


def _numbers(values: list[Any]) -> NDArray[np.float64] | None:
    numbers = [np.nan if one is None else one for one in values]
    if not all(isinstance(one, (int, float)) and not abs(one) > _EXACT for one in numbers):
        return None
    return np.asarray(numbers, dtype=np.float64)
