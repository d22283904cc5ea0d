"""One event loop in a separate thread, for the whole process.

A pool of connections belongs to one event loop; with a loop that stays, connections are used
again whichever thread or loop the caller is on. It also gives what blocking sockets cannot:
a bound on the whole time of a request, whatever the server drips.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Starts the work on that loop; cancelling the future cancels it."""
    global _loop  # noqa: PLW0603
    with _guard:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(
                target=_loop.run_forever, name="rerank-plugins-remote", daemon=True
            ).start()
        return asyncio.run_coroutine_threadsafe(work, _loop)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Blocks until the work is done; an interrupt cancels it."""
    future = start(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _forget_after_fork() -> None:
    """A forked child has the loop but not its thread: it starts its own at first use."""
    global _loop, _guard
    _loop, _guard = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
