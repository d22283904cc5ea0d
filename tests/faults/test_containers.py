"""Conditions of containers, each made for a separate process, with both engines."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from local_engines import ENGINES

import rerank_plugins

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="conditions of Linux containers")

CODE = """
import sys
from rerank_plugins import load_reranker
reranker = load_reranker(sys.argv[1], device="cpu", engine=sys.argv[2], precision="fp32")
ranking = reranker.rerank("museum", ["a bus", "a museum", "\\u0645\\u062a\\u062d\\u0641"])
assert ranking.scored == 3, ranking
print("scored", reranker.describe()["engine"])
"""
MEMORY = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
USER = "import os\nos.setgid(54321)\nos.setuid(54321)\n"

READ_ONLY = """
for folder in {read_only}; do mount --bind -o ro "$folder" "$folder" || exit 77; done
"""
# A separate /dev, with what every process needs and nothing else.
NO_SHARED_MEMORY = """
mkdir -p {own}/dev && mount -t tmpfs none {own}/dev || exit 77
for name in null zero full random urandom; do
    touch {own}/dev/$name && mount --bind /dev/$name {own}/dev/$name || exit 77
done
mount --rbind {own}/dev /dev && test ! -e /dev/shm || exit 77
"""
ENTER = 'mount --make-rprivate / || exit 77\n{made}\nexec "$@"'
MOUNTS = {
    "site-packages, checkpoint and cache read-only": READ_ONLY,
    "no /dev/shm": NO_SHARED_MEMORY,
}

CONDITIONS = {
    "HOME unset": ({"HOME": None}, "", []),
    "a user without a passwd entry": ({"HOME": None}, USER, []),
    "no folder for temporary files": ({"TMPDIR": "/nowhere"}, "", []),
    "a cache that cannot be written": ({"XDG_CACHE_HOME": "/proc/cache"}, "", []),
    "an ASCII locale": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "", []),
    "python -OO": ({}, "", ["-OO"]),
    "6 GB of address space": ({"OMP_NUM_THREADS": "2"}, MEMORY, []),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_model_scores_in_a_container(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, condition: str, engine: str
) -> None:
    """Whatever the container lacks: the model is loaded, converted where need be, and scores."""
    changes, before, flags = CONDITIONS[condition]
    if before == USER and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tiny_checkpoints["bge"]
    if before == USER:
        # The test's folders are root's alone, and so is what the interpreter may be in.
        code = before + "import sys\nprint(open(sys.argv[1] + '/config.json').readable())"
        if run(code, folder, engine, changes, flags, tmp_path).returncode:
            pytest.skip("another user cannot read the test's folders here")
    # -OO takes the assertion out: what is printed tells.
    told = run(before + CODE, folder, engine, changes, flags, tmp_path)
    assert told.stdout.split()[-2:] == ["scored", engine], told.stdout + told.stderr


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", MOUNTS)
def test_a_model_scores_where_mounts_are_a_container_s(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, condition: str, engine: str
) -> None:
    """In a separate mount namespace: the model is loaded, converted again, and scores."""
    folder, cache = tiny_checkpoints["bge"], tmp_path / "cache"
    cache.mkdir()
    read_only = [Path(np.__file__).parents[1], Path(rerank_plugins.__file__).parent]
    made = MOUNTS[condition].format(
        read_only=" ".join(shlex.quote(str(path)) for path in [*read_only, folder, cache]),
        own=shlex.quote(str(tmp_path)),
    )
    told = run(
        CODE,
        folder,
        engine,
        {},
        [],
        cache,
        before=["unshare", "-m", "sh", "-c", ENTER.format(made=made), "sh"],
    )
    if told.returncode in (1, 77, 127) and "Traceback" not in told.stderr:
        pytest.skip(f"no mount namespace can be made here: {told.stderr.strip()[-100:]}")
    assert told.stdout.split()[-2:] == ["scored", engine], told.stdout + told.stderr
    assert not list(cache.iterdir()) or condition == "no /dev/shm"


@pytest.fixture
def one_cpu_of_time() -> Iterator[Path]:
    """A control group whose processes have a tenth of a second each tenth of a second."""
    made = {
        Path("/sys/fs/cgroup/cpu"): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
        Path("/sys/fs/cgroup"): {"cpu.max": "100000 100000"},
    }
    for root, settings in made.items():
        group = root / f"rerank-plugins-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value in settings.items():
                if not (group / name).exists():
                    break
                (group / name).write_text(value)
            else:
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with a CPU quota can be made here")


THREADS = """
import os, sys
with open(sys.argv[3] + "/cgroup.procs", "w") as group:
    group.write(str(os.getpid()))
import torch
from rerank_plugins import load_reranker
reranker = load_reranker(sys.argv[1], device="cpu", engine=sys.argv[2], precision="fp32")
reranker.rerank("museum", ["a bus", "a museum"])
if sys.argv[2] == "openvino":
    compiled = reranker.scorer._load()[0].engine._compiled._request.get_compiled_model()
    print("threads", compiled.get_property("INFERENCE_NUM_THREADS"))
else:
    print("threads", torch.get_num_threads())
from rerank_plugins.first_stage._faiss_vectors import _faiss
print("faiss", _faiss().omp_get_max_threads())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no more threads than one")
@pytest.mark.parametrize("engine", ENGINES)
def test_threads_follow_the_quota_and_not_the_host_s_cores(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, one_cpu_of_time: Path, engine: str
) -> None:
    """One CPU's worth of time on a machine of several cores: one thread computes."""
    changes = {"OMP_NUM_THREADS": None}
    told = run(
        THREADS, tiny_checkpoints["bge"], engine, changes, [], tmp_path, str(one_cpu_of_time)
    )
    assert told.stdout.split() == ["threads", "1", "faiss", "1"], told.stdout + told.stderr


def run(  # noqa: PLR0917
    code: str,
    folder: Path,
    engine: str,
    changes: Mapping[str, str | None],
    flags: list[str],
    cache: Path,
    *more: str,
    before: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """The process's end, in an environment with these changes."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **changes}
    return subprocess.run(
        [*before, sys.executable, *flags, "-W", "ignore", "-c", code, str(folder), engine, *more],
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        env={name: value for name, value in environment.items() if value is not None},
    )


def test_the_command_reads_and_writes_utf8_whatever_the_locale() -> None:
    """Requests on standard input, rankings on standard output."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "rerank_plugins", "rerank"],
        input='{"query": "متحف", "passages": ["المتحف مفتوح يوم الجمعة", "حافلة"]}\n'.encode(),
        check=False,
        capture_output=True,
        timeout=240,
        env=environment,
    )
    assert told.returncode == 0, told.stderr.decode("utf-8", "replace")
    assert "المتحف" in told.stdout.decode("utf-8")
