"""Measures by ir-measures over rankings that are read as a stream."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_plugins._validation import check_id
from rerank_plugins.errors import InvalidInputError, MissingDependencyError

logger = logging.getLogger(__name__)

DEFAULT_MEASURES: Final = ("nDCG@10", "MRR@10", "Recall@10")

Qrels = Mapping[str, Mapping[str, float]]
"""By query id, the grade of each judged passage by passage id; above 0 is relevant."""

# What people call them, in lower case; any other name must be ir-measures' own.
_NAMES: Final = {
    "ndcg": "nDCG",
    "mrr": "RR",
    "map": "AP",
    "recall": "R",
    "precision": "P",
    "success": "Success",
}
_WRITTEN: Final = re.compile(r"([A-Za-z_]+)(?:@([1-9][0-9]*))?")
_QUERIES_AT_A_TIME: Final = 1000


@dataclass(frozen=True, slots=True)
class Values:
    """Each query's value of each measure.

    Attributes:
        query_ids: The judged queries, in the order of the judgements.
        by_measure: By the measure's name, shape (queries,), float64.
    """

    query_ids: tuple[str, ...]
    by_measure: Mapping[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """The mean over the queries by measure; 0.0 without queries."""
        return {
            name: float(values.mean()) if values.size else 0.0
            for name, values in self.by_measure.items()
        }


def parse_measures(names: Iterable[str]) -> dict[str, Any]:
    """ir-measures' measures by the names that tables show.

    Args:
        names: ``nDCG@10``, ``MRR@10``, ``MAP``, ``Recall@100``, ``P@5``, ``Success@1``; or any
            other name that ir-measures knows, with or without ``@k``.

    Raises:
        InvalidInputError: If a name is unknown, lacks a needed ``@k``, or comes twice; or the
            list is empty.
        MissingDependencyError: ir-measures is not installed.
    """
    if isinstance(names, str):
        raise InvalidInputError(f"measures must be a list of names, but got the text {names!r}")
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"evaluation needs {error.name}, which is not installed: "
            "pip install 'rerank-plugins[evaluation]'"
        ) from error
    known = ir_measures.measures.registry
    measures: dict[str, Any] = {}
    for name in names:
        found = _WRITTEN.fullmatch(name.strip()) if isinstance(name, str) else None
        own = found and _NAMES.get(found[1].lower(), found[1])
        if found is None or own not in known:
            raise InvalidInputError(
                "a measure must be written like nDCG@10, MRR@10, MAP, Recall@100, P@5 or "
                f"Success@1, but got {name!r}"
            )
        try:
            measure = known[own] if found[2] is None else known[own] @ int(found[2])
            measure.validate_params()
        except (TypeError, ValueError, AssertionError) as error:
            raise InvalidInputError(
                f"the measure {name!r} is not complete, or takes no cutoff ({error}): "
                "write for example Recall@100"
            ) from error
        if measure in measures.values():
            raise InvalidInputError(f"duplicate measure: {name!r}")
        measures[name.strip()] = measure
    if not measures:
        raise InvalidInputError("measures must hold at least one name, but got none")
    return measures


def evaluate_rankings(
    qrels: Qrels,
    rankings: Iterable[tuple[str, Sequence[str]]],
    measures: Iterable[str] = DEFAULT_MEASURES,
    *,
    queries_at_a_time: int = _QUERIES_AT_A_TIME,
) -> Values:
    """Evaluates a stream of rankings; memory does not grow with their number.

    A query that has judgements and no ranking counts as 0, as in trec_eval; a query without
    judgements is skipped, and the number is logged. The given order is the one that counts:
    ir-measures gets decreasing integers as scores, so neither its tie rule nor its rounding can
    change a rank.

    Args:
        qrels: The judgements; grades are whole numbers. One below 0 (spam, in some
            collections) counts as 0.
        rankings: Query id and passage ids, best first; read once.
        measures: See `parse_measures`.
        queries_at_a_time: How many rankings are held at once.

    Raises:
        InvalidInputError: If a query or a passage of one query occurs twice, a grade is not a whole
            number, or a measure is unknown.
        MissingDependencyError: ir-measures is not installed.
    """
    parsed = parse_measures(measures)
    row = {query: place for place, query in enumerate(qrels)}
    table = {name: np.zeros(len(row)) for name in parsed}
    seen = np.zeros(len(row), dtype=np.bool_)
    unjudged = 0
    rest = iter(rankings)
    with tqdm(total=len(row), desc="Evaluating", unit="query", disable=None, delay=1) as bar:
        while some := list(islice(rest, queries_at_a_time)):
            judged = [(query, ids) for query, ids in some if query in row]
            unjudged += len(some) - len(judged)
            for query, ids in judged:
                if seen[row[query]]:
                    raise InvalidInputError(
                        f"each query must have one ranking, but {query!r} has a second one "
                        "(sort a run's lines by query)"
                    )
                seen[row[query]] = True
                if len(set(ids)) < len(ids):
                    raise InvalidInputError(f"the ranking of query {query!r} has a passage twice")
            for query, name, value in _values(qrels, judged, parsed):
                table[name][row[query]] = value
            bar.update(len(judged))
    if unjudged:
        logger.info("%d rankings belong to queries without judgements: left out", unjudged)
    return Values(tuple(row), table)


def _values(
    qrels: Qrels, rankings: Sequence[tuple[str, Sequence[str]]], measures: Mapping[str, Any]
) -> Iterable[tuple[str, str, float]]:
    """Query, measure and value of each pair of them."""
    import ir_measures

    names = {measure: name for name, measure in measures.items()}
    grades = {
        check_id(query): {
            check_id(passage): _grade(query, grade) for passage, grade in qrels[query].items()
        }
        for query, _ in rankings
    }
    run = {
        # trec_eval keeps scores in single precision, where whole numbers to 2**24 are exact.
        query: {check_id(passage): float(len(ids) - place) for place, passage in enumerate(ids)}
        for query, ids in rankings
        if len(ids)
    }
    if not run:
        return
    for found in ir_measures.iter_calc(list(names), grades, run):
        yield found.query_id, names[found.measure], found.value


def _grade(query: str, grade: float) -> int:
    if grade != int(grade):
        raise InvalidInputError(
            f"grades must be whole numbers, but query {query!r} has a judgement of {grade}"
        )
    return max(0, int(grade))
