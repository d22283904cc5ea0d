"""Children forked while other threads are inside the libraries that compute: each must answer.

    python tests/faults/fork_trials.py WORK FOLDER TRIES

Three threads repeat one kind of work (`WORK`: torch in three precisions, sentence-transformers, a
causal model, loading, OpenVINO's conversion, files of scores and of vectors, tokenizers, FAISS);
each child then does the same, within a minute. Prints how many answered.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rerank_plugins import load_reranker
from rerank_plugins.bundled import load_encoder
from rerank_plugins.first_stage import Dense
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.vectors import VectorScorer

PASSAGES = [f"the museum is open on day {number} " * 8 for number in range(24)]
NUMBERS = count()
SECONDS = 60
Work = Callable[[], object]


def scoring(folder: str, **options: Any) -> Work:
    """One model that all threads share."""
    reranker = load_reranker(folder, device="cpu", **options)
    reranker.warm_up()
    return lambda: checked(reranker.rerank(f"museum {next(NUMBERS)}", PASSAGES).scores)


def loading(folder: str, **options: Any) -> Work:
    """A model that is read anew each time, and converted where the engine is OpenVINO."""

    def load() -> object:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            reranker = load_reranker(folder, device="cpu", revision=f"{next(NUMBERS)}", **options)
            return checked(reranker.rerank("museum", PASSAGES[:2]).scores)

    return load


def kept(folder: str) -> Work:
    """Scores in a file."""
    path = Path(tempfile.mkdtemp()) / "scores.sqlite"
    reranker = load_reranker(folder, device="cpu", engine="torch", cache=path)
    return lambda: checked(reranker.rerank(f"museum {next(NUMBERS) % 9}", PASSAGES).scores)


def vectors(_folder: str) -> Work:
    """Vectors of the table that ships, in a file."""
    path = Path(tempfile.mkdtemp()) / "vectors.sqlite"
    scorer = VectorScorer(load_encoder("bundled-static"), path=path)

    def work() -> object:
        pairs = [("museum", f"{text} {next(NUMBERS)}") for text in PASSAGES]
        return checked(scorer.score(pairs, ScoreOptions()).logits)

    return work


def index(_folder: str) -> Work:
    """FAISS, over the encoder that ships: add, search, build."""
    encoder = load_encoder("bundled-encoder")
    dense = Dense(PASSAGES[:4], embed=encoder)

    def work() -> object:
        dense.add([f"a bus {next(NUMBERS)}"])
        new = Dense(["a b", "c"], embed=load_encoder("bundled-static"))
        return checked([one.score for one in (*dense.search("bus", 3), *new.search("a", 1))])

    return work


def tokenizing(folder: str) -> Work:
    """The tokenizers' own threads."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    reranker = load_reranker(folder, device="cpu", engine="torch")
    long = " ".join(PASSAGES)
    return lambda: checked([reranker.scorer.count_tokens(f"{long} {next(NUMBERS)}")])


def checked(numbers: Sequence[float] | Any) -> object:
    """The numbers, of which there are some."""
    assert len(numbers)
    return numbers


WORK: dict[str, Callable[[str], Work]] = {
    "fp32": partial(scoring, engine="torch", precision="fp32"),
    "bf16": partial(scoring, engine="torch", precision="bf16"),
    "int8": partial(scoring, engine="torch", precision="int8"),
    "openvino": partial(scoring, engine="openvino", precision="fp32"),
    "sentence-transformers": partial(scoring, engine="sentence-transformers"),
    "causal": scoring,
    "loading": partial(loading, engine="torch", precision="fp32"),
    "converting": partial(loading, engine="openvino", precision="fp32"),
    "scores": kept,
    "vectors": vectors,
    "index": index,
    "tokenizers": tokenizing,
}


def forked(work: Work) -> bool:
    """Whether a child answers."""
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(0.9 * SECONDS)
        signal.alarm(SECONDS)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def pooled(work: Work) -> bool:
    """Whether a worker of a pool answers that a thread has forked."""
    global _pooled_work  # noqa: PLW0603  (what a forked worker finds)
    _pooled_work = work
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return bool(pool.submit(_in_pool).result(timeout=SECONDS))


def _in_pool() -> bool:
    return _pooled_work() is not None


_pooled_work: Work = bool


def answered(work: Work, tries: int) -> int:
    """How many of the children answered; every other one is a pool's worker."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            work()

    work()
    threads = [threading.Thread(target=again, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    found = 0
    for turn in range(tries):
        time.sleep(0.01 + 0.007 * (turn % 10))
        found += (forked if turn % 2 else pooled)(work)
    stop.set()
    return found


if __name__ == "__main__":
    name, where, number = sys.argv[1:]
    sys.stdout.write(f"{answered(WORK[name](where), int(number))}\n")
    sys.stdout.flush()
    os._exit(0)
