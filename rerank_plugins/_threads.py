"""Runs blocking work beside the event loop, in threads of our own; and what forks need.

asyncio's default executor is shared with everything else in the process: a hundred rerank
calls waiting there would hold up the caller's own ``to_thread`` work.

A forked child has one thread, and every lock as it stood at the fork: one that another thread
held then would be held for ever. What is registered here is renewed in the child.
"""

from __future__ import annotations

import _imp
import asyncio
import contextvars
import importlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial, wraps
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

P = ParamSpec("P")
T = TypeVar("T")


# More threads that compute only take the interpreter from each other, and from the loop.
_COMPUTING = 8
_WAITING = 64

_cancelled: Final = contextvars.ContextVar[threading.Event | None]("cancelled", default=None)
_LONGEST_PASS: Final = 30.0  # seconds that a fork waits, at most, for others' passes
_LONGEST_REST: Final = 1.0  # and then for the helpers of these to lie down

_locks: Final[WeakSet[Any]] = WeakSet()
_without_forks: Final[WeakSet[Any]] = WeakSet()
_making: Final[Any] = threading.RLock()  # held while one of these is made
# Locks of modules whose import outlasted a fork's wait: one that runs a server, say.
_endless: Final[WeakSet[Any]] = WeakSet()
_forking: Final = threading.local()  # what a thread that forks holds meanwhile
_renewed: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="rerank-plugins")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits a call that computes; context variables (callbacks, traces) go along."""
    return await _run(_COMPUTING, partial(call, *args, **kwargs))


def off_loop(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The asynchronous twin of a method: calls it, as the object's class has it, by `in_thread`.

    Where it overrides a method, mypy takes the base for the type of ``self``, and complains.
    """
    name = method.__name__

    @wraps(method)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        bound: Callable[..., T] = getattr(args[0], name)
        return await in_thread(bound, *args[1:], **kwargs)

    twin.__name__ = f"_a{name[1:]}" if name.startswith("_") else f"a{name}"
    twin.__doc__ = f"`{name}` that leaves the event loop free."
    return cast("Callable[P, Coroutine[Any, Any, T]]", twin)


async def in_waiting_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`in_thread` for a call that waits for others most of its time: more run at once."""
    return await _run(_WAITING, partial(call, *args, **kwargs))


async def _run(threads: int, call: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    cancelled = threading.Event()
    context.run(_cancelled.set, cancelled)
    loop = asyncio.get_running_loop()
    try:
        work = loop.run_in_executor(_executor(threads), context.run, call)
    except RuntimeError:
        # The interpreter is ending: no thread can be started any more, inside `atexit` say.
        return context.run(call)
    try:
        return await work
    except asyncio.CancelledError:
        cancelled.set()
        raise


def cancellation() -> threading.Event | None:
    """Set once nobody awaits the call any more that this thread works for; None for no such."""
    return _cancelled.get()


def fork_safe_lock() -> threading.Lock:
    """A lock that a forked child finds open, whoever held it at the fork.

    A real one and not a class around it: a signal's exception between a wrapper's two steps
    would leave it locked for ever.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def lock_without_forks() -> threading.RLock:
    """A lock for what no fork may fall into: a process that forks waits until it is free.

    For libraries that keep locks of their own while they compute: a child that is born in the
    middle of that could never use them. Reentrant, since a signal's handler may fork.
    """
    lock = threading.RLock()
    with _making:
        _without_forks.add(lock)
    return lock


def after_fork_in_child(owner: object, method: str) -> None:
    """Has ``owner.method()`` called in every forked child, as long as the owner lives.

    The owner must be hashable. In the child no other thread runs, and nothing may block.
    """
    _renewed[owner] = method


def _imports_again() -> None:
    if _forking.__dict__.pop("importing", False):
        _imp.release_lock()


def _in_child() -> None:
    _imports_again()
    # A forked child has the executors but none of their threads: work would never start.
    _executor.cache_clear()
    for lock in [*_locks, *_without_forks, _making]:
        lock._at_fork_reinit()  # noqa: SLF001  (what threading and logging do themselves)
    _one_openmp_thread()
    for owner, method in list(_renewed.items()):
        getattr(owner, method)()
    _renew_faiss(sys.modules.get("faiss"))
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if bars is not None:  # every progress bar takes the same lock when it is made
        bars.set_lock(threading.RLock())


def _one_openmp_thread() -> None:
    """Lets torch and FAISS compute in a forked child, which lacks OpenMP's other threads.

    GNU's OpenMP waits for them for ever once the parent has used them.
    """
    for module, setter in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        limit = getattr(sys.modules.get(module), setter, None)
        if limit is not None:
            limit(1)


def _renew_faiss(faiss: Any) -> None:
    """Takes FAISS's look for Ctrl-C out of a forked child.

    A thread that computes holds FAISS's own lock while it waits for the interpreter, to ask
    whether Ctrl-C was pressed; without a callback there is nothing to ask and no lock.
    """
    if hasattr(faiss, "InterruptCallback"):
        faiss.InterruptCallback.clear_instance()


def _before() -> None:
    """Waits until no thread is where a forked child could not go on, and keeps all of them there.

    A child whose parent's other thread was importing a module can never import it. New imports
    wait while the interpreter's import lock is held, which comes last: a pass may import.
    """
    until = monotonic() + _LONGEST_PASS
    held: list[Any] = []
    _forking.held = held
    while True:
        _take_all(held, until)
        _wait_for_helpers()
        _imp.acquire_lock()
        importing = _others_import()
        if not importing or monotonic() >= until:
            _forking.importing = True
            _endless.update(importing)
            return
        _imp.release_lock()
        _released(held)
        sleep(0.001)


def _wait_for_helpers() -> None:
    """Waits until no thread of OpenVINO's own runs any more, a second at most.

    A pass has ended before its helpers lie down, and on the way they take locks of the library
    for all its work: a child born then hangs in its first pass. Linux tells who runs; other
    systems are not asked.
    """
    until = monotonic() + _LONGEST_REST
    while "openvino" in sys.modules and _helper_runs() and monotonic() < until:
        sleep(0.001)


def _helper_runs() -> bool:
    """Whether a thread that Python does not know is running, or waits for a processor."""
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    with suppress(OSError):
        return any(
            _state(task) == "R"
            for task in Path("/proc/self/task").iterdir()
            if task.name not in ours
        )
    return False


def _state(task: Path) -> str:
    """Of a thread, as in proc(5); nothing for one that has just ended."""
    with suppress(OSError):
        return (task / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    return ""


def _others_import() -> list[Any]:
    """The locks of modules that other threads are importing, which say who holds them."""
    bootstrap = getattr(importlib, "_bootstrap", None)
    locks = [lock() for lock in list(getattr(bootstrap, "_module_locks", {}).values())]
    nobody_else = (None, threading.get_ident())
    return [
        lock
        for lock in locks
        if getattr(lock, "owner", None) not in nobody_else and lock not in _endless
    ]


def _take_all(held: list[Any], until: float) -> None:
    """Takes every lock that keeps forks out, holding none while it waits for another.

    Their threads may hold one and want the next, as may a second thread that forks. What is
    taken last keeps new ones from being made: a model that another thread begins to load.
    """
    busy = None
    while busy is None or busy.acquire(timeout=max(0.0, until - monotonic())):
        if busy is not None:
            held.append(busy)
        with _making:
            busy = next((one for one in _keeping_forks_out() if not _taken(one, held)), None)
            if busy is None:
                _making.acquire()
                held.append(_making)
                return
        _released(held)


def _keeping_forks_out() -> list[Any]:
    while True:
        with suppress(RuntimeError):  # the interpreter collected one at that moment
            return list(_without_forks)


def _taken(lock: Any, held: list[Any]) -> bool:
    if lock in held:
        return True
    free: bool = lock.acquire(blocking=False)
    if free:
        held.append(lock)
    return free


def _released(held: list[Any]) -> None:
    while held:
        held.pop().release()


def _in_parent() -> None:
    _imports_again()
    _released(_forking.__dict__.pop("held", []))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
