"""First stages at scale: queries a second, building, memory, recall; beside their peers.

Words: our BM25 (built and loaded from its mapped files) beside rank_bm25 over the
same terms and LangChain's and LlamaIndex's BM25Retriever as their users get them, at each size
where those are feasible. LlamaIndex's asks for an older PyStemmer than ours and works with ours:
`pip install --no-deps llama-index-retrievers-bm25`; where it is missing it is left out. Vectors:
FAISS exact, HNSW and IVF-PQ over the embedded encoder, with their recall against the exact index.
Each measurement runs in a separate process, so that memory is its own; slopes are between the
smallest and the largest size.

Usage: python benchmarks/first_stage_scale.py --data DIR [--sizes 10000 100000 1000000]
           [--vectors 100000] [--peers-up-to 1000000] [--seconds 5]

DIR holds one folder a set and split with corpus.jsonl.gz and queries.jsonl.gz. Passages are
real: those of the sets, cut at 120 words; past their number, the first half of one with the
second half of another, and one word in fifty made new.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from rerank_plugins.first_stage import BM25, Dense, StaticEncoder

SETS = (
    "saudinewsnet-ar/train",
    "selqa-en/test",
    "tydiqa-en/train",
    "piaf-fr/all",
    "poquad-pl/dev",
    "squadshifts-new-en/all",
)
ASKED = ("arcd-ar/test", "fquad-fr/valid", "poquad-pl/dev", "tydiqa-en/dev")
WORDS = 120
K = 100


def lines(path: Path) -> Iterator[dict[str, str]]:
    """Records of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as records:
        yield from map(json.loads, records)


def passages(data: Path, count: int) -> Iterator[str]:
    """That many passages, no two alike but for those that the sets repeat."""
    real = [
        record["text"].split()[:WORDS]
        for name in SETS
        for record in lines(data / name / "corpus.jsonl.gz")
    ]
    # The sets one after another would make small sizes Arabic alone.
    order = np.random.default_rng(0).permutation(len(real))
    real = [real[at] for at in order]
    for number in range(count):
        turn, at = divmod(number, len(real))
        words = real[at]
        if turn:
            other = real[(at + turn * 7919) % len(real)]
            words = words[: len(words) // 2] + other[len(other) // 2 :]
            words = [
                f"{word}{turn}" if (number + i) % 50 == 0 else word for i, word in enumerate(words)
            ]
        yield " ".join(words)


def questions(data: Path, count: int) -> list[str]:
    """Real questions, the languages in turn."""
    lists = [[r["text"] for r in lines(data / name / "queries.jsonl.gz")] for name in ASKED]
    return [lists[i % len(lists)][i // len(lists)] for i in range(count)]


def memory() -> float:
    """What this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def rate(search: Callable[[str], Any], asked: Iterable[str], seconds: float) -> tuple[float, int]:
    """Queries a second, and how many were asked in the time."""
    done = 0
    start = time.perf_counter()
    for query in asked:
        search(query)
        done += 1
        if time.perf_counter() - start > seconds:
            break
    return done / (time.perf_counter() - start), done


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """BM25: built, saved, loaded, and beside a whole reranked query."""
    texts = list(passages(options.data, options.size))
    asked = questions(options.data, 1000)
    before, start = memory(), time.perf_counter()
    stage = BM25(texts)
    build = time.perf_counter() - start
    held = memory() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    speed, _ = rate(partial(stage.search, k=K), asked, options.seconds)
    found = {"build s": build, "index MiB": held, "peak MiB": peak, "queries/s": speed}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        stage.save(Path(folder) / "index")
        found["save s"] = time.perf_counter() - start
        files = (Path(folder) / "index").rglob("*")
        found["disk MiB"] = sum(file.stat().st_size for file in files) / 2**20
        del stage
        start = time.perf_counter()
        loaded = BM25.load(Path(folder) / "index")
        found["load s"] = time.perf_counter() - start
        found["loaded queries/s"], _ = rate(partial(loaded.search, k=K), asked, options.seconds)
        if options.whole:
            found |= whole_query(loaded, asked[:4])
    return found


def whole_query(stage: BM25, asked: list[str]) -> dict[str, Any]:
    """Milliseconds of the first stage and of reranking its candidates with the default model."""
    from rerank_plugins import load_reranker

    reranker = load_reranker()
    reranker.rerank(asked[0], stage.search(asked[0], 2))  # loads the model
    first, rerank = [], []
    for query in asked:
        start = time.perf_counter()
        candidates = stage.search(query, K)
        first.append(time.perf_counter() - start)
        start = time.perf_counter()
        reranker.rerank(query, candidates)
        rerank.append(time.perf_counter() - start)
    one, other = float(np.median(first)) * 1000, float(np.median(rerank)) * 1000
    return {"first ms": one, "rerank ms": other, "share": one / (one + other)}


def peer(build: Callable[[], Callable[[str], Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Builds a search of a peer and asks it."""
    before, start = memory(), time.perf_counter()
    search = build()
    found: dict[str, Any] = {"build s": time.perf_counter() - start}
    found["index MiB"] = memory() - before
    found["queries/s"], found["asked"] = rate(
        search, questions(options.data, 1000), options.seconds
    )
    return found


def rank_bm25(options: argparse.Namespace) -> dict[str, Any]:
    """rank_bm25 over our terms: every score, then the best hundred."""
    from rank_bm25 import BM25Okapi

    from rerank_plugins.first_stage import analyzer_for

    head = list(islice(passages(options.data, options.size), 1000))
    analyzer = analyzer_for("auto", texts=head)
    corpus = [analyzer(text) for text in passages(options.data, options.size)]

    def build() -> Callable[[str], Any]:
        okapi = BM25Okapi(corpus)

        def search(query: str) -> Any:
            scores = okapi.get_scores(analyzer.query(query))
            best = np.argpartition(-scores, K)[:K]
            return best[np.argsort(-scores[best])]

        return search

    return peer(build, options)


def langchain(options: argparse.Namespace) -> dict[str, Any]:
    """LangChain's BM25Retriever, which splits at spaces and stems nothing."""
    import warnings

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from langchain_community.retrievers import BM25Retriever

    texts = list(passages(options.data, options.size))
    return peer(lambda: BM25Retriever.from_texts(texts, k=K).invoke, options)


def llama_index(options: argparse.Namespace) -> dict[str, Any]:
    """LlamaIndex's BM25Retriever, over bm25s; it stems English by default."""
    from llama_index.core.schema import TextNode
    from llama_index.retrievers.bm25 import BM25Retriever

    nodes = [TextNode(text=text) for text in passages(options.data, options.size)]
    return peer(
        lambda: BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=K).retrieve, options
    )


def vectors(options: argparse.Namespace) -> dict[str, Any]:
    """The three kinds of FAISS index over the embedded encoder's vectors."""
    texts = list(passages(options.data, options.size))
    encoder = StaticEncoder.default()
    start = time.perf_counter()
    rows = np.concatenate(
        [encoder.encode(texts[at : at + 1024]) for at in range(0, len(texts), 1024)]
    )
    found: dict[str, Any] = {"embed s": time.perf_counter() - start, "dimension": rows.shape[1]}
    asked = encoder.encode(questions(options.data, 200))
    names = list(map(str, range(len(texts))))
    best: list[set[int]] = []
    for kind in ("exact", "hnsw", "ivfpq"):
        before, start = memory(), time.perf_counter()
        stage = Dense(embed=lambda texts: rows[[int(text) for text in texts]], index=kind)
        stage.add(names)
        measured = {"build s": time.perf_counter() - start, "index MiB": memory() - before}
        answers = [[one.key for one in stage.search_by_vector(row, K)] for row in asked]
        if kind == "exact":
            best = [set(keys[:10]) for keys in answers]
        pairs = list(zip(best, answers, strict=True))
        measured["recall@10"] = float(np.mean([len(b & set(a[:10])) / 10 for b, a in pairs]))
        measured["of ten in 100"] = float(np.mean([len(b & set(a)) / 10 for b, a in pairs]))
        start = time.perf_counter()
        for row in asked:
            stage.search_by_vector(row, K)
        measured["queries/s"] = len(asked) / (time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            stage.save(Path(folder) / "index")
            file = next((Path(folder) / "index").rglob("vectors0.*"))
            measured["disk MiB"] = file.stat().st_size / 2**20
        found[kind] = measured
        del stage
    return found


MEASURES = {"ours": ours, "rank_bm25": rank_bm25, "langchain": langchain,
            "llama_index": llama_index, "vectors": vectors}  # fmt: skip


def measured(name: str, size: int, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """One measurement, in a separate process."""
    command = [sys.executable, __file__, "--measure", name, "--size", str(size)]
    command += ["--data", str(options.data), "--seconds", str(options.seconds), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name} at {size}: {told(result)}", file=sys.stderr, flush=True)
    return result


def told(result: dict[str, Any]) -> dict[str, Any]:
    """The figures, rounded for reading."""
    return {
        name: told(value) if isinstance(value, dict) else float(f"{value:.3g}")
        for name, value in result.items()
    }


def main() -> None:
    """Measures everything, or one thing when a measurement asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--vectors", type=int, default=100_000, help="0: no vectors")
    parser.add_argument("--peers-up-to", type=int, default=1_000_000)
    parser.add_argument("--frameworks-up-to", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of queries, each measurement")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
        return
    sizes = sorted(options.sizes)
    rows, results = [], []
    for size in sizes:
        whole = ["--whole"] if size == sizes[-1] else []
        own = measured("ours", size, options, *whole)
        results.append(own)
        rows.append([size, "BM25", *columns(own), ""])
        for name, limit in (
            ("rank_bm25", options.peers_up_to),
            ("langchain", options.frameworks_up_to),
            ("llama_index", options.frameworks_up_to if _installed() else 0),
        ):
            if size <= limit:
                theirs = measured(name, size, options)
                times = own["queries/s"] / theirs["queries/s"]
                rows.append([size, name, *columns(theirs), f"{times:.0f}x"])
    heads = ["passages", "what", "build s", "index MiB", "queries/s", "ours is"]
    print(tabulate(rows, heads, floatfmt=".3g"))
    stored = ("peak MiB", "disk MiB", "save s", "load s", "loaded queries/s")
    table = [
        [size, *(own[name] for name in stored)] for size, own in zip(sizes, results, strict=True)
    ]
    print("\n" + tabulate(table, ["passages", *stored], floatfmt=".3g"))
    if len(sizes) > 1:
        apart = (sizes[-1] - sizes[0]) / 1e6
        slopes = {name: (results[-1][name] - results[0][name]) / apart for name in stored[:2]}
        slopes["build s"] = (results[-1]["build s"] - results[0]["build s"]) / apart
        print("\nfor each million passages more:", told(slopes))
    last = results[-1]
    print(
        f"\na whole query at {sizes[-1]}: first stage {last['first ms']:.1f} ms, reranking {K} "
        f"{last['rerank ms']:.0f} ms: the first stage is {last['share']:.1%}"
    )
    if options.vectors:
        found = measured("vectors", options.vectors, options)
        heads = ["build s", "index MiB", "disk MiB", "recall@10", "of ten in 100", "queries/s"]
        table = [[k, *(found[k][name] for name in heads)] for k in ("exact", "hnsw", "ivfpq")]
        print(f"\n{options.vectors} vectors of {found['dimension']} numbers")
        print(tabulate(table, ["index", *heads], floatfmt=".3g"))


def _installed() -> bool:
    """Whether LlamaIndex's retriever can be imported; its folder may be missing altogether."""
    try:
        return find_spec("llama_index.retrievers.bm25") is not None
    except ModuleNotFoundError:
        return False


def columns(result: dict[str, Any]) -> list[float]:
    """The figures that every measurement of words has."""
    return [result[name] for name in ("build s", "index MiB", "queries/s")]


if __name__ == "__main__":
    main()
