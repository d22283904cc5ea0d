"""CPU quotas of control groups, as both of the kernel's versions tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_plugins import _cpus
from rerank_plugins._cpus import asked_threads, cpu_quota, limit_threads, thread_limit


def groups(folder: Path, mine: str, **files: str) -> dict[str, Path]:
    """Arguments of `cpu_quota`: files by path, ``__`` for ``/``."""
    told = folder / "mine"
    told.write_text(mine)
    for name, content in files.items():
        path = folder / "mounted" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {"mounted": folder / "mounted", "mine": told}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("max 100000\n", None),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("150000 100000\n", 2),
        ("400000 50000\n", 8),
        ("nonsense\n", None),
        ("", None),
    ],
)
def test_version_2(tmp_path: Path, told: str, expected: int | None) -> None:
    """``cpu.max`` has the time and the period, or max."""
    assert cpu_quota(**groups(tmp_path, "0::/\n", cpuDOTmax=told)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", None), ("250000\n", 3), ("1000\n", 1)])
def test_version_1(tmp_path: Path, quota: str, expected: int | None) -> None:
    """Two files; -1 means unlimited."""
    given = groups(
        tmp_path,
        "12:memory:/a\n4:cpu,cpuacct:/\n",
        cpu__cpuDOTcfs_quota_us=quota,
        cpu__cpuDOTcfs_period_us="100000\n",
    )
    assert cpu_quota(**given) == expected


def test_the_tightest_limit_on_the_way_up_holds(tmp_path: Path) -> None:
    """A service in a slice has the slice's limit too."""
    given = groups(
        tmp_path,
        "0::/slice/service\n",
        slice__cpuDOTmax="200000 100000\n",
        slice__service__cpuDOTmax="400000 100000\n",
    )
    assert cpu_quota(**given) == 2


def test_in_a_container_the_path_may_be_the_host_s(tmp_path: Path) -> None:
    """Then only the top is there, and it is the container's own."""
    given = groups(tmp_path, "0::/docker/3f2a\n", cpuDOTmax="100000 100000\n")
    assert cpu_quota(**given) == 1


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    """Other systems, or /proc hidden."""
    assert cpu_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("quota", "cores", "asked", "expected"),
    [
        (1, 8, None, 1),
        (8, 8, None, None),
        (16, 8, None, None),
        (None, 8, None, None),
        (1, 8, "4", None),
    ],
)
def test_threads_are_limited_below_the_cores_unless_the_user_said(
    monkeypatch: pytest.MonkeyPatch,
    quota: int | None,
    cores: int,
    asked: str | None,
    expected: int | None,
) -> None:
    """A quota of all cores limits nothing; ``OMP_NUM_THREADS`` goes before."""
    monkeypatch.setattr(_cpus, "cpu_quota", lambda: quota)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    thread_limit.cache_clear()
    assert thread_limit() == expected
    thread_limit.cache_clear()


@pytest.mark.parametrize(
    ("said", "expected"),
    [("3", 3), ("1", 1), ("2,1", 2), (" 4 ", 4), ("0", None), ("many", None), ("", None)],
)
def test_what_the_user_says_is_passed_on_to_who_does_not_read_it(
    monkeypatch: pytest.MonkeyPatch, said: str, expected: int | None
) -> None:
    """OpenVINO's threads; the first of OpenMP's numbers by level."""
    monkeypatch.setattr(_cpus, "cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    thread_limit.cache_clear()
    assert asked_threads() == expected
    thread_limit.cache_clear()


class Library:
    """Computes in so many threads."""

    __name__ = "library"

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def get(self) -> int:
        """So many."""
        return self.threads

    def set(self, threads: int) -> None:
        """So many from now on."""
        self.threads = threads


@pytest.mark.parametrize(("limit", "before", "after"), [(2, 8, 2), (2, 1, 1), (None, 8, 8)])
def test_threads_are_only_ever_taken_down(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, before: int, after: int
) -> None:
    """Fewer that the user set stay."""
    monkeypatch.setattr(_cpus, "thread_limit", lambda: limit)
    library = Library(before)
    limit_threads(library, "get", "set")
    assert library.threads == after
