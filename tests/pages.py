"""Code blocks of the README and the documentation: found, run, and their output written down.

A ``python`` block that a ``text`` block follows prints that text. ``make outputs`` writes the
texts anew after a change that moves scores.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md")) if (ROOT / "docs").is_dir() else []
_FENCE = re.compile(r"^(```+)(\w+)\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind the fence, such as ``python``.
        code: Its text.
        line: Where the code begins in the page, from 1.
        start: Where the text begins, in characters.
        output: The ``text`` block that follows it directly, if one does.
    """

    language: str
    code: str
    line: int
    start: int
    output: Block | None = None


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of one language, each with its output."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = [
        (match, Block(match[2], match[3], text.count("\n", 0, match.start(3)) + 1, match.start(3)))
        for match in _FENCE.finditer(text)
    ]
    result = []
    for number, (match, block) in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else None
        output = None
        if following is not None and following[1].language == "text":
            between = text[match.end() : following[0].start()]
            output = following[1] if not between.strip() else None
        if block.language == language:
            result.append(Block(block.language, block.code, block.line, block.start, output))
    return result


def run(page: Path, block: Block, namespace: dict[str, object]) -> str:
    """Runs a block and gives what it printed."""
    # Lines of a traceback are those of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def outputs(page: Path) -> Iterator[tuple[Block, str]]:
    """Each Python block of a page with what it prints.

    A page's blocks are run in order and share their names; those of the README, which are
    copied one by one, do not.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        if page == README:
            namespace = {"__name__": "__main__"}
        yield block, run(page, block, namespace)


def _versions() -> str:
    """The pinned versions that the tests run with."""
    used = {
        "torch": "scoring",
        "transformers": "scoring",
        "tokenizers": "scoring",
        "sentence-transformers": "training; checkpoints of other forms",
        "openvino": "extra openvino",
        "faiss-cpu": "dense search",
        "PyStemmer": "text analysis",
        "langchain-core": "extra langchain",
        "langgraph": "examples",
        "llama-index-core": "extra llama-index",
        "ray": "extra ray",
        "ir-measures": "extra evaluation",
    }
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return _table(
        ["package", "version", "used for"],
        [[name, pinned[name], use] for name, use in used.items()],
    )


def _catalog() -> str:
    """The models that load by name."""
    from rerank_plugins import CATALOG

    rows = [
        [
            f"`{one.name}`",
            " ".join(one.languages),
            f"{one.max_length:,}",
            one.licence,
            one.headline,
            one.note,
        ]
        for one in CATALOG.values()
    ]
    return _table(["name", "languages", "tokens", "licence", "the card's figure", "note"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# By the comments that stand around them in a page.
TABLES = {"versions": _versions, "catalog": _catalog}


def with_tables(text: str) -> str:
    """A page with its tables as they are now."""
    for name, table in TABLES.items():
        around = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", flags=re.DOTALL)
        if around.search(text):
            made = table()
            text = around.sub(lambda match, made=made: f"{match[1]}{made}{match[2]}", text)
    return text


def main() -> None:
    """Writes outputs and tables of every page anew, or of those named."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for page in named or [README, *PAGES]:
        os.chdir(tempfile.mkdtemp())
        text = with_tables(page.read_text(encoding="utf-8"))
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
        printed = list(outputs(page))
        for block, said in reversed(printed):
            if block.output is not None:
                end = block.output.start + len(block.output.code)
                text = text[: block.output.start] + said + text[end:]
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            sys.stderr.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    # As in the tests: exact scores, the same on every machine.
    from rerank_plugins.scoring import engines

    engines._MEASURED_MACHINES = set()
    engines.native_bf16 = lambda: False
    main()
