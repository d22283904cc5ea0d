"""Trials of storage that end a process, or change what it may do: run as a program.

``python storage_trials.py TRIAL FOLDER [COUNT]`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rerank_plugins.errors import IndexWriteError, StorageError
from rerank_plugins.first_stage import BM25, Dense, Hybrid, storage

TEXTS = [f"passage {n} about bees, museums and hive number {n % 7}" for n in range(60)]
QUERY = "bees in hive 3"


def embed(texts: list[str]) -> Any:
    """Vectors that the text alone decides."""
    return np.asarray(
        [np.random.default_rng(len(t) * 31 + ord(t[-1])).normal(size=8) for t in texts]
    )


def hybrid(version: int) -> Hybrid:
    """An index whose texts say which of two versions it is."""
    texts = [f"{text} of version {version % 2}" for text in TEXTS]
    return Hybrid([BM25(texts, language="en"), Dense(texts, embed=embed)])


STAGES = [hybrid(0), hybrid(1)]
ANSWERS = [stage.search(QUERY, 20) for stage in STAGES]


def save(path: Path, version: int) -> None:
    """Saves a version under its number."""

    def fill(out: storage.Writer) -> None:
        out.settings["version"] = version
        STAGES[version % 2].store(out.part("stage"))

    storage.save(path, "trial", fill)


def load(path: Path) -> int:
    """The version that is there; fails unless all of it is of that version."""

    def make(part: storage.Reader) -> int:
        version = int(part.settings["version"])
        stage = Hybrid.restore(part.part("stage"), embed=embed)
        stage.check()
        assert stage.search(QUERY, 20) == ANSWERS[version % 2], "mixed versions"
        return version

    return storage.load(path, "trial", make)


def in_child(work: Callable[[], None]) -> int:
    """Does it in a forked process; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def killed(folder: Path, count: int) -> dict[str, Any]:
    """Kills a process that saves without end, at random moments; loads what is left."""
    path = folder / "index"
    save(path, 0)
    start = time.perf_counter()
    save(path, 0)
    one_save = time.perf_counter() - start
    newest, lost, moved, swept = 0, 0, 0, True
    moments = random.Random(0)
    for _ in range(count):
        reading, writing = os.pipe()

        def forever(first: int = newest + 1, tell: int = writing) -> None:
            for version in range(first, first + 10**6):
                save(path, version)
                os.write(tell, b"%d\n" % version)

        child = in_child(forever)
        os.close(writing)
        time.sleep(moments.uniform(0, 3 * one_save))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading) as told:
            done = [int(line) for line in told]
        sure = done[-1] if done else newest
        try:
            found = load(path)
        except (StorageError, AssertionError) as error:
            sys.stderr.write(f"{error}\n")
            lost += 1
            continue
        # What was reported saved is there, or the one that was about to be reported.
        if found not in (sure, sure + 1):
            lost += 1
        moved += found > newest
        newest = max(found, sure)
    save(path, newest)
    swept = len(list(path.glob("data-*"))) == 1
    return {"tries": count, "lost": lost, "advanced": moved, "swept": swept}


def full(folder: Path, count: int) -> dict[str, Any]:
    """Lets files grow to so many bytes only, in ``count`` steps, as a full disk would."""
    path = folder / "index"
    save(path, 0)
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    refused = wrong = 0
    for limit in np.linspace(0, max(sizes) - 1, count).astype(int).tolist():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save(path, 1)
        except IndexWriteError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        wrong += load(path) != 0 or len(list(path.glob("data-*"))) != 1
    save(path, 1)
    return {"tries": count, "refused": refused, "wrong": wrong, "then": load(path)}


def refusal(path: Path) -> str:
    """What the error of a save says; nothing when it succeeded."""
    try:
        save(path, 1)
    except IndexWriteError as error:
        return str(error)
    return ""


def read_only(folder: Path, _: int) -> dict[str, Any]:
    """Saves and loads without the right to write; as nobody, where root may write anyway."""
    path = folder / "index"
    save(path, 0)
    load(path)  # imports what it needs: nobody may not read Python's own folder, perhaps
    folder.chmod(0o755)
    path.chmod(0o555)
    load(path)  # imports what it needs, which nobody may not be able to read
    if os.geteuid() == 0:
        os.setuid(65534)
    messages = [refusal(path), refusal(folder / "new")]
    return {"messages": messages, "still": load(path)}


def together(folder: Path, count: int) -> dict[str, Any]:
    """Four processes save one path, ``count`` times each, while this one loads it."""
    path = folder / "index"
    save(path, 0)
    children = []
    for number in range(4):

        def work(first: int = 1000 * (number + 1)) -> None:
            for version in range(first, first + count):
                save(path, version)

        children.append(in_child(work))
    loads = wrong = 0
    alive = list(children)
    while alive:
        try:
            load(path)
        except (StorageError, AssertionError) as error:
            sys.stderr.write(f"{error}\n")
            wrong += 1
        loads += 1
        alive = [child for child in alive if os.waitpid(child, os.WNOHANG) == (0, 0)]
    lasts = {1000 * (number + 1) + count - 1 for number in range(4)}
    return {
        "saves": 4 * count,
        "loads": loads,
        "wrong": wrong,
        "last": load(path) in lasts,
        "folders": len(list(path.glob("data-*"))),
    }


if __name__ == "__main__":
    trial = {"killed": killed, "full": full, "read_only": read_only, "together": together}
    times = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    sys.stdout.write(json.dumps(trial[sys.argv[1]](Path(sys.argv[2]), times)))
