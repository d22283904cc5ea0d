"""The bundled models on one machine: milliseconds a question, passages a second, megabytes.

    python benchmarks/bundled_models.py --data DIR [--questions 20] [--candidates 50]
    OMP_NUM_THREADS=1 python benchmarks/bundled_models.py --data DIR --encoder [--rounds 5]

Questions and passages are those of four evaluation sets, one of each in turn; candidates are
BM25's first. "known" asks the same questions again of a scorer that has read their passages.
With `--encoder` the text encoder alone, by engine and precision: passages of 20 to 120 words and
questions one by one, all in turn, and a new process with its first question. Seconds are the
processor's, which other work on the machine changes little; vectors are compared with torch's
in fp32.
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

import numpy as np
from _common import SETS, machine
from first_stage_scale import lines

from rerank_plugins import Cascade, Reranker, load_reranker
from rerank_plugins.bundled import BundledEncoder, StaticEncoder
from rerank_plugins.first_stage import BM25
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.engines import native_bf16
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

# A new process and its first vector: processor seconds, and megabytes that it has to itself.
FIRST = """
import sys, time, psutil
from rerank_plugins.bundled import BundledEncoder
encoder = BundledEncoder(engine=sys.argv[1], precision=sys.argv[2])
encoder.encode_query(["Who?"])
print(time.process_time(), psutil.Process().memory_full_info().uss / 1e6)
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


def encoder_engines(asked: Sequence[Asked], rounds: int) -> None:
    """Prints the table of the text encoder by engine and precision."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(text.split()[: rng.integers(20, 121)]) for _, found in asked for text in found
    ]
    ways = [("torch", "fp32"), ("torch", "bf16"), ("torch", "int8"),
            ("openvino", "fp32"), ("openvino", "bf16")]  # fmt: skip
    ways = [way for way in ways if way[1] != "bf16" or native_bf16()]
    made = {way: BundledEncoder(engine=way[0], precision=way[1]) for way in ways}
    vectors = {way: encoder.encode_document(texts) for way, encoder in made.items()}
    passages: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    query: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    first: dict[tuple[str, str], list[list[float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, encoder in made.items():
            start = time.process_time()
            encoder.encode_document(texts)
            passages[way].append(len(texts) / (time.process_time() - start))
            for question, _ in asked:
                start = time.process_time()
                encoder.encode_query([question])
                query[way].append(1000 * (time.process_time() - start))
            command = [sys.executable, "-c", FIRST, *way]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            first[way].append([float(one) for one in told.split()])
    print("| | passages/s | ms a question | cosine with fp32 at least | first vector s | MB |")
    print("|---|---|---|---|---|---|")
    for way in ways:
        near = (vectors[way] * vectors["torch", "fp32"]).sum(axis=1).min()
        seconds, megabytes = (median(one) for one in zip(*first[way], strict=True))
        print(
            f"| {way[0]} {way[1]} | {median(passages[way]):.1f} | {median(query[way]):.1f} | "
            f"{near:.5f} | {seconds:.2f} | {megabytes:.0f} |"
        )
    print(f"\n{len(texts)} passages, {len(asked)} questions; {machine()}")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--encoder", action="store_true", help="its engines alone")
    parser.add_argument("--rounds", type=int, default=5, help="with --encoder")
    options = parser.parse_args()
    asked = questions(options.data, options.questions, options.candidates)
    if options.encoder:
        encoder_engines(asked, options.rounds)
        return
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
