"""``rerank-plugins rerank``: queries with their passages as JSON lines, rankings out."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from typing import Any, Final

from rerank_plugins._validation import check_count
from rerank_plugins.cli._io import EXIT_NOTHING_FOUND, TOP_N, read_lines, write_json
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import BUNDLED

_QUERIES_AT_A_TIME: Final = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins rerank``."""
    parser.add_argument("--model", default=BUNDLED, help=f"the reranker (default {BUNDLED})")
    parser.add_argument(
        *TOP_N, type=int, default=None, metavar="N", help="passages kept (default all)"
    )


def run(options: argparse.Namespace) -> int:
    """Reads requests from standard input and writes a ranking per line.

    Raises:
        RerankPluginsError: If a line, an option or the model failed.
    """
    from tqdm import tqdm

    from rerank_plugins.models.loading import load_reranker

    if options.top_n is not None:
        check_count("--top-n", options.top_n)
    reranker = load_reranker(options.model, top_n=options.top_n)
    lines = read_lines(sys.stdin, "standard input")
    requests = [_request(number, line) for number, line in lines]
    remaining = iter(requests)
    with tqdm(total=len(requests), unit="query", disable=None) as progress:
        while group := list(islice(remaining, _QUERIES_AT_A_TIME)):
            rankings = reranker.rerank_many(
                [query for query, _ in group], [[p["text"] for p in some] for _, some in group]
            )
            for ranking, (_, passages) in zip(rankings, group, strict=True):
                answer = ranking.to_dict()
                answer["results"] = [
                    {**passages[item.candidate.key], "index": item.candidate.key, **item.to_dict()}
                    for item in ranking
                ]
                write_json(answer)
            progress.update(len(group))
    return 0 if requests else EXIT_NOTHING_FOUND


def _request(number: int, record: Any) -> tuple[str, list[dict[str, Any]]]:
    """Query and passages of one line."""
    where = f"standard input, line {number}"
    if not isinstance(record, dict) or not isinstance(record.get("query"), str):
        raise InvalidInputError(f'{where}: each line must be an object with a text "query"')
    if not record["query"].strip():
        raise InvalidInputError(f"{where}: the query must not be blank")
    passages = record.get("passages")
    if not isinstance(passages, list):
        raise InvalidInputError(f'{where}: "passages" must be a list')
    out = []
    for position, passage in enumerate(passages):
        as_record = {"text": passage} if isinstance(passage, str) else passage
        if not isinstance(as_record, dict) or not isinstance(as_record.get("text"), str):
            raise InvalidInputError(
                f'{where}: passage {position} must be text or an object with a text "text"'
            )
        out.append(as_record)
    return record["query"], out
