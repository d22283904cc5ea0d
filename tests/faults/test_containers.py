"""Conditions of containers, each made for a process of its own, with both engines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

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

CONDITIONS = {
    "HOME unset": ({"HOME": None}, "", []),
    "a user without a passwd entry": ({"HOME": None}, USER, []),
    "no folder for temporary files": ({"TMPDIR": "/nowhere"}, "", []),
    "a cache that cannot be written": ({"XDG_CACHE_HOME": "/proc/cache"}, "", []),
    "an ASCII locale": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "", []),
    "python -OO": ({}, "", ["-OO"]),
    "6 GB of address space": ({"OMP_NUM_THREADS": "2"}, MEMORY, []),
}


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_model_scores_in_a_container(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, condition: str, engine: str
) -> None:
    """Whatever the container lacks: the model is loaded, converted where need be, and scores."""
    if engine == "openvino" and find_spec("openvino") is None:
        pytest.skip("needs openvino")
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


def run(  # noqa: PLR0917
    code: str,
    folder: Path,
    engine: str,
    changes: Mapping[str, str | None],
    flags: list[str],
    cache: Path,
) -> subprocess.CompletedProcess[str]:
    """The process's end, in an environment with these changes."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **changes}
    return subprocess.run(
        [sys.executable, *flags, "-W", "ignore", "-c", code, str(folder), engine],
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
