"""What one change costs: add one, replace one, delete one, beside a checkout of an older commit.

BM25 over SaudiNewsNet cut at 600 characters, repeated with variation. Build, query, changes and
memory at each size, each version and size in a separate process. Times are milliseconds of
the processor (medians), so that other work on the machine counts little.

Changes stop after ``--seconds``: what a version did not come to is left out of the table.

With ``--terms`` both versions are given the same terms: those of 100,000 passages, read once by
this version's analysis, over and over. That measures the engines alone, and takes a quarter of
the time.

Usage: git worktree add ../before ad87a73
       python benchmarks/changes.py --data DIR --before ../before [--sizes 10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tabulate import tabulate

SET = "saudinewsnet-ar/train"
CUT = 600
K = 100
ROWS = ("build s", "query ms", "query after changes ms", "add one ms", "replace one ms",
        "delete one ms", "slowest of all ms", "bytes per passage")  # fmt: skip


def lines(path: Path) -> Iterator[dict[str, str]]:
    """Records of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as records:
        yield from map(json.loads, records)


def passages(data: Path, count: int) -> list[str]:
    """Real articles; past their number, halves of two, with one word in fifty made new."""
    real = [record["text"][:CUT] for record in lines(data / SET / "corpus.jsonl.gz")]
    listed = []
    for number in range(count):
        turn, at = divmod(number, len(real))
        text = real[at]
        if turn:
            text = text[: CUT // 2] + real[(at + turn * 7919) % len(real)][CUT // 2 :]
            text = " ".join(
                f"{word}{turn}" if (number + i) % 50 == 0 else word
                for i, word in enumerate(text.split())
            )
        listed.append(text)
    return listed


def queries(data: Path) -> list[str]:
    """Three hundred."""
    return [record["text"] for record in lines(data / SET / "queries.jsonl.gz")][:300]


def write_terms(data: Path, path: Path) -> None:
    """The terms of 100,000 passages, and of the queries."""
    from rerank_plugins.first_stage.analysis import analyzer_for

    analyzer = analyzer_for("ar")
    known = [analyzer(text) for text in passages(data, 100_000)]
    path.write_bytes(pickle.dumps((known, [analyzer.query(text) for text in queries(data)])))


def spent(work: Callable[[], Any]) -> float:
    """Milliseconds of the processor."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000


def held() -> float:
    """What this process holds now, in bytes, once freed memory is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One version of the library, the one that is imported first, at one size."""
    from rerank_plugins.first_stage import BM25

    how: dict[str, Any] = {"language": "ar", "engine": "bm25s"}
    if options.given:
        known, asked = pickle.loads(options.given.read_bytes())
        texts = list(map(str, range(options.size + 500)))
        asked_terms = dict(zip(map(str, range(-len(asked), 0)), asked, strict=True))
        how["analyzer"] = lambda text: asked_terms.get(text) or known[int(text) % len(known)]
        asked = list(asked_terms)
    else:
        texts = passages(options.data, options.size + 500)
        asked = queries(options.data)
    extra, texts = texts[options.size :], texts[: options.size]
    before = held()
    stage: Any = None

    def build() -> None:
        nonlocal stage
        stage = BM25(texts, **how)

    found = {"build s": spent(build) / 1000}
    found["bytes per passage"] = (held() - before) / options.size
    for query in asked[:20]:
        stage.search(query, K)
    found["query ms"] = median(spent(lambda q=query: stage.search(q, K)) for query in asked)
    order = np.random.default_rng(0).permutation(options.size).tolist()
    times: dict[str, list[float]] = {"add": [], "replace": [], "delete": []}
    deadline = time.perf_counter() + options.seconds
    for number in range(options.repeats):

        def replace(text: str = extra[-1 - number]) -> None:
            stage.remove([order.pop()])
            stage.add([text])

        changes = {
            "add": lambda n=number: stage.add([extra[n]]),
            "delete": lambda: stage.remove([order.pop()]),
            "replace": replace,
        }
        for name, change in changes.items():
            # One change of an older version may take a minute at a million.
            if time.perf_counter() < deadline:
                times[name].append(spent(change))
    measured = {name: values for name, values in times.items() if values}
    for name, values in measured.items():
        found[f"{name} one ms"] = median(values)
    found["slowest of all ms"] = max(map(max, measured.values()))
    for query in asked[:20]:
        stage.search(query, K)
    found["query after changes ms"] = median(
        spent(lambda q=query: stage.search(q, K)) for query in asked
    )
    return found


def main() -> None:
    """Measures every size with both versions, or one of them when a measurement asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="a checkout of the older commit")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=200, help="at most, of each change")
    parser.add_argument("--seconds", type=float, default=60, help="of changes, at most about")
    parser.add_argument("--terms", action="store_true", help="give both versions the same terms")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        print(json.dumps(measure(options)))
        return
    roots = {"after": Path(__file__).parents[1]}
    if options.before:
        roots = {"before": options.before.resolve(), **roots}
    with TemporaryDirectory() as folder:
        given: list[Any] = []
        if options.terms:
            given = ["--given", Path(folder) / "terms.pkl"]
            write_terms(options.data, given[1])
        report(options, roots, given)


def report(options: argparse.Namespace, roots: dict[str, Path], given: list[Any]) -> None:
    """Measures each version at each size, and prints the table."""
    columns: dict[str, dict[str, float]] = {}
    for size in options.sizes:
        for name, root in roots.items():
            command = [sys.executable, __file__, "--data", options.data, "--size", size, *given,
                       "--repeats", options.repeats, "--seconds", options.seconds]  # fmt: skip
            done = subprocess.run(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            columns[f"{size:,} {name}"] = json.loads(done.stdout.splitlines()[-1])
            print(size, name, columns[f"{size:,} {name}"], file=sys.stderr, flush=True)
    table = [[row, *(found.get(row) for found in columns.values())] for row in ROWS]
    print(tabulate(table, ["", *columns], floatfmt=".3g", tablefmt="github"))


if __name__ == "__main__":
    main()
