"""Measures of a run of very many queries: time, and memory that does not grow with the run.

Writes a TREC run of random rankings and its judgements, then evaluates it as
``rerank-plugins evaluate --qrels ... --run ...`` does, in a separate process, and prints the
seconds and how much more memory that process took at its peak than before it began.

Usage: python benchmarks/evaluate_many_runs.py [--queries 100000] [--depth 100]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path

from rerank_plugins.evaluation import bootstrap_interval, evaluate_rankings, read_qrels, read_run

MEASURES = ("nDCG@10", "MRR@10", "MAP", "Recall@100")


def write(folder: Path, queries: int, depth: int) -> tuple[Path, Path]:
    """Judgements and a run of that size."""
    chance = random.Random(0)
    qrels, run = folder / "qrels", folder / "run"
    with qrels.open("w") as judged, run.open("w") as ranked:
        for query in range(queries):
            judged.write(f"q{query} 0 d{chance.randrange(2 * depth)} 1\n")
            ranked.writelines(
                f"q{query} Q0 d{(at * 7 + query) % (2 * depth)} {at} {depth - at} t\n"
                for at in range(depth)
            )
    return qrels, run


def evaluate(qrels: Path, run: Path) -> None:
    """Prints what it took; a separate process, so that the peak belongs to it alone."""
    judgements = read_qrels(qrels)
    parsed = _peak()
    start = time.perf_counter()
    values = evaluate_rankings(judgements, read_run(run), MEASURES)
    interval = bootstrap_interval(values.by_measure["nDCG@10"])
    seconds = time.perf_counter() - start
    means = ", ".join(f"{name} {mean:.4f}" for name, mean in values.means().items())
    print(f"{len(values.query_ids)} queries, {run.stat().st_size / 2**20:.0f} MiB of run")
    print(f"{means}; nDCG@10 interval {interval}")
    print(f"{seconds:.1f} s; peak memory {_peak() - parsed:.0f} MiB above the judgements alone")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Writes, then evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--depth", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), options.queries, options.depth)
        process = multiprocessing.get_context("spawn").Process(target=evaluate, args=paths)
        process.start()
        process.join()
        raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
