"""Runs blocking work beside the event loop, in threads of our own.

asyncio's default executor is shared with everything else in the process: a hundred rerank
calls waiting there would hold up the caller's own ``to_thread`` work.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


# More threads that compute only take the interpreter from each other, and from the loop.
_COMPUTING = 8
_WAITING = 64


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="rerank-plugins")


if hasattr(os, "register_at_fork"):
    # A forked child has the executor but none of its threads: work given to it would never start.
    os.register_at_fork(after_in_child=_executor.cache_clear)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits a call that computes; context variables (callbacks, traces) go along."""
    return await _run(_COMPUTING, partial(call, *args, **kwargs))


async def in_waiting_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`in_thread` for a call that waits for a server most of its time: more run at once."""
    return await _run(_WAITING, partial(call, *args, **kwargs))


async def _run(threads: int, call: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_executor(threads), context.run, call)
