"""One reranker under many callers: coroutines, processes, cancellation, and a flat memory.

``RERANK_CAMPAIGN=1`` makes the memory test as long as its promise: 100,000 calls.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Reranker, load_reranker
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import OverlapScorer

CALLS = 100_000 if os.environ.get("RERANK_CAMPAIGN") else 2_000
QUERY = QUESTIONS["en"]


class WaitingScorer(OverlapScorer):
    """Scores once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Says that it has begun, and waits."""
        self.begun.set()
        assert self.go_on.wait(60)
        return super().score(pairs, options)


async def test_a_thousand_coroutines_get_each_their_own(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """All at once on one model: the scores that each gets alone."""
    reranker = load_reranker(tiny_checkpoints["bge"], device="cpu", scale="logit", max_length=32)
    jobs = [
        (f"room {number % 50}", ALL_PASSAGES[number % 9 : number % 9 + 2]) for number in range(1000)
    ]
    alone = {job[0]: {} for job in jobs}
    for query, passages in jobs:
        if tuple(passages) not in alone[query]:
            alone[query][tuple(passages)] = reranker.rerank(query, passages)
    found = await asyncio.gather(*(reranker.arerank(*job) for job in jobs))
    for ranking, (query, passages) in zip(found, jobs, strict=True):
        expected = alone[query][tuple(passages)]
        assert ranking.keys == expected.keys
        np.testing.assert_allclose(ranking.scores, expected.scores, atol=1e-5)


async def test_a_cancelled_call_leaves_the_reranker_usable() -> None:
    """The awaiting coroutines go at once; the next caller gets a full answer."""
    scorer = WaitingScorer()
    reranker = Reranker(scorer)
    tasks = [asyncio.ensure_future(reranker.arerank(QUERY, ALL_PASSAGES)) for _ in range(20)]
    assert await asyncio.to_thread(scorer.begun.wait, 60)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)
    scorer.go_on.set()
    after = await asyncio.wait_for(reranker.arerank(QUERY, ALL_PASSAGES), timeout=60)
    assert after.keys == Reranker(OverlapScorer()).rerank(QUERY, ALL_PASSAGES).keys


def test_a_used_reranker_travels_to_a_new_process(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """What spawn does: settings by pickle, weights loaded there, the same scores."""
    reranker = load_reranker(
        tiny_checkpoints["rstar"],
        device="cpu",
        engine="torch",  # OpenVINO plans a model anew in each process, and rounds by its plan
        precision="fp32",
        top_n=3,
        scale="logit",
    )
    here = reranker.rerank(QUERY, ALL_PASSAGES)
    (tmp_path / "reranker").write_bytes(pickle.dumps(reranker))
    assert (tmp_path / "reranker").stat().st_size < 10_000
    code = (
        f"import sys, json, pickle\nsys.path[:0] = {sys.path!r}\n"
        "from texts import ALL_PASSAGES\n"
        f"reranker = pickle.load(open({str(tmp_path / 'reranker')!r}, 'rb'))\n"
        f"ranking = reranker.rerank({QUERY!r}, ALL_PASSAGES)\n"
        "print(json.dumps([ranking.keys, ranking.scores]))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    keys, scores = json.loads(told.stdout.splitlines()[-1])
    assert keys == here.keys
    assert scores == pytest.approx(here.scores, abs=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_can_await_too() -> None:
    """The parent's helper threads are not in the child, which starts its own.

    In a process of its own: forking the test run's would copy whatever runs in it.
    """
    code = (
        f"import sys, os, asyncio, signal\nsys.path[:0] = {sys.path!r}\n"
        "from rerank_plugins import Reranker\n"
        "from rerank_plugins.testing import OverlapScorer\n"
        "reranker = Reranker(OverlapScorer())\n"
        "def ask():\n"
        "    return asyncio.run(reranker.arerank('museum', ['a bus', 'a museum'])).keys\n"
        "assert ask() == [1, 0]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(50)\n"
        "    os._exit(0 if ask() == [1, 0] else 1)\n"
        "assert ask() == [1, 0]\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "0", "the child hung or gave a wrong answer"


def test_memory_stays_flat_over_many_calls() -> None:
    """Nothing of a call is kept: what is allocated does not grow with the number of calls."""
    reranker = Reranker(OverlapScorer(), top_n=2)

    def calls(count: int) -> None:
        for number in range(count):
            reranker.rerank(f"{QUERY} {number}", ALL_PASSAGES[:4])

    calls(200)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        calls(CALLS)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 50_000  # bytes; 25 a call at the default number would be 50,000
