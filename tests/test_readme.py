"""The README keeps its word: every Python block runs, every command it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"

pytestmark = pytest.mark.skipif(
    not README.is_file(), reason="the README is not beside the tests (installed package only)"
)


def blocks(kind: str) -> list[str]:
    """The fenced code of one language."""
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block_runs_by_itself(number, monkeypatch, tmp_path, capsys):
    """A reader copies one block, not the whole page: each runs in a namespace of its own."""
    monkeypatch.chdir(tmp_path)
    code = compile(blocks("python")[number], f"README.md block {number}", "exec")
    exec(code, {"__name__": "__main__"})


def test_there_are_blocks_for_both_frameworks():
    """The page shows LangChain and LlamaIndex."""
    together = "\n".join(blocks("python"))
    assert "rerank_plugins.langchain" in together
    assert "rerank_plugins.llama_index" in together


def test_make_targets_in_the_readme_exist():
    """`make demo` and the others are in the Makefile."""
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(blocks("bash"))))
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in named)
