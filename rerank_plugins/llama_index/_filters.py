"""MetadataFilters as the collection's filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rerank_plugins.collection import Compare, Either, Every, Filter, Negated
from rerank_plugins.collection.filters import Operator
from rerank_plugins.errors import InvalidInputError

_OPERATORS: dict[FilterOperator, Operator] = {
    FilterOperator.EQ: "eq",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.CONTAINS: "contains",
    FilterOperator.ANY: "contains_any",
    FilterOperator.ALL: "contains_all",
    FilterOperator.TEXT_MATCH: "text",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text_insensitive",
    FilterOperator.IS_EMPTY: "empty",
}


def read_filters(filters: MetadataFilters | None) -> Filter | None:
    """Filters that mean what they mean in LlamaIndex's own in-memory store.

    That knows the source document as ``doc_id``, ``document_id`` and ``ref_doc_id`` beside the
    metadata; here, filters may also stand inside filters.

    Raises:
        InvalidInputError: If it is not MetadataFilters, or an operator is unknown.
    """
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise InvalidInputError(
            f"filters must be MetadataFilters, but got {type(filters).__name__}"
        )
    parts = tuple(inner for part in filters.filters if (inner := _part(part)) is not None)
    if parts and filters.condition is FilterCondition.OR:
        return Either(parts)
    if filters.condition is FilterCondition.NOT:
        return Negated(Either(parts))
    return Every(parts)


def both(one: MetadataFilters | None, other: MetadataFilters | None) -> MetadataFilters | None:
    """Filters that ask for both; flat where they can be, for stores that know no others."""
    if one is None or other is None:
        return other if one is None else one
    flat = [
        part.filters if part.condition in (FilterCondition.AND, None) else [part]
        for part in (one, other)
    ]
    return MetadataFilters(filters=[*flat[0], *flat[1]])


def _part(part: MetadataFilter | MetadataFilters) -> Filter | None:
    if isinstance(part, MetadataFilters):
        return read_filters(part)
    field, value = part.key, part.value
    # To that store, None and a missing field are the same, and equal to nothing.
    empty = Either((Negated(Compare(field, "exists")), Compare(field, "eq", None)))
    if part.operator is FilterOperator.NE:
        return Either((empty, Negated(Compare(field, "eq", value))))
    if part.operator in (FilterOperator.IN, FilterOperator.NIN):
        wanted = _among(field, value)
        found = Every((wanted, Negated(empty)))
        return found if part.operator is FilterOperator.IN else Negated(found)
    known = _OPERATORS.get(part.operator)
    if known is None:
        raise InvalidInputError(f"filter operator {part.operator!r} is unknown")
    compared = Compare(field, known, value)
    return compared if known == "empty" else Every((compared, Negated(empty)))


def _among(field: str, value: Any) -> Filter:
    if isinstance(value, str):  # Python's: a text is in a longer one
        return Compare(field, "inside", value)
    if not isinstance(value, list):
        raise InvalidInputError(f"filter {field!r}: 'in' must have a list, but got {value!r}")
    return Compare(field, "in", value)
