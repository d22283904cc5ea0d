"""The first stage's scores in documents' metadata: written when found, believed by the reranker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from rerank_plugins._validation import is_number

STAMPS: Final = ("retrieval_score", "retrieval_rank", "retrieval_method", "retrieval_list")


def stamps(
    found: Sequence[tuple[str | None, float | None]], query: str, method: str
) -> list[dict[str, Any]]:
    """What a first stage writes into the metadata of what it found, best first.

    ``retrieval_list`` says which query and which list the others belong to.

    Args:
        found: Ids and scores.
        query: What was asked.
        method: Name of the first stage.
    """
    mark = f"{_digest(query)}-{_digest(method + repr(list(found)))}"
    return [
        dict(zip(STAMPS, (score, rank, method, mark), strict=True))
        for rank, (_, score) in enumerate(found, start=1)
    ]


def believed(metadata: Sequence[Mapping[str, Any]], query: str) -> list[tuple[float | None, int]]:
    """First-stage score and rank of each document.

    The stamped ones if the stamps of all belong to one list and this query; else there is no
    score, and the position is the rank.
    """
    scores = [finite(one.get("retrieval_score")) for one in metadata]
    ranks = [_rank(one.get("retrieval_rank")) for one in metadata]
    if not _one_list(metadata, query, scores, ranks):
        return [(None, position) for position in range(1, len(metadata) + 1)]
    return [
        (score, position if rank is None else rank)
        for position, (score, rank) in enumerate(zip(scores, ranks, strict=True), start=1)
    ]


def finite(value: Any) -> float | None:
    """The value as a float; None if it is not a finite number."""
    return float(value) if is_number(value) else None


def _one_list(
    metadata: Sequence[Mapping[str, Any]],
    query: str,
    scores: Sequence[float | None],
    ranks: Sequence[int | None],
) -> bool:
    """Whether all stamps can be of one list: those of others may have no mark, or no ranks."""
    marks = {one.get("retrieval_list") for one in metadata}
    methods = {repr(one.get("retrieval_method")) for one in metadata}
    if len(marks) > 1 or len(methods) > 1:
        return False
    mark = marks.pop() if marks else None
    if mark is not None and str(mark).partition("-")[0] != _digest(query):
        return False
    known = [rank for rank in ranks if rank is not None]
    if known:
        return len(known) == len(ranks) == len(set(known))
    given = [score for score in scores if score is not None]
    return all(score >= following for score, following in pairwise(given))


def _rank(value: Any) -> int | None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if whole and int(value) >= 1 else None


def _digest(text: str) -> str:
    return hashlib.blake2b(text.strip().encode(errors="replace"), digest_size=6).hexdigest()
