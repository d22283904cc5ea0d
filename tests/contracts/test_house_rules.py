"""The rules of the house: which way imports go, what is public, what is said of it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import rerank_plugins

PACKAGE = Path(rerank_plugins.__file__).parent
REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "tokenizers",
    "huggingface_hub",
    "faiss",
    "rank_bm25",
    "bm25s",
    "Stemmer",
    "datasets",
    "openvino",
    "langchain_core",
    "llama_index",
)
# These may import their own framework; importing them is asking for it.
MAY_BE_HEAVY = ("langchain", "llama_index", "training", "ray")
# These talk to a terminal.
COMMANDS = {"rerank_plugins.cli", "rerank_plugins.cli._io"}


def name_of(source: Path) -> str:
    """Dotted name of a module."""
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(code: str) -> set[str]:
    """Which heavy libraries are loaded once the code has run in a fresh interpreter."""
    told = (
        f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, env=os.environ
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither torch nor faiss nor a framework, nor numpy's weight in tokenizers."""
    assert imported_by("import rerank_plugins") == set()


def test_naming_every_public_thing_loads_nothing_heavy() -> None:
    """All of ``__all__`` imports without a model library."""
    assert imported_by("from rerank_plugins import *") == set()


def test_no_module_but_an_adapter_loads_anything_heavy() -> None:
    """Heavy libraries are imported where they are used, not where a module begins."""
    light = [
        name_of(source)
        for source in SOURCES
        if source.relative_to(PACKAGE).with_suffix("").parts[0] not in MAY_BE_HEAVY
        and source.name != "__main__.py"
        and source != PACKAGE / "testing" / "compressors.py"  # for LangChain's compressors
    ]
    assert len(light) > 20
    assert imported_by("\n".join(f"import {name}" for name in light)) == set()


@pytest.mark.skipif(
    not (REPOSITORY / "pyproject.toml").is_file() or find_spec("importlinter") is None,
    reason="needs the repository and import-linter",
)
def test_imports_go_the_ways_that_the_design_allows() -> None:
    """import-linter's contracts in pyproject.toml, all of them kept."""
    # The linter reads the source tree, wherever the tests import the package from.
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_the_public_names_are_these() -> None:
    """A name comes or goes only with the changelog; each imports, and ``dir()`` shows it."""
    assert rerank_plugins.__all__ == [
        "CATALOG",
        "Candidate",
        "Cascade",
        "ContextBuilder",
        "CrossEncoderScorer",
        "Ranked",
        "Ranking",
        "RemoteScorer",
        "Reranker",
        "ScoreCache",
        "__version__",
        "load_reranker",
    ]
    for name in rerank_plugins.__all__:
        assert getattr(rerank_plugins, name) is not None
    assert dir(rerank_plugins) == sorted(rerank_plugins.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy import of names makes up none."""
    with pytest.raises(AttributeError, match="has no attribute 'Rerankr'"):
        _ = rerank_plugins.Rerankr


def definitions(source: Path) -> Iterator[tuple[str, ast.AST]]:
    """The module, its public classes and functions, and the public methods of its classes."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    yield name_of(source), tree
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if not isinstance(node, (*functions, ast.ClassDef)) or node.name.startswith("_"):
            continue
        yield f"{name_of(source)}.{node.name}", node
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, functions) and not inner.name.startswith("_"):
                overload = any("overload" in ast.dump(mark) for mark in inner.decorator_list)
                if not overload:
                    yield f"{name_of(source)}.{node.name}.{inner.name}", inner


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if "._" not in name_of(source)], ids=name_of
)
def test_every_public_thing_says_what_it_is(source: Path) -> None:
    """Module, class, function and method each have a docstring."""
    assert [name for name, node in definitions(source) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_the_library_prints_nothing(source: Path) -> None:
    """Only the commands write to the terminal; the library logs, to its own logger."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    if name_of(source) in COMMANDS:
        return
    assert "print" not in names
    attributes = {
        (call.value.id, call.attr)
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
    }
    assert ("logging", "basicConfig") not in attributes
    assert not {attr for _, attr in attributes} & {"addHandler", "setLevel"}


def test_the_package_is_typed_and_versioned() -> None:
    """py.typed goes along, and the version is the distribution's."""
    assert (PACKAGE / "py.typed").is_file()
    assert rerank_plugins.__version__.count(".") == 2
