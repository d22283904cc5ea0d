"""What a reranker is given, checked before any work, and what a trace notes of its work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rerank_plugins._validation import check_iterable
from rerank_plugins.candidates import Candidate, Ranking, as_candidates, check_query
from rerank_plugins.errors import InvalidInputError


def either(
    passages: Iterable[Candidate | str] | None, documents: Iterable[Candidate | str] | None
) -> Iterable[Candidate | str]:
    """What was given under one of the two names."""
    if documents is None:
        return check_iterable("passages", passages)
    if passages is not None:
        raise InvalidInputError("give either passages or documents: they are two names of one")
    return documents


def checked_lists(
    queries: Sequence[str], passages: Sequence[Iterable[Candidate | str]]
) -> tuple[list[str], list[list[Candidate]]]:
    """The queries, and the candidates of each."""
    if isinstance(queries, str):
        raise InvalidInputError(
            "queries must be a list of texts, but got one string; rerank() takes one query"
        )
    queries = list(check_iterable("queries", queries))
    passages = list(check_iterable("passages", passages))
    if len(queries) != len(passages):
        raise InvalidInputError(
            f"rerank_many needs one list of passages per query, but got {len(queries)} queries "
            f"and {len(passages)} lists"
        )
    for query in queries:
        check_query(query)
    return queries, [as_candidates(some) for some in passages]


def without_duplicates(candidates: list[Candidate]) -> list[Candidate]:
    """The first of the candidates with each text."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return list(first.values())


def ranking_facts(rankings: list[Ranking], reranker: object, *_: object) -> dict[str, Any]:
    """What a trace notes of rankings."""
    return {
        "model": getattr(reranker, "model", ""),
        "queries": len(rankings),
        "candidates": sum(ranking.candidates for ranking in rankings),
        "scored": sum(ranking.scored for ranking in rankings),
        "truncated": sum(ranking.truncated for ranking in rankings),
        "failed": sum(ranking.error is not None for ranking in rankings),
        "query": [ranking.query for ranking in rankings],
        "passages": [item.text for ranking in rankings for item in ranking],
    }
