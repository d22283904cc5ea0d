"""Many callers of one reranker: passages per second and the slowest calls, threads and asyncio.

    python benchmarks/callers.py [--before CHECKOUT] [--shape 4x384] [--callers 1 8 64]
        [--passages 5 20 50] [--seconds 3] [--rounds 2] [--engine torch] [--precision auto]
    python benchmarks/callers.py --callers 1 8 --passages 5 --seconds 1 --rounds 1   # small form

Each caller asks one cross-encoder again and again, a query and that many passages of 30 to 50
words in four languages, until the seconds are over; calls that began are counted to their end.
Both checkouts load the same folder, a BERT with random weights or the cross-encoder bundled here
(``--shape bundled``), as fp32 safetensors, which every version reads. Every setting runs in a new
process, that of CHECKOUT and this one in turn. Latency is that of a call (95th percentile);
processor milliseconds per passage hold on a busy machine too. About six minutes on two cores with
--before and the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).parents[1]
Row = tuple[float, float, float]


class Load:
    """Queries and passages, drawn anew for each call."""

    def __init__(self, passages: int) -> None:
        from rerank_plugins.samples import load_passages, load_questions

        rng = random.Random(0)
        words = [passage.text.split() for passage in load_passages()]
        self.pool = []
        for number in range(400):
            some = words[number % len(words)]
            length = rng.randint(30, 50)
            start = rng.randrange(max(1, len(some) - length))
            self.pool.append(f"{number} " + " ".join(some[start : start + length]))
        self.queries = [question.text for question in load_questions()]
        self.passages = passages

    def draw(self, rng: random.Random) -> tuple[str, list[str]]:
        """What one call asks."""
        return rng.choice(self.queries), rng.sample(self.pool, self.passages)


def by_threads(reranker: Any, load: Load, callers: int, seconds: float) -> list[float]:
    """Seconds of each call, a thread per caller."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    def caller(seed: int) -> None:
        rng = random.Random(seed)
        while (start := time.perf_counter()) < end:
            reranker.rerank(*load.draw(rng))
            taken.append(time.perf_counter() - start)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def by_asyncio(reranker: Any, load: Load, callers: int, seconds: float) -> list[float]:
    """Seconds of each call, a task per caller in one event loop."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(seed: int) -> None:
        rng = random.Random(seed)
        while (start := time.perf_counter()) < end:
            await reranker.arerank(*load.draw(rng))
            taken.append(time.perf_counter() - start)

    async def together() -> None:
        await asyncio.gather(*(caller(seed) for seed in range(callers)))

    asyncio.run(together())
    return taken


def measured(options: argparse.Namespace) -> Row:
    """Passages per second, 95th percentile in milliseconds, processor milliseconds per passage."""
    from rerank_plugins import load_reranker

    how, callers, passages = options.one[0], int(options.one[1]), int(options.one[2])
    seconds = options.seconds
    reranker = load_reranker(
        str(options.model), device="cpu", engine=options.engine, precision=options.precision
    )
    load = Load(passages)
    # Tokens are kept: a corpus that is asked again and again.
    reranker.rerank(load.queries[0], load.pool)
    run = by_threads if how == "threads" else by_asyncio
    start, cpu = time.perf_counter(), time.process_time()
    taken = run(reranker, load, callers, seconds)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    count = len(taken) * passages
    p95 = quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]
    return count / wall, 1000 * p95, 1000 * cpu / count


def main() -> None:
    """Runs each setting in separate processes; prints a row per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout of this package")
    parser.add_argument("--callers", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--passages", nargs="+", type=int, default=[5, 20, 50])
    parser.add_argument("--how", nargs="+", default=["threads", "asyncio"])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--shape", default="4x384", help="layers x hidden size, or bundled")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        from _common import checkpoint

        options.model = checkpoint(Path(temporary) / "model", options.shape)
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """The table."""
    places = {"now": ROOT} if options.before is None else {"before": options.before, "now": ROOT}
    each = " | ".join(f"{name}: passages/s | p95 ms | processor ms/passage" for name in places)
    print(f"| callers x passages | {each} |\n|---{'|---' * 3 * len(places)}|")
    for how in options.how:
        for callers in options.callers:
            for passages in options.passages:
                rows: dict[str, list[Row]] = {name: [] for name in places}
                for _ in range(options.rounds):
                    for name, place in places.items():
                        rows[name].append(_in_process(place, how, callers, passages, options))
                cells = []
                for found in rows.values():
                    speed, p95, cpu = (median(values) for values in zip(*found, strict=True))
                    cells.append(f"{speed:.0f} | {p95:.0f} | {cpu:.1f}")
                print(f"| {how}, {callers} x {passages} | {' | '.join(cells)} |", flush=True)


def _in_process(
    place: Path, how: str, callers: int, passages: int, options: argparse.Namespace
) -> Row:
    command = [sys.executable, __file__, "--one", how, str(callers), str(passages),
               "--seconds", str(options.seconds), "--engine", options.engine,
               "--precision", options.precision, "--model", str(options.model)]  # fmt: skip
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    speed, p95, cpu = json.loads(done.stdout.splitlines()[-1])
    return speed, p95, cpu


if __name__ == "__main__":
    main()
