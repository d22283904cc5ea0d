"""Work that is bounded whatever the input: hostile texts, and deadlines.

    python tests/faults/bounds_trials.py hostile [--sizes 10000 100000 1000000]
    python tests/faults/bounds_trials.py deadlines

``hostile`` prints milliseconds for each shape and entry; ``deadlines`` how late a ranking under
``deadline_ms=1000`` came, and how many passages it has scores for.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rerank_plugins import load_reranker
from rerank_plugins._text import normalize
from rerank_plugins.context import ContextBuilder
from rerank_plugins.context.duplicates import shingles_of
from rerank_plugins.context.hygiene import fenced, strip_invisible
from rerank_plugins.context.sentences import sentence_ends
from rerank_plugins.first_stage import BM25
from rerank_plugins.first_stage.analysis import analyzer_for, detect_language


def say(line: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def filled(unit: str, size: int) -> str:
    """The unit again and again, so many characters."""
    return (unit * (size // len(unit) + 1))[:size]


SHAPES: dict[str, Callable[[int], str]] = {
    "marks": lambda n: "a" + filled("\u0301\u0323", n - 1),
    "marks between joiners": lambda n: "a" + filled("\u0301\u200d\u0323\u200c", n - 1),
    "Arabic marks": lambda n: "ب" + filled("\u064e\u0651\u0670", n - 1),
    "spaces": lambda n: filled(" ", n),
    "one word": lambda n: filled("x", n),
    "one Arabic word": lambda n: filled("وال", n),
    "emoji with joiners": lambda n: filled("\U0001f468\u200d\U0001f469\u200d\U0001f467", n),
    "nested brackets": lambda n: filled("([{", n),
    "apostrophes": lambda n: filled("l'", n),
    "mixed scripts": lambda n: filled("aبжक", n),
    "bidi controls": lambda n: filled("\u202e\u2066a", n),
    "digits": lambda n: filled("1,234.5/", n),
    "stops and quotes": lambda n: filled('."', n),
    "near duplicates": lambda n: filled("the same words come again and again ", n),
    "backticks": lambda n: filled("`\u200d`\n", n),
}


def entries() -> dict[str, Callable[[str], object]]:
    """What takes text from strangers."""
    arabic, french = analyzer_for("ar"), analyzer_for("fr")
    builder, strict = ContextBuilder(2000), ContextBuilder(2000, fence=True, strip_invisible=True)
    bm25 = BM25(["a museum", "a bus", "a river"], language="en")
    reranker = load_reranker("bundled", device="cpu", engine="torch")
    reranker.warm_up()
    return {
        "normalize": lambda text: normalize("NFKC", text),
        "terms, ar": arabic,
        "terms, fr": french,
        "detect_language": lambda text: detect_language([text]),
        "BM25": lambda text: BM25([text, "b"], language="en"),
        "BM25 query": lambda text: bm25.search(f"q {text}", 3),
        "shingles": shingles_of,
        "sentences": sentence_ends,
        "fenced": lambda text: fenced("", text),
        "strip_invisible": strip_invisible,
        "context": lambda text: builder.build([text, "b"]),
        "fenced context": lambda text: strict.build([text, "b"]),
        "rerank passage": lambda text: reranker.rerank("museum", [text, "b"]),
        "rerank query": lambda text: reranker.rerank(f"q {text}", ["a", "b"]),
    }


def hostile(sizes: list[int]) -> None:
    """The table, and the worst growth from one size to the next."""
    kinds = entries()
    for call in kinds.values():
        call("warm up")
    worst: list[tuple[float, str]] = []
    say("| Shape | Entry | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    say("|---|---|" + "---:|" * len(sizes))
    for shape, make in SHAPES.items():
        for entry, call in kinds.items():
            times = []
            for size in sizes:
                text = make(size)
                start = time.process_time()
                call(text)
                times.append(1000 * (time.process_time() - start))
            worst.append((times[-1], f"{shape}, {entry}"))
            say(f"| {shape} | {entry} | " + " | ".join(f"{ms:.1f}" for ms in times) + " |")
    say(f"\nslowest, ms of processor time: {sorted(worst, reverse=True)[:8]}")


SHORT = [f"Tickets for the maritime museum cost {n} euros on Sundays." for n in range(20)]
WORDS = "The river runs past the old mill and the road leads on to the village. "


def deadlines() -> None:
    """How late, over a second, whatever lies beside twenty short passages."""
    say("| Beside twenty short passages | long_passages | ms late | scored of 21 |")
    say("|---|---|---:|---:|")
    long = {
        "144 kB": filled(WORDS, 144_000),
        "1 MB": filled(WORDS, 1_000_000),
        "10 MB": filled(WORDS, 10_000_000),
        "one word of 1 MB": filled("x", 1_000_000),
        "marks, 1 MB": "a" + filled("\u0301\u0323", 999_999),
        "nothing": "short",
    }
    for how in ("max", "best"):
        reranker = load_reranker("bundled", device="cpu", long_passages=how, deadline_ms=1000)
        reranker.warm_up()
        for name, text in long.items():
            tell(name, how, partial(reranker.rerank, "museum tickets", [text, *SHORT]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.sqlite"
        cached = load_reranker("bundled", device="cpu", cache=path, deadline_ms=1000)
        cached.warm_up()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
        blocker.execute("BEGIN EXCLUSIVE")
        for turn in range(3):
            name = f"cache file locked, call {turn + 1}"
            tell(name, "max", lambda: cached.rerank("museum tickets", SHORT))
    busy = load_reranker("bundled", device="cpu", deadline_ms=8000)
    text = filled(WORDS, 100_000)
    busy.warm_up()
    thread = threading.Thread(target=busy.rerank, args=("museum", [text] * 4))
    thread.start()
    time.sleep(0.2)
    reranker = load_reranker("bundled", device="cpu", deadline_ms=1000)
    tell("model busy with another's 400 kB", "max", lambda: reranker.rerank("museum", SHORT))


def tell(name: str, how: str, call: Callable[[], object]) -> None:
    """One row."""
    start = time.perf_counter()
    ranking = call()
    late = 1000 * (time.perf_counter() - start) - 1000
    say(f"| {name} | {how} | {max(0.0, late):.0f} | {ranking.scored} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["hostile", "deadlines"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    if options.what == "hostile":
        hostile(options.sizes)
    else:
        deadlines()
