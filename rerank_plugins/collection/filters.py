"""The language of filters: conditions on metadata, read from dicts and evaluated by columns.

========================================  =================================================
``{"year": 2020}``, ``$eq``               equals; or, against a stored list, is in it
``{"year": [2020, 2021]}``, ``$in``       equals one of these; or a stored list holds one
``$ne``, ``$nin``                         not those; true of records without the field
``$gt``, ``$gte``, ``$lt``, ``$lte``      ordering; values that cannot be ordered are an error
``$contains``                             a stored list holds it, a stored text has it inside
``$exists``                               True or False: whether the record has the field
``$and``, ``$or``, ``$not``               of filters: a list, a list, one
========================================  =================================================

Several fields, or several operators on a field, must all hold. A record without the field
passes ``$ne``, ``$nin`` and ``{"$exists": False}`` alone. An operator that is not listed is an
error. The operators are MongoDB's, as in LangChain's stores.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.collection.columns import Column
from rerank_plugins.collection.records import Block
from rerank_plugins.errors import InvalidInputError

Mask = NDArray[np.bool_]
Operator = Literal[
    "exists", "eq", "in", "holds", "holds_any", "gt", "gte", "lt", "lte",
    "contains", "contains_any", "contains_all", "inside", "text", "text_insensitive", "empty",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on one field; false where a record does not have it.

    Attributes:
        field: Name of the metadata field.
        operator: ``exists``; ``eq`` and ``in`` by equality; ``holds`` and ``holds_any`` of
            stored lists; orderings; ``contains``, ``contains_any`` and ``contains_all`` of
            stored lists and texts; ``inside``, of the value; ``text`` and ``text_insensitive``
            of texts; ``empty``.
        value: What to compare with.
    """

    field: str
    operator: Operator
    value: Any = None


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; of no parts, true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds; of no parts, false."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """The part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the record's framework object, called for every living record."""

    function: Callable[[Any], Any]


Filter = Compare | Every | Either | Negated | Function


def read(given: Mapping[str, Any] | Callable[[Any], Any]) -> Filter:
    """A filter from a dict in the language above, or from a function.

    Raises:
        InvalidInputError: If it is neither, or an operator is unknown or has a wrong value.
    """
    if isinstance(given, Mapping):
        return Every(tuple(_condition(name, value) for name, value in given.items()))
    if callable(given):
        return Function(given)
    raise InvalidInputError(
        f"filter must be a dict of metadata or a function, but got {type(given).__name__}"
    )


def _condition(name: Any, value: Any) -> Filter:
    if name in ("$and", "$or"):
        parts = _listed(name, value)
        if not parts or not all(isinstance(part, Mapping) for part in parts):
            raise InvalidInputError(
                f"{name} must be a non-empty list of filters, but got {value!r}"
            )
        return (Every if name == "$and" else Either)(tuple(map(read, parts)))
    if name == "$not":
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"$not must be a filter, but got {value!r}")
        return Negated(read(value))
    if isinstance(name, str) and name.startswith("$"):
        raise _unknown(name)
    operators = _operators(value)
    if operators is None:
        return _either(name, value) if isinstance(value, list) else _equals(name, value)
    return Every(tuple(_operation(name, sign, operand) for sign, operand in operators.items()))


def _operators(value: Any) -> Mapping[str, Any] | None:
    """The value if it is a dict of operators; None if it is one to be equal to."""
    if not isinstance(value, Mapping):
        return None
    signs = [isinstance(name, str) and name.startswith("$") for name in value]
    if not any(signs):
        return None
    if not all(signs):
        raise InvalidInputError(
            f"a condition must be operators alone or a value alone, but got {dict(value)!r}"
        )
    return value


def _operation(field: str, sign: str, value: Any) -> Filter:
    if sign == "$not":
        operators = _operators(value)
        if operators is None:
            raise InvalidInputError(f"$not of a field must be a dict of operators, got {value!r}")
        return Negated(Every(tuple(_operation(field, *one) for one in operators.items())))
    if sign == "$exists":
        if not isinstance(value, bool):
            raise InvalidInputError(f"$exists must be True or False, but got {value!r}")
        there = Compare(field, "exists")
        return there if value else Negated(there)
    known = _SIGNS.get(sign)
    if known is None:
        raise _unknown(sign)
    return known(field, value)


def _equals(field: str, value: Any) -> Filter:
    return Either((Compare(field, "eq", value), Compare(field, "holds", value)))


def _either(field: str, value: Any) -> Filter:
    """A list as a value: one of these, or this very list."""
    return Either((Compare(field, "eq", value), _in(field, value)))


def _in(field: str, value: Any) -> Filter:
    wanted = _listed("$in", value)
    return Either((Compare(field, "in", wanted), Compare(field, "holds_any", wanted)))


def _ordered(name: Operator, field: str, value: Any) -> Filter:
    if value is None:
        raise InvalidInputError(f"${name} must have a value to compare with, but got None")
    return Compare(field, name, value)


_SIGNS: Final[dict[str, Callable[[str, Any], Filter]]] = {
    "$eq": _equals,
    "$ne": lambda field, value: Negated(_equals(field, value)),
    "$neq": lambda field, value: Negated(_equals(field, value)),  # langchain-community's FAISS
    "$gt": partial(_ordered, "gt"),
    "$gte": partial(_ordered, "gte"),
    "$lt": partial(_ordered, "lt"),
    "$lte": partial(_ordered, "lte"),
    "$in": _in,
    "$nin": lambda field, value: Negated(_in(field, _listed("$nin", value))),
    "$contains": lambda field, value: Compare(field, "contains", value),
}


def _listed(sign: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise InvalidInputError(f"{sign} must be a list, but got {value!r}")
    return list(value)


def _unknown(sign: str) -> InvalidInputError:
    known = [*_SIGNS, "$exists", "$and", "$or", "$not"]
    return InvalidInputError(f"filter operator {sign!r} is unknown; known are {', '.join(known)}")


def matching(part: Filter, block: Block, alive: Mask) -> Mask:
    """Which records of a block the filter keeps, shape (records,).

    Args:
        part: The filter.
        block: Some records.
        alive: Shape (records,); of the others nothing is asked, and any answer may come.

    Raises:
        InvalidInputError: If a value cannot be compared with what the filter wants.
    """
    if isinstance(part, Compare):
        return _compared(part, block, alive)
    if isinstance(part, Negated):
        return ~matching(part.part, block, alive)
    if isinstance(part, Function):
        return _tested(part, block, alive)
    every = isinstance(part, Every)
    found = np.full(len(block), every)
    for inner in part.parts:
        mask = matching(inner, block, alive)
        found = found & mask if every else found | mask
    return found


def _tested(part: Function, block: Block, alive: Mask) -> Mask:
    found = np.zeros(len(block), dtype=np.bool_)
    for at in np.flatnonzero(alive).tolist():
        record = block.records[at]
        found[at] = record is not None and bool(part.function(record.item))
    return found


def _compared(part: Compare, block: Block, alive: Mask) -> Mask:
    column, value = block.column(part.field), part.value
    direct = _DIRECT.get(part.operator)
    if direct is not None:
        return direct(column, value)
    if part.operator in _ORDERINGS and isinstance(value, (int, float)):
        found = column.compared(_TESTS[part.operator], value)
        if found is not None:
            return found
    return column.passing(_tester(part, block, alive, column), alive)


def _tester(part: Compare, block: Block, alive: Mask, column: Column) -> Callable[[Any], bool]:
    test = _TESTS[part.operator]

    def passes(stored: Any) -> bool:
        if stored is None:
            return False
        try:
            return bool(test(stored, part.value))
        except (AttributeError, TypeError, ValueError) as error:
            code = next(at for at, value in enumerate(column.values) if value is stored)
            at = int(np.flatnonzero(alive & (column.codes == code))[0])
            record = block.records[at]
            raise InvalidInputError(
                f"filter values must compare with the metadata of every record, but "
                f"{part.operator} {part.value!r} does not with {part.field!r} of record "
                f"{None if record is None else record.id!r}: {error}"
            ) from error

    return passes


def _text(stored: Any, wanted: Any) -> bool:
    if not isinstance(stored, str) or not isinstance(wanted, str):
        raise TypeError(f"both must be text, but {stored!r} and {wanted!r} are not")
    return wanted in stored


_DIRECT: Final[dict[str, Callable[[Column, Any], Mask]]] = {
    "exists": lambda column, _: column.has(),
    "eq": lambda column, wanted: column.equal([wanted]),
    "in": lambda column, wanted: column.equal(wanted),
    "holds": lambda column, wanted: column.holding([wanted]),
    "holds_any": lambda column, wanted: column.holding(wanted),
    "empty": lambda column, _: ~column.has() | column.equal([None, "", []]),
}
_ORDERINGS: Final = ("gt", "gte", "lt", "lte")
_TESTS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": lambda stored, wanted: wanted in stored,
    "contains_any": lambda stored, wanted: any(one in stored for one in wanted),
    "contains_all": lambda stored, wanted: all(one in stored for one in wanted),
    "inside": lambda stored, wanted: stored in wanted,
    "text": _text,
    "text_insensitive": lambda stored, wanted: _text(stored.lower(), wanted.lower()),
}
