"""Counts turns of phrase that are not idiomatic technical English, by pattern and part of the tree.

A count and no verdict: some hits are right ("there is no index", "a bug of its own making"), so
nothing fails here. What a pattern should say instead stands beside it.

Usage: python tests/words.py [ROOT] [--lines]
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PATTERNS: Final = {
    "is no X -> is not a": r"(?<!there )\b(?:is|are|was|be) no (?!longer|more|less|other|such)\w",
    "is none -> is not one": r"(?<!there )\b(?:is|are) none\b",
    "as of X -> as in, same as": r"\bAs of `|\bas of (?=`|[A-Z]\w+(?:\.|$))",
    "one a X -> one per X": (
        r"(?i)\bone an? (?:query|retriever|stage|passage|pair|file|line|set|row)\b"
    ),
    "breaks its rule -> is invalid": r"\bbreaks? (?:its|the|a) rules?\b",
    "goes on -> resumes": r"\b(?:goes|go|went) on\b(?! to\b)",
    "what is there -> names the thing": r"\bwhat is there\b",
    "at hand -> available": r"\bat hand\b",
    "the caller ... his -> its, their": r"\bcallers?\b[^.]*\bhis\b",
    "of its own -> one word": r"\bof (?:its|their|his) own\b",
    "could be had -> available": r"\b(?:could|can) (?:not )?be had\b",
    "metadata are -> is": r"\bmetadata are\b",
}
PARTS: Final = {
    "package": ["rerank_plugins"],
    "README, docs, examples": ["README.md", "CONTRIBUTING.md", "docs", "examples", "notebooks"],
    "tests": ["tests"],
    "benchmarks, recipes": ["benchmarks", "recipes"],
}
SUFFIXES: Final = {".py", ".md", ".ipynb"}


def main() -> None:
    """Prints the table, or the lines behind it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--lines", action="store_true", help="print each line that is counted")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    for part, paths in PARTS.items():
        for file, number, line in lines(options.root, paths):
            for pattern, found in PATTERNS.items():
                if re.search(found, line):
                    counts[pattern, part] += 1
                    if options.lines:
                        print(f"{file}:{number}: [{pattern}] {line.strip()[:120]}")
    if not options.lines:
        rows = [(name, [counts[name, part] for part in PARTS]) for name in PATTERNS]
        rows.append(
            ("all", [sum(column) for column in zip(*(row[1] for row in rows), strict=True)])
        )
        print("| pattern |", " | ".join(PARTS), "| all |")
        print("|---" * (len(PARTS) + 2) + "|")
        for name, row in rows:
            print("|", name, "|", " | ".join(map(str, row)), "|", sum(row), "|")


def lines(root: Path, paths: list[str]) -> Iterator[tuple[Path, int, str]]:
    """Each line of the texts under these paths, less this file's."""
    for path in paths:
        files = [root / path] if (root / path).is_file() else sorted((root / path).rglob("*"))
        for file in files:
            if file.suffix in SUFFIXES and file.name != Path(__file__).name:
                for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
                    yield file.relative_to(root), number, line


if __name__ == "__main__":
    main()
