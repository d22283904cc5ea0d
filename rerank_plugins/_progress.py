"""Progress bars of long work: on a terminal, and no lock anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], **bar: Any) -> Iterable[T]:
    """The items, with a bar on standard error if that is a terminal.

    Making even a disabled tqdm bar takes two locks, one of them shared with every process that
    was forked before; an interrupt in between leaves them taken. A server has no terminal, so
    there the items are returned as they are.

    Args:
        items: What the work goes through.
        **bar: For ``tqdm.tqdm``: ``desc``, ``unit``, ``delay``.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, **bar)
