"""How long the event loop stands still while rerankings run beside it.

A coroutine that only sleeps, a millisecond at a time, notes by how much each sleep was too
long: first alone, then while others await ``arerank``. The largest excess is the largest
stall. What it is alone is the machine's own noise.

    python benchmarks/event_loop_stall.py [--model NAME_OR_FOLDER] [--candidates N] [--callers N]

Without ``--model``, a model of 4 layers x 384 with random weights is built: weights change no
time. Stalls are of the loop, so a busy machine shows in both figures.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from _common import checkpoint

from rerank_plugins import Reranker, load_reranker
from rerank_plugins.samples import load_passages, load_questions

PERIOD = 0.001


async def stalls(seconds: float | None, stop: asyncio.Event) -> list[float]:
    """Seconds that each sleep took beyond its period."""
    found = []
    end = None if seconds is None else time.perf_counter() + seconds
    while not stop.is_set() and (end is None or time.perf_counter() < end):
        start = time.perf_counter()
        await asyncio.sleep(PERIOD)
        found.append(time.perf_counter() - start - PERIOD)
    return found


def told(name: str, found: list[float]) -> None:
    """Prints the largest stall and the 99th percentile."""
    ordered = sorted(found)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(
        f"{name:<24} {len(found):>7} ticks   p99 {p99 * 1000:7.2f} ms   "
        f"largest {ordered[-1] * 1000:7.2f} ms"
    )


async def measure(reranker: Reranker, candidates: int, callers: int) -> None:
    """The loop alone, then beside rerankings."""
    texts = [passage.text for passage in load_passages()]
    passages = [f"{texts[number % len(texts)]} {number}" for number in range(candidates)]
    queries = [question.text for question in load_questions()]
    reranker.rerank(queries[0], passages[:4])  # loads the model
    told("alone", await stalls(3.0, asyncio.Event()))
    stop = asyncio.Event()
    ticker = asyncio.create_task(stalls(None, stop))
    start = time.perf_counter()
    await asyncio.gather(
        *(reranker.arerank(queries[number % len(queries)], passages) for number in range(callers))
    )
    seconds = time.perf_counter() - start
    stop.set()
    told(f"beside {callers} rerankings", await ticker)
    print(f"{callers} x {candidates} candidates in {seconds:.1f} s")


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="name or folder; random weights of 4 x 384 without")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--callers", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or checkpoint(Path(folder), "4x384")
        reranker = load_reranker(model, device="cpu")
        asyncio.run(measure(reranker, options.candidates, options.callers))
        shape = reranker.describe()
    print(f"{shape['architecture']}, {shape['parameters'] / 1e6:.1f} M parameters, cpu")


if __name__ == "__main__":
    main()
