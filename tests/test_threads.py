"""Helper threads, and what a forked child finds of them and of locks."""

from __future__ import annotations

import _thread
import asyncio
import hashlib
import importlib
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType

import pytest

from rerank_plugins import _threads
from rerank_plugins._threads import cancellation, fork_safe_lock, in_thread, lock_without_forks


async def test_work_can_see_that_nobody_awaits_it_any_more() -> None:
    """Cancelling the awaiting task sets its flag and no other."""
    flags: list[threading.Event | None] = []
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        flags.append(cancellation())
        begun.release()
        assert go_on.wait(60)

    first = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(begun.acquire, timeout=60)
    second = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(begun.acquire, timeout=60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    await second
    assert [flag is not None and flag.is_set() for flag in flags] == [True, False]


def test_work_outside_a_coroutine_is_never_cancelled() -> None:
    """No flag exists to look at."""
    assert cancellation() is None


def test_a_lock_is_a_lock() -> None:
    """One holder at a time, and a wait that ends."""
    lock = fork_safe_lock()
    with lock:
        assert not lock.acquire(timeout=0.01)
    assert lock.acquire(timeout=0)
    lock.release()


def run(code: str) -> str:
    """What a new process says."""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return told.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_finds_every_lock_open() -> None:
    """Also one that a thread of the parent holds, as long as it lives."""
    code = (
        "import os, threading, signal\n"
        "from rerank_plugins._threads import fork_safe_lock\n"
        "lock, held, done = fork_safe_lock(), threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with lock:\n"
        "        held.set(); done.wait(60)\n"
        "thread = threading.Thread(target=hold); thread.start(); held.wait(60)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"
        "    with lock:\n"
        "        os._exit(0)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "print(status, lock.acquire(timeout=0)); done.set()\n"
    )
    assert run(code) == "0 False"


def test_async_calls_work_while_the_interpreter_ends() -> None:
    """No thread can be started any more, so the call runs in the one that there is."""
    code = (
        "import asyncio, atexit\n"
        "from rerank_plugins import Reranker\n"
        "from rerank_plugins.testing import OverlapScorer\n"
        "reranker = Reranker(OverlapScorer())\n"
        "def last():\n"
        "    print(asyncio.run(reranker.arerank('museum', ['a bus', 'a museum'])).keys)\n"
        "atexit.register(last)\n"
    )
    assert run(code) == "[1, 0]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_for_a_lock_that_keeps_forks_out_and_leaves_it_free() -> None:
    """The child finds it open as well."""
    lock, held = lock_without_forks(), threading.Event()
    released: list[float] = []

    def compute() -> None:
        with lock:
            held.set()
            time.sleep(0.2)
            released.append(time.perf_counter())

    thread = threading.Thread(target=compute)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(blocking=False) else 1)
    forked = time.perf_counter()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert released[0] <= forked
    assert lock.acquire(blocking=False)
    lock.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_whoever_holds_a_lock_that_keeps_forks_out_may_fork() -> None:
    """A signal's handler runs in the middle of anything, and may start a process."""
    with lock_without_forks() as held:
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("turned", [False, True])
def test_a_fork_waits_for_a_thread_that_takes_one_lock_inside_of_another(
    turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a pass takes its engine's. Whichever the fork begins with, neither waits in vain."""
    monkeypatch.setattr("rerank_plugins._threads._LONGEST_PASS", 20.0)
    outer, inner = sorted((lock_without_forks(), lock_without_forks()), key=id, reverse=turned)
    held, done = threading.Event(), threading.Event()

    def compute() -> None:
        with outer:
            held.set()
            time.sleep(0.2)
            with inner:
                done.set()

    thread = threading.Thread(target=compute)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0)
    ended = done.is_set()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert ended
    assert outer.acquire(blocking=False)
    outer.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_for_a_lock_that_was_made_while_it_waited_for_another() -> None:
    """A thread that ends one pass and begins to load a model, say."""
    first, held, state = lock_without_forks(), threading.Event(), ["before"]

    def compute() -> None:
        with first:
            held.set()
            time.sleep(0.1)
            second = lock_without_forks()
            second.acquire()
            state.append("inside")
        time.sleep(0.2)
        state.append("after")
        second.release()

    thread = threading.Thread(target=compute)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if state[-1] == "after" else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


def test_no_lock_that_keeps_forks_out_is_made_in_the_middle_of_a_fork() -> None:
    """Whoever made it would be inside what the lock is for when the child is born."""
    made = threading.Event()

    def make() -> None:
        lock_without_forks()
        made.set()

    thread = threading.Thread(target=make)
    _threads._before()
    try:
        thread.start()
        assert not made.wait(0.1)
    finally:
        _threads._in_parent()
    assert made.wait(60)
    thread.join()


IMPORTS = (
    "import importlib, os, signal, sys, threading, time\n"
    "from rerank_plugins import _threads\n"
    "begun = threading.Event()\n"
    "sys.begun = begun\n"
    "threading.Thread(target=importlib.import_module, args=['slow'], daemon=True).start()\n"
    "begun.wait(60)\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_another_thread_imports_can_import(tmp_path: Path) -> None:
    """The same module, or its lock would be held by a thread that the child does not have."""
    (tmp_path / "slow.py").write_text(
        "import sys, time\nsys.begun.set()\ntime.sleep(.3)\ndone = True\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORTS + "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"
        "    import slow, wave\n"
        "    os._exit(0 if slow.done else 1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "thread = threading.Thread(target=importlib.import_module, args=['calendar'])\n"
        "thread.start(); thread.join(20)\n"
        "print(status, thread.is_alive())\n"
    )
    assert run(code) == "0 False"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_an_import_that_does_not_end_is_waited_for_once(tmp_path: Path) -> None:
    """A module that runs a server when it is imported must not slow every fork down."""
    (tmp_path / "slow.py").write_text("import sys, time\nsys.begun.set()\ntime.sleep(60)\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORTS + "waited = []\n"
        "_threads._LONGEST_PASS = .5\n"
        "for _ in range(2):\n"
        "    start = time.perf_counter()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(0)\n"
        "    waited.append(time.perf_counter() - start > .5)\n"
        "    os.waitpid(child, 0)\n"
        "print(waited, flush=True)\n"
        "os._exit(0)\n"
    )
    assert run(code) == "[True, False]"


def test_only_modules_that_other_threads_import_keep_a_fork_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the thread's own, none that is done, and none that was waited for in vain."""
    began, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "told", (began, go_on), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "waits_to_be_told.py").write_text(
        "import sys\nfrom rerank_plugins import _threads\nown = _threads._others_import()\n"
        "sys.told[0].set()\nassert sys.told[1].wait(60)\n"
    )
    thread = threading.Thread(target=importlib.import_module, args=["waits_to_be_told"])
    thread.start()
    try:
        assert began.wait(60)
        found = _threads._others_import()
        assert [lock.name for lock in found] == ["waits_to_be_told"]
        monkeypatch.setattr(_threads, "_endless", weakref.WeakSet(found))
        assert _threads._others_import() == []
    finally:
        go_on.set()
        thread.join(60)
    assert sys.modules.pop("waits_to_be_told").own == []
    assert _threads._others_import() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_that_nothing_keeps_waiting_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other thread imports, it looks once."""
    # What other tests have loaded may have threads that still run.
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    slept: list[float] = []
    monkeypatch.setattr(_threads, "sleep", slept.append)
    monkeypatch.setattr(_threads, "_LONGEST_PASS", 0.2)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert slept == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which threads run")
@pytest.mark.parametrize(("rest", "waited"), [(30.0, True), (0.05, False)])
def test_a_fork_waits_for_threads_of_openvino_that_still_run(
    rest: float, waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever: others' threads may compute all day long."""
    monkeypatch.setattr("rerank_plugins._threads._LONGEST_REST", rest)
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    begun, ended = threading.Event(), threading.Event()
    start = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"museum", b"", 20_000)
    a_second = int(20_000 / (time.perf_counter() - start))

    def compute() -> None:
        begun.set()
        hashlib.pbkdf2_hmac("sha256", b"museum", b"", a_second)  # outside of the interpreter
        ended.set()

    # As a library's own: `threading` does not know it.
    _thread.start_new_thread(compute, ())
    begun.wait()
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        os._exit(0)
    was_over = ended.is_set()
    assert os.waitpid(child, 0)[1] == 0
    assert ended.wait(60)
    assert was_over is waited
