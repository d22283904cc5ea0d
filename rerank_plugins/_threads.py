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


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="rerank-plugins")


if hasattr(os, "register_at_fork"):
    # A forked child has the executor but none of its threads: work given to it would never start.
    os.register_at_fork(after_in_child=_executor.cache_clear)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits a blocking call; context variables (callbacks, traces) go along."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(
        _executor(), partial(context.run, call, *args, **kwargs)
    )
