"""What importing the adapter needs, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def _run(code):
    """Runs the code in a fresh interpreter; gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("missing", ["langchain_core", "langchain_core.cross_encoders"])
def test_without_langchain_core_the_error_gives_the_command(missing):
    """Absent, or too old to have cross-encoders: the same line mends both."""
    printed = _run(
        f"""
        import sys
        sys.modules[{missing!r}] = None
        from rerank_plugins.errors import MissingDependencyError
        try:
            import rerank_plugins.langchain
        except MissingDependencyError as error:
            print(error)
        """
    )
    assert "pip install 'rerank-plugins[langchain]'" in printed


def test_importing_loads_no_model_library():
    """Heavy libraries are loaded when they are used."""
    printed = _run(
        """
        import sys
        import rerank_plugins.langchain
        heavy = {"torch", "transformers", "faiss", "sentence_transformers", "rank_bm25", "bm25s",
                 "langchain_classic", "langchain_community", "llama_index"}
        print(sorted(heavy & sys.modules.keys()))
        """
    )
    assert printed.strip() == "[]"
