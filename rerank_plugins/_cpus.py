"""CPU time that a container may use, which no count of cores tells.

Docker's ``--cpus`` and Kubernetes' ``limits.cpu`` leave every core of the host in sight and take
the process off all of them once its share of each tenth of a second is used up. Libraries that
start a thread a core then mostly wait for threads that may not run.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

_MOUNTED: Final = Path("/sys/fs/cgroup")
_MINE: Final = Path("/proc/self/cgroup")


def cpu_quota(mounted: Path = _MOUNTED, mine: Path = _MINE) -> int | None:
    """CPUs' worth of time that this process's control groups allow, rounded up.

    Reads ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` (version 1) of its own group and of
    those above, as the kernel's documentation of control groups has them.

    Args:
        mounted: Where the control groups are.
        mine: Which of them this process is in.

    Returns:
        At least 1; None for no limit, or where there are no control groups.
    """
    found = [
        math.ceil(quota / period)
        for quota, period in _limits(mounted, mine)
        if quota > 0 and period > 0
    ]
    return min(found, default=None)


def _limits(mounted: Path, mine: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time, and in how many; -1 for no limit."""
    with suppress(OSError):
        for line in mine.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = mounted if not controllers else mounted / "cpu"
            # In a container the path may be the host's, of which only the top is to be seen.
            group = Path(path.strip("/"))
            for part in (group, *group.parents):
                with suppress(OSError, ValueError):
                    yield _limit(top / part, unified=not controllers)


def _limit(folder: Path, *, unified: bool) -> tuple[int, int]:
    if unified:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return (-1 if quota == "max" else int(quota)), int(period)
    quota, period = (
        (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
    )
    return int(quota), int(period)


@cache
def thread_limit() -> int | None:
    """How many threads should compute, where that is fewer than there are cores; None else.

    What the user says by ``OMP_NUM_THREADS`` goes before.
    """
    quota = None if os.environ.get("OMP_NUM_THREADS") else cpu_quota()
    return quota if quota is not None and quota < (os.cpu_count() or 1) else None


def asked_threads() -> int | None:
    """`thread_limit`, or what ``OMP_NUM_THREADS`` says, for a library that does not read it."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) > 0 else thread_limit()


def limit_threads(library: Any, getter: str, setter: str) -> None:
    """Takes a library's threads down to what the control group allows."""
    limit = thread_limit()
    if limit is not None and limit < getattr(library, getter)():
        logger.info("%s computes in %d threads, as the CPU quota is", library.__name__, limit)
        getattr(library, setter)(limit)
