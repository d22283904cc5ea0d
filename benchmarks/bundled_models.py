"""The bundled models on one machine: milliseconds a question, passages a second, megabytes.

    python benchmarks/bundled_models.py --data DIR [--questions 20] [--candidates 50]

Questions and passages are those of four evaluation sets, one of each in turn; candidates are
BM25's first. "known" asks the same questions again of a scorer that has read their passages.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from _common import SETS, machine
from first_stage_scale import lines

from rerank_plugins import Cascade, Reranker, load_reranker
from rerank_plugins.bundled import BundledEncoder, StaticEncoder
from rerank_plugins.first_stage import BM25
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.vectors import VectorScorer

FOLDER = Path(sys.modules[BundledEncoder.__module__].__file__ or "").parent
HEAD = 10  # of the vectors' order, that the cascade's cross-encoder reads
# What a process has in memory once the model has answered, less what it had before.
MEMORY = """
import sys, psutil, numpy, torch, tokenizers, rerank_plugins
from rerank_plugins import load_reranker
from rerank_plugins.bundled import load_encoder
before = psutil.Process().memory_info().rss
name = sys.argv[1]
if name == "bundled":
    load_reranker(name).rerank("Who?", ["a", "b"])
else:
    load_encoder(name).encode_query(["Who?"])
print((psutil.Process().memory_info().rss - before) / 1e6)
"""

Asked = tuple[str, list[str]]


def questions(data: Path, number: int, candidates: int) -> list[Asked]:
    """Questions of the sets in turn, each with BM25's first passages."""
    by_set: list[list[Asked]] = []
    for name in SETS:
        texts = [line["text"] for line in lines(data / name / "corpus.jsonl.gz")]
        found = BM25(texts, language=name.split("/")[0].rsplit("-", 1)[-1])
        asked = [line["text"] for line in lines(data / name / "queries.jsonl.gz")]
        by_set.append(
            [
                (query, [texts[hit.key] for hit in found.search(query, candidates)])
                for query in asked[: -(-number // len(SETS))]
            ]
        )
    return list(chain.from_iterable(zip(*by_set, strict=True)))[:number]


def milliseconds(call: Callable[[str, Sequence[str]], Any], asked: Sequence[Asked]) -> float:
    """Median time of a call."""
    taken = []
    for query, passages in asked:
        start = time.perf_counter()
        call(query, passages)
        taken.append(1000 * (time.perf_counter() - start))
    return median(taken)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=50)
    options = parser.parse_args()
    asked = questions(options.data, options.questions, options.candidates)
    encoder = BundledEncoder()
    scorer = VectorScorer(encoder)
    vectors = Reranker(scorer, deduplicate=False)
    crossed = load_reranker("bundled", deduplicate=False)
    cascade = Cascade(vectors, crossed, head=HEAD)
    encoder.encode_query(["warm up"])
    crossed.warm_up()
    print(f"| one question, {options.candidates} passages | median ms |\n|---|---|")
    print(f"| vectors, passages new | {milliseconds(vectors.rerank, asked):.0f} |")
    scorer.score([(query, text) for query, texts in asked for text in texts], ScoreOptions())
    # A different question each time: its vector is not known, the passages' are.
    again, last = ([(query + mark, texts) for query, texts in asked] for mark in (" ?", " ??"))
    print(f"| vectors, passages known | {milliseconds(vectors.rerank, again):.1f} |")
    print(f"| then the cross-encoder over {HEAD} | {milliseconds(cascade.rerank, last):.0f} |")
    print(f"| the cross-encoder over all | {milliseconds(crossed.rerank, asked):.0f} |")
    texts = list(dict.fromkeys(text for _, found in asked for text in found))
    print("\n| model | passages/s | MB on disk | MB in memory |\n|---|---|---|---|")
    for name, model in (("encoder", encoder), ("static", StaticEncoder.default())):
        start = time.perf_counter()
        model.encode(texts)
        print(row(name, f"{len(texts) / (time.perf_counter() - start):.0f}"))
    print(row("reranker", ""))
    print(f"\n{len(asked)} questions, {len(texts)} passages; {machine()}")


def row(folder: str, speed: str) -> str:
    """A model's line of the second table."""
    name = "bundled" if folder == "reranker" else f"bundled-{folder}"
    disk = sum(file.stat().st_size for file in (FOLDER / folder).iterdir()) / 1e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, name], capture_output=True, text=True, check=True
    )
    return f"| {name} | {speed} | {disk:.1f} | {json.loads(done.stdout.splitlines()[-1]):.0f} |"


if __name__ == "__main__":
    main()
