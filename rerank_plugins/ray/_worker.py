"""What runs in Ray's workers: batches of queries reranked by one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray import cloudpickle

from rerank_plugins import errors
from rerank_plugins._validation import check_id
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError, RerankPluginsError
from rerank_plugins.ray._schema import FAILURE, WORKER_SCHEMA, can_be_ids, query_ids
from rerank_plugins.reranking.reranker import Reranker


class Worker:
    """A Ray actor that holds the model."""

    def __init__(self, pickled: bytes, top_n: int | None) -> None:
        self.reranker: Reranker = cloudpickle.loads(pickled)
        self.top_n = top_n

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The results; or one row with the error, because Ray would lose its class."""
        try:
            rows = self._rows(batch)
        except RerankPluginsError as error:
            known = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
            failed = {field.name: None for field in WORKER_SCHEMA}
            rows = [failed | {FAILURE: [known.__name__, str(error)]}]
        return pa.Table.from_pylist(rows, schema=WORKER_SCHEMA)

    def _rows(self, batch: pa.Table) -> list[dict[str, Any]]:
        ids = [check_id(name) for name in query_ids(batch).to_pylist()]
        queries = batch.column("query").to_pylist()
        listed = [
            _candidates(query_id, some)
            for query_id, some in zip(ids, batch.column("candidates").to_pylist(), strict=True)
        ]
        for query_id, query in zip(ids, queries, strict=True):
            if not isinstance(query, str) or not query.strip():
                raise InvalidInputError(
                    f"query must be non-blank text, but query_id {query_id!r} has {query!r}"
                )
        rankings = self.reranker.rerank_many(
            queries, [candidates for _, candidates in listed], top_n=self.top_n
        )
        return [
            _row(query_id, ranking, names)
            for query_id, ranking, (names, _) in zip(ids, rankings, listed, strict=True)
        ]


def _row(query_id: str, ranking: Ranking, names: list[str]) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "ids": [names[item.candidate.key] for item in ranking],
        "scores": [item.score for item in ranking],
        "logits": [item.logit for item in ranking],
        "scale": ranking.scale,
        "model": ranking.model,
        "candidates": ranking.candidates,
        "truncated": ranking.truncated,
        "error": ranking.error,
    }


def _candidates(query_id: str, given: object) -> tuple[list[str], list[Candidate]]:
    """Ids and candidates of one row."""
    names, candidates = [], []
    if not isinstance(given, list):
        raise InvalidInputError(
            f"candidates must be a list, but that of query_id {query_id!r} is "
            f"{type(given).__name__}"
        )
    for position, one in enumerate(given):
        where = f"candidate {position} of query_id {query_id!r}"
        if not isinstance(one, Mapping) or not isinstance(one.get("text"), str):
            raise InvalidInputError(f"{where} must have an id and a text, but got {one!r}")
        name, score = one.get("id"), one.get("score")
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise InvalidInputError(f"{where}: id must be text or a whole number, not {name!r}")
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise InvalidInputError(f"{where}: score must be a number or null, but got {score!r}")
        names.append(check_id(str(name)))
        candidates.append(
            Candidate(
                key=position,
                text=one["text"],
                score=None if score is None else float(score),
                rank=position + 1,
            )
        )
    return names, candidates


def without(done: Iterable[str]) -> Callable[[pa.Table], pa.Table]:
    """Drops rows whose queries are done; rows with an invalid id are left to the worker."""
    known = pa.array(sorted(done), type=pa.string())

    def skip(batch: pa.Table) -> pa.Table:
        ids = batch.column("query_id")
        if not len(known) or not can_be_ids(ids.type):
            return batch
        return batch.filter(pc.invert(pc.is_in(ids.cast(pa.string()), value_set=known)))

    return skip
