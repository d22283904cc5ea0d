"""Files, lines and import arrows of the package, in this checkout and in older ones.

The adapters' lines are told apart by what they are, as Python's parser sees them: a signature is a
function's or class's head with its decorators, a field an annotated attribute of a class.

Arrows are between modules, as import-linter sees them (grimp's graph, imports inside functions
included); a circle is a set of modules of which each reaches each.

Usage: git worktree add ../before ad87a73
       python benchmarks/house.py [--before ../before]
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tabulate import tabulate

ADAPTERS = ("langchain", "llama_index")
HEADED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
GRAPH = """
import grimp, json
graph = grimp.build_graph("rerank_plugins", exclude_type_checking_imports=True, cache_dir=None)
print(json.dumps({one: sorted(graph.find_modules_directly_imported_by(one)) for one in graph.modules}))
"""  # noqa: E501


def arrows(root: Path) -> dict[str, list[str]]:
    """Which modules of the package each imports; in a separate process, which imports them."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", GRAPH],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def circles(imported: dict[str, list[str]]) -> list[list[str]]:
    """Sets of several modules that reach each other."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = sorted(imported)
    place = {name: at for at, name in enumerate(names)}
    pairs = [(place[one], place[other]) for one in names for other in imported[one]]
    rows, columns = zip(*pairs, strict=True)
    matrix = coo_array(([1] * len(pairs), (rows, columns)), shape=(len(names), len(names)))
    _, labels = connected_components(matrix, connection="strong")
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def kinds(source: str) -> Counter[str]:
    """How many lines of a module are docstrings, signatures and fields, imports, and the rest."""
    lines = source.splitlines()
    kind = ["blank or comment" if one.strip()[:1] in ("", "#") else "code" for one in lines]

    def mark(first: int, last: int | None, name: str) -> None:
        kind[first - 1 : last] = [name] * ((last or first) - first + 1)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            mark(node.lineno, node.end_lineno, "import")
        if isinstance(node, HEADED):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            mark(first, max(node.body[0].lineno - 1, node.lineno), "signature or field")
        for one in node.body if isinstance(node, (ast.Module, *HEADED)) else ():
            if isinstance(node, ast.ClassDef) and isinstance(one, ast.AnnAssign):
                mark(one.lineno, one.end_lineno, "signature or field")
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
                mark(one.lineno, one.end_lineno, "docstring")
    return Counter(kind)


def measured(root: Path) -> dict[str, object]:
    """The figures of one checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "rerank_plugins/*.py"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=root,
    ).stdout.split()
    lines = {name: len((root / name).read_text("utf-8").splitlines()) for name in listed}
    adapters = [name for name in listed if name.split("/")[1] in ADAPTERS]
    told = sum((kinds((root / name).read_text("utf-8")) for name in adapters), Counter[str]())
    imported = arrows(root)
    found = circles(imported)
    for group in found:
        print(root, "circle:", ", ".join(group), file=sys.stderr)
    return {
        "files": len(listed),
        "lines": sum(lines.values()),
        "lines of langchain/ and llama_index/": sum(lines[name] for name in adapters),
        **{f"- {name}": count for name, count in sorted(told.items())},
        "lines of the longest file": max(lines.values()),
        "files over 350 lines": sum(count > 350 for count in lines.values()),
        "import arrows": sum(map(len, imported.values())),
        "arrows per file": round(sum(map(len, imported.values())) / len(listed), 2),
        "circles": len(found),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    options = parser.parse_args()
    roots = {"after": Path(__file__).parents[1]}
    if options.before:
        roots = {"before": options.before.resolve(), **roots}
    columns = {name: measured(root) for name, root in roots.items()}
    rows = [[row, *(one[row] for one in columns.values())] for row in next(iter(columns.values()))]
    print(tabulate(rows, ["", *columns], tablefmt="github"))


if __name__ == "__main__":
    main()
