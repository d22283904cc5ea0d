"""``rerank-plugins``: search a corpus, rerank JSON lines, list the models, train, evaluate.

Results go to standard output and nothing else does. Exit codes: 0 done, 1 nothing found,
2 bad input or usage, 3 a model could not be had or failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rerank_plugins import __version__
from rerank_plugins.catalog import CATALOG, EMBEDDED
from rerank_plugins.errors import InvalidInputError, ModelError, RerankPluginsError, ScoringError
from rerank_plugins.evaluation import command as evaluation_command
from rerank_plugins.training import command

EXIT_NOTHING_FOUND = 1
EXIT_BAD_INPUT = 2
EXIT_MODEL = 3

_QUERIES_AT_A_TIME = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ModelError, ScoringError) as error:
        return _fail(error, EXIT_MODEL)
    except (RerankPluginsError, OSError) as error:
        return _fail(error, EXIT_BAD_INPUT)
    except BrokenPipeError:
        return 0


def _fail(error: Exception, code: int) -> int:
    print(f"rerank-plugins: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rerank-plugins", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    search = commands.add_parser("search", help="search a corpus of JSON lines and rerank")
    search.add_argument("--corpus", type=Path, required=True, help='lines of {"text": ...}')
    search.add_argument("--query", required=True)
    search.add_argument("--first-stage", choices=("bm25", "faiss", "hybrid"), default="bm25")
    search.add_argument("--model", default=EMBEDDED)
    search.add_argument("--top-k", type=int, default=5, help="passages printed (default 5)")
    search.add_argument("--candidates", type=int, default=50, help="passages scored (default 50)")
    search.add_argument("--language", choices=("auto", "ar", "fr", "pl", "en"), default="auto")
    search.add_argument("--json", action="store_true", help="one JSON object a line")
    search.set_defaults(run=_search)

    rerank = commands.add_parser(
        "rerank",
        help='JSON lines in and out: {"query": ..., "passages": [text or {"text": ...}, ...]}',
    )
    rerank.add_argument("--model", default=EMBEDDED)
    rerank.add_argument("--top-k", type=int, default=None, help="passages kept (default all)")
    rerank.set_defaults(run=_rerank)

    models = commands.add_parser("models", help="the models that load by name")
    models.add_argument("--json", action="store_true", help="one JSON object a line")
    models.set_defaults(run=_models)

    demo = commands.add_parser("demo", help="the main job on the sample corpus")
    demo.add_argument("--model", default=EMBEDDED)
    demo.set_defaults(run=_demo)

    train = commands.add_parser("train", help="tune a cross-encoder on your own questions")
    command.add_arguments(train)
    train.set_defaults(run=command.run)

    evaluate = commands.add_parser(
        "evaluate", help="compare first stages and rerankers on your own questions"
    )
    evaluation_command.add_arguments(evaluate)
    evaluate.set_defaults(run=evaluation_command.run)
    return parser


def _search(options: argparse.Namespace) -> int:
    from rerank_plugins.candidates import check_query
    from rerank_plugins.loading import load_reranker
    from rerank_plugins.ordering import check_count

    check_query(options.query)
    check_count("--top-k", options.top_k)
    check_count("--candidates", options.candidates)
    reranker = load_reranker(options.model, top_n=options.top_k)
    records = read_records(options.corpus)
    first_stage = _first_stage(options, [record["text"] for record in records])
    start = time.perf_counter()
    found = first_stage.search(options.query, options.candidates)
    ranking = reranker.rerank(options.query, found, first_stage_seconds=time.perf_counter() - start)
    for item in ranking:
        record = records[item.candidate.key]
        if options.json:
            _write({**record, **item.to_dict(), "id": record.get("id", item.candidate.key)})
        else:
            print(
                f"{item.rank:>3}  {item.score:.4f}  (first stage: {item.candidate.rank})  "
                f"{record.get('id', item.candidate.key)}\n     {' '.join(item.text.split())}"
            )
    return 0 if ranking else EXIT_NOTHING_FOUND


def _first_stage(options: argparse.Namespace, texts: list[str]) -> Any:
    from rerank_plugins.first_stage.bm25 import BM25
    from rerank_plugins.first_stage.dense import Dense
    from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Hybrid

    if options.first_stage == "faiss":
        return Dense(texts)
    bm25 = BM25(texts, language=options.language)
    if options.first_stage == "bm25":
        return bm25
    return Hybrid([bm25, Dense(texts)], weights=SHIPPED_WEIGHTS)


def _rerank(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from rerank_plugins.loading import load_reranker
    from rerank_plugins.ordering import check_count

    if options.top_k is not None:
        check_count("--top-k", options.top_k)
    reranker = load_reranker(options.model, top_n=options.top_k)
    requests = [_request(number, line) for number, line in _lines(sys.stdin, "standard input")]
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
                _write(answer)
            progress.update(len(group))
    return 0 if requests else EXIT_NOTHING_FOUND


def _request(number: int, record: Any) -> tuple[str, list[dict[str, Any]]]:
    """Query and passages of one line of ``rerank``."""
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


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, each with a text ``text``.

    Raises:
        InvalidInputError: A line is no such object; the message has its number.
        OSError: The file cannot be read.
    """
    records = []
    with path.open(encoding="utf-8") as file:
        for number, record in _lines(file, str(path)):
            if not isinstance(record, dict) or not isinstance(record.get("text"), str):
                raise InvalidInputError(
                    f'{path}, line {number}: each line must be an object with a text "text"'
                )
            records.append(record)
    return records


def _lines(file: TextIO, name: str) -> list[tuple[int, Any]]:
    """Line numbers and parsed values; blank lines are passed over."""
    from tqdm import tqdm

    parsed = []
    try:
        for number, line in enumerate(tqdm(file, unit="line", disable=None, leave=False), start=1):
            if line.strip():
                parsed.append((number, json.loads(line)))
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{name}, line {number}: not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8 text: {error}") from error
    return parsed


def _models(options: argparse.Namespace) -> int:
    if options.json:
        for profile in CATALOG.values():
            _write(
                {
                    "name": profile.name,
                    "languages": list(profile.languages),
                    "shape": profile.shape,
                    "max_length": profile.max_length,
                    "licence": profile.licence,
                    "headline": profile.headline,
                    "note": profile.note,
                }
            )
        return 0
    from tabulate import tabulate

    rows = [
        (p.name, " ".join(p.languages), p.shape, p.max_length, p.licence, p.headline)
        for p in CATALOG.values()
    ]
    headers = ["name", "languages", "layers x hidden", "tokens", "licence", "card's figure"]
    print(tabulate(rows, headers=headers))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from rerank_plugins.demo import demo

    for text in demo(options.model):
        print(text)
    return 0


def _write(record: dict[str, Any]) -> None:
    line = json.dumps(record, ensure_ascii=False)
    try:
        print(line, flush=True)
    except UnicodeEncodeError:  # a lone surrogate, or a terminal that is not UTF-8
        print(json.dumps(record), flush=True)
