"""Engines side by side: torch and OpenVINO, fp32, bf16 and int8, on one machine in one run.

    python benchmarks/engines.py [--shapes 2x768 12x768 6x384 embedded] [--candidates N]
        [--rounds N] [--users]

Each shape is a BERT with random weights (weights change no time), four times the hidden
size within; `bundled` is the model that ships. Two loads: rows of 256 tokens given
straight to the engine (16 in a batch), whose figure is a part of the matrix-product peak
measured in the same run; and a query with passages of 20 to 500 words in four languages
through `Reranker`, tokenization included. Engines take turns, round by round; medians and
ratios to our torch engine in fp32 are printed. With `--users`, sentence-transformers'
`CrossEncoder.predict` takes turns too, as LangChain's and LlamaIndex's own classes call it.

    python benchmarks/engines.py --agreement FOLDER... [--queries N] [--candidates N]

instead measures how alike the embedded model orders passages in fp32 and in int8, on folders
with `corpus.jsonl.gz`, `queries.jsonl.gz` and `qrels.tsv`: for each query its relevant
passages and those that BM25 finds first. The int8 model is calibrated on the samples.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common import checkpoint
from first_stage_scale import lines

from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.samples import load_passages, load_questions
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.engines import native_bf16
from rerank_plugins.scoring.quantization import LabelledList, agreement, quantize

ROWS, WIDTH = 16, 256
WAYS = (("torch", "fp32"), ("torch", "bf16"), ("torch", "int8"), ("openvino", "fp32"),
        ("openvino", "bf16"), ("openvino", "int8"))  # fmt: skip


def passages(count: int) -> list[str]:
    """Texts of 20 to 500 words, each of one language, no two alike."""
    rng = random.Random(0)
    by_language: dict[str, list[str]] = {}
    for passage in load_passages():
        by_language.setdefault(passage.language, []).extend(passage.text.split())
    texts = []
    for number in range(count):
        words = by_language[sorted(by_language)[number % len(by_language)]]
        length = int(np.exp(rng.uniform(np.log(20), np.log(500))))
        start = rng.randrange(max(1, len(words) - length))
        texts.append(" ".join(words[start : start + length]))
    return texts


def seconds(call: Callable[[], Any]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one call each to warm up."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: median(some) for name, some in taken.items()}


def products() -> dict[str, tuple[Callable[[], Any], float]]:
    """Square matrix products by precision, and their operations in 10^9: the machine's best.

    In fp32 by oneDNN: torch's own product goes to MKL, which is at half of that on AMD.
    """
    import torch

    from rerank_plugins.scoring.linear import Int8Linear, Linear

    size = 2048
    work = 2 * size**3 / 1e9
    one, two, none = torch.rand(size, size), torch.rand(size, size) - 0.5, torch.zeros(size)
    found: dict[str, tuple[Callable[[], Any], float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "fp32" or native_bf16():
            linear, rows = Linear(two.to(dtype), none.to(dtype)), one.to(dtype)
            found[name] = (lambda linear=linear, rows=rows: linear(rows), work)
    int8 = Int8Linear(two, none)
    found["int8"] = (lambda: int8(one), work)
    return found


def work_of(config: dict[str, Any]) -> float:
    """Operations, in 10^9, of the whole model on the fixed batch, what could be left out too."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    inner = config["intermediate_size"]
    a_token = layers * (2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * WIDTH * hidden)
    return ROWS * WIDTH * a_token / 1e9


def measure(shape: str, folder: Path, options: argparse.Namespace) -> None:
    """Prints both tables of one shape."""
    texts, query = passages(options.candidates), load_questions()[0].text
    ways = [way for way in WAYS if way[1] != "bf16" or native_bf16()]
    if ("openvino", "int8") in ways and shape != "bundled":
        quantize(load_scorer(folder), pairs=[(query, text[:400]) for text in texts[:24]])
    rerankers = {
        f"{engine} {precision}": load_reranker(
            "bundled" if shape == "bundled" else folder,
            device="cpu", engine=engine, precision=precision,
        )
        for engine, precision in ways
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    ids = np.random.default_rng(0).integers(5, config["vocab_size"], (ROWS, WIDTH))
    types = np.zeros_like(ids) if read_checkpoint(folder).with_types else None
    batch = Batch(ids, np.ones_like(ids), types)

    fixed: dict[str, Callable[[], Any]] = {}
    mixed: dict[str, Callable[[], Any]] = {}
    for name, reranker in rerankers.items():
        engine = reranker.scorer._load()[0].engine  # noqa: SLF001
        fixed[name] = lambda engine=engine: engine.logits(batch)
        # A text is tokenized once and remembered: another ending each time defeats that.
        counter = iter(range(10**9))
        mixed[name] = lambda reranker=reranker, counter=counter: reranker.rerank(
            query, [f"{text} {next(counter)}" for text in texts]
        )
    if options.users:
        from sentence_transformers import CrossEncoder

        theirs = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        mixed["CrossEncoder.predict"] = lambda: theirs.predict([(query, text) for text in texts])
    peaks = products()
    took = in_turn(fixed | {f"product {name}": call for name, (call, _) in peaks.items()},
                   options.rounds)  # fmt: skip
    peak = {name: work / took[f"product {name}"] for name, (_, work) in peaks.items()}
    print(f"\n{shape}: {ROWS} rows of {WIDTH} tokens; product peak, 10^9 operations a second: "
          + ", ".join(f"{name} {value:.0f}" for name, value in peak.items()))  # fmt: skip
    for name in fixed:
        speed = work_of(config) / took[name]
        print(f"  {name:<22}{took['torch fp32'] / took[name]:6.2f} x torch fp32   "
              f"{ROWS / took[name]:7.1f} rows/s   {speed:6.0f} effective, "
              f"{speed / peak[name.split()[1]]:.0%} of the peak")  # fmt: skip
    took = in_turn(mixed, options.rounds)
    print(f"{shape}: a query, {len(texts)} passages of mixed lengths, tokenization included")
    for name in mixed:
        print(f"  {name:<22}{took['torch fp32'] / took[name]:6.2f} x torch fp32   "
              f"{len(texts) / took[name]:7.1f} passages/s")  # fmt: skip


def labelled(folder: Path, queries: int, candidates: int) -> list[LabelledList]:
    """Some of a set's queries, each with its relevant passages and BM25's first ones."""
    from rerank_plugins.first_stage.bm25 import BM25

    corpus, asked = (
        {str(row["id"]): row["text"] for row in lines(folder / name)}
        for name in ("corpus.jsonl.gz", "queries.jsonl.gz")
    )
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if float(grade) > 0:
            relevant.setdefault(query, set()).add(passage)
    names = list(corpus)
    bm25 = BM25(list(corpus.values()))
    lists = []
    for query in random.Random(0).sample(sorted(relevant.keys() & asked.keys()), queries):
        found = [names[some.key] for some in bm25.search(asked[query], candidates)]
        chosen = list(dict.fromkeys([*found, *sorted(relevant[query] & corpus.keys())]))
        random.Random(1).shuffle(chosen)
        grades = [float(name in relevant[query]) for name in chosen]
        lists.append(LabelledList(asked[query], [corpus[name] for name in chosen], grades))
    return lists


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["2x768", "12x768", "6x384", "bundled"])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", action="store_true")
    parser.add_argument("--agreement", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    if options.agreement:
        fp32 = load_scorer(engine="openvino", precision="fp32")
        int8 = load_scorer(precision="int8")
        for folder in options.agreement:
            lists = labelled(folder, options.queries, options.candidates)
            print(folder.parent.name, json.dumps(agreement(fp32, int8, lists)), flush=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            if shape == "bundled":
                from rerank_plugins.models.catalog import bundled_folder

                measure(shape, bundled_folder(), options)
            else:
                measure(shape, checkpoint(Path(temporary) / shape, shape), options)


if __name__ == "__main__":
    main()
