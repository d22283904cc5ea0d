"""Filters that a language model writes, for LangChain's SelfQueryRetriever."""

from __future__ import annotations

from typing import Any

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)


class FilterTranslator(Visitor):
    """Translates structured queries into the filters that this package's retrievers take.

    ::

        SelfQueryRetriever.from_llm(
            llm, store, "Museum pages", fields, structured_query_translator=FilterTranslator()
        )
    """

    allowed_operators = (Operator.AND, Operator.OR, Operator.NOT)
    allowed_comparators = tuple(one for one in Comparator if one is not Comparator.LIKE)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """``$and``, ``$or`` or ``$not`` of what the parts translate to."""
        self._validate_func(operation.operator)
        parts = [part.accept(self) for part in operation.arguments]
        if operation.operator is not Operator.NOT:
            return {f"${operation.operator.value}": parts}
        return {"$not": parts[0] if len(parts) == 1 else {"$and": parts}}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """One condition on a field; of dates, the ISO 8601 text is compared."""
        self._validate_func(comparison.comparator)
        value, name = comparison.value, comparison.comparator.value
        if isinstance(value, dict) and value.get("type") in ("date", "datetime"):
            value = value[value["type"]]
        sign = "$contains" if comparison.comparator is Comparator.CONTAIN else f"${name}"
        if sign in ("$in", "$nin") and not isinstance(value, list):
            value = [value]
        return {comparison.attribute: {sign: value}}

    def visit_structured_query(
        self, structured_query: StructuredQuery
    ) -> tuple[str, dict[str, Any]]:
        """The query's words, and the arguments for the search."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}
