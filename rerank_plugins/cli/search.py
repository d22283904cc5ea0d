"""``rerank-plugins search``: a first stage over a corpus of JSON lines, then a reranker."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from rerank_plugins._validation import check_count
from rerank_plugins.candidates import check_query
from rerank_plugins.cli._io import EXIT_NOTHING_FOUND, TOP_N, read_records, say, write, write_json
from rerank_plugins.models.catalog import BUNDLED

# Nothing is kept from one call to the next, and the encoder reads tens of passages per second.
_HYBRID_UP_TO: Final = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins search``."""
    parser.add_argument("--corpus", type=Path, required=True, help='lines of {"text": ...}')
    parser.add_argument("--query", required=True, help="the question")
    parser.add_argument(
        "--first-stage",
        choices=("auto", "bm25", "faiss", "hybrid"),
        default="auto",
        help="what finds the candidates; auto (default): hybrid up to "
        f"{_HYBRID_UP_TO} passages, which takes seconds, else bm25",
    )
    parser.add_argument("--model", default=BUNDLED, help=f"the reranker (default {BUNDLED})")
    parser.add_argument(
        *TOP_N, type=int, default=5, metavar="N", help="passages printed (default 5)"
    )
    parser.add_argument(
        "--candidates", type=int, default=50, metavar="N", help="passages scored (default 50)"
    )
    parser.add_argument(
        "--language",
        choices=("auto", "ar", "fr", "pl", "en"),
        default="auto",
        help="of the corpus (default: detected per passage)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(options: argparse.Namespace) -> int:
    """Searches, reranks and prints the best passages.

    Raises:
        RerankPluginsError: If the corpus, an option or the model failed.
    """
    from rerank_plugins.models.loading import load_reranker

    check_query(options.query)
    check_count("--top-n", options.top_n)
    check_count("--candidates", options.candidates, minimum=1)
    reranker = load_reranker(options.model, top_n=options.top_n)
    records = read_records(options.corpus)
    first_stage = _first_stage(options, [record["text"] for record in records])
    start = time.perf_counter()
    found = first_stage.search(options.query, options.candidates)
    ranking = reranker.rerank(options.query, found, first_stage_seconds=time.perf_counter() - start)
    for item in ranking:
        record = records[item.candidate.key]
        name = record.get("id", record.get("_id", item.candidate.key))
        if options.json:
            write_json({**record, **item.to_dict(), "id": name})
        else:
            write(
                f"{item.rank:>3}  {item.score:.4f}  (first stage: {item.candidate.rank})  "
                f"{name}\n     {' '.join(item.text.split())}"
            )
    if not found:
        say(
            f"no passage of {options.corpus} matches the query; try --first-stage hybrid, which "
            "also finds passages that share no word with it"
        )
    return 0 if ranking else EXIT_NOTHING_FOUND


def _first_stage(options: argparse.Namespace, texts: list[str]) -> Any:
    from rerank_plugins.first_stage.bm25 import BM25
    from rerank_plugins.first_stage.dense import Dense
    from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Hybrid

    chosen = options.first_stage
    if chosen == "auto":
        chosen = "hybrid" if len(texts) <= _HYBRID_UP_TO else "bm25"
    if chosen == "faiss":
        return Dense(texts)
    bm25 = BM25(texts, language=options.language)
    if chosen == "bm25":
        return bm25
    return Hybrid([bm25, Dense(texts)], weights=SHIPPED_WEIGHTS)
