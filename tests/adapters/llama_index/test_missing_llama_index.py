"""What happens where LlamaIndex is not installed."""

from __future__ import annotations

import subprocess
import sys

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llama_index":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs the code in a process where LlamaIndex cannot be found."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code], capture_output=True, text=True, check=False
    )


def test_the_error_names_the_command_that_installs_it():
    """It is an ImportError, of our own tree, and says what to type."""
    done = run(
        "from rerank_plugins.errors import MissingDependencyError\n"
        "try:\n"
        "    import rerank_plugins.llama_index\n"
        "except MissingDependencyError as error:\n"
        "    assert isinstance(error, ImportError)\n"
        "    print(error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'rerank-plugins[llama-index]'" in done.stdout


def test_the_rest_of_the_library_does_not_need_it():
    """The core imports and reranks without the framework."""
    done = run(
        "from rerank_plugins import Reranker\n"
        "from rerank_plugins.testing import OverlapScorer\n"
        "print(Reranker(OverlapScorer()).rerank('a', ['b', 'a']).texts)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['a', 'b']"
