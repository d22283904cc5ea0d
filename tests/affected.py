"""Names the test files that belong to the files changed since a commit: `make test-fast`.

A changed module's tests are those named after it and, unless many do, those that import it; a
changed test file is its own. That is quick and not complete: `make test` runs everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A module that more test files import than these is everybody's: its own tests must do.
MANY = 10


def changed(since: str) -> list[Path]:
    """Files that differ from the commit, new ones among them."""
    commands = (
        ("git", "diff", "--name-only", "--diff-filter=d", since),
        ("git", "ls-files", "--others", "--exclude-standard"),
    )
    found = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in commands
    ]
    return [Path(name) for name in "".join(found).splitlines()]


def tests_of(file: Path, tests: dict[Path, str]) -> set[Path]:
    """The test files that belong to one changed file.

    Args:
        file: Relative to the repository.
        tests: Every test file with its text.
    """
    if file in tests:
        return {file}
    if file.suffix != ".py":
        named = re.compile(re.escape(file.name))
    elif file.parts[0] == "rerank_plugins":
        parts = file.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        parent, name = ".".join(parts[:-1]), parts[-1]
        # `import a.b.name`, `from a.b.name import`, `from a.b import name`
        named = re.compile(
            rf"{re.escape('.'.join(parts))}\b|from {re.escape(parent)} import [^\n]*\b{name}\b"
            if parent
            else r"^import rerank_plugins$",
            flags=re.MULTILINE,
        )
    else:  # a helper of the tests
        named = re.compile(rf"\b(from|import) {file.stem}\b")
    stem = file.stem.strip("_")
    own = {test for test in tests if re.search(rf"(^|_){re.escape(stem)}(_|$)", test.stem)}
    users = {test for test, text in tests.items() if named.search(text)}
    return own if own and len(users) > MANY else own | users


def main(since: str) -> None:
    """Prints the test files, one per line."""
    tests = {
        path.relative_to(ROOT): path.read_text(encoding="utf-8")
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    found = set[Path]().union(*(tests_of(file, tests) for file in changed(since)))
    print("\n".join(sorted(map(str, found))))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "HEAD")
