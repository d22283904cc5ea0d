"""Work that is bounded whatever the input: hostile texts, and deadlines.

    python tests/faults/bounds_trials.py hostile [--sizes 10000 100000 1000000] [--only emoji]
    python tests/faults/bounds_trials.py deadlines

``hostile`` prints milliseconds for each shape and entry; ``deadlines`` how late a ranking under
``deadline_ms=1000`` came, and how many passages it has scores for.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from pathlib import Path

from rerank_plugins import load_reranker
from rerank_plugins._text import normalize
from rerank_plugins.bundled import BundledEncoder, StaticEncoder
from rerank_plugins.candidates import Ranked, Ranking, as_candidates
from rerank_plugins.context import ContextBuilder, ContextPassage
from rerank_plugins.context.duplicates import shingles_of
from rerank_plugins.context.hygiene import fenced, strip_invisible
from rerank_plugins.context.sentences import sentence_ends
from rerank_plugins.display import ranking_html
from rerank_plugins.first_stage import BM25
from rerank_plugins.first_stage.analysis import (
    LANGUAGES,
    analyzer_for,
    detect_language,
    word_spans,
)

MOST_A_MILLION = 2000  # milliseconds


def say(line: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def filled(unit: str, size: int) -> str:
    """The unit again and again, so many characters."""
    return (unit * (size // len(unit) + 1))[:size]


def drawn(alphabets: list[str], size: int) -> str:
    """So many letters, each of the next alphabet in turn; others each time, of fixed seeds.

    Nothing that an entry remembers of an earlier text helps it with the next.
    """
    draw = random.Random(next(SEEDS)).choice
    turns = cycle(alphabets)
    return "".join(draw(next(turns)) for _ in range(size))


def letters(first: int, last: int) -> str:
    """The letters of a range of code points."""
    return "".join(filter(str.isalpha, map(chr, range(first, last))))


SEEDS = count(1)
LATIN, CYRILLIC, ARABIC = letters(0x61, 0x250), letters(0x400, 0x530), letters(0x620, 0x6D4)
PLAIN = letters(0x61, 0x7B)
HAN, ANY = letters(0x4E00, 0x9FA5), letters(0x370, 0x1000)

UNITS = {
    "spaces": " ",
    "one word": "x",
    "one Arabic word": "وال",
    "tatweel": "ب\u0640",
    "emoji with joiners": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "emoji with joiners between joiners": "\U0001f468\u200d\u200d\u200c",
    "flags and skins": "\U0001f1eb\U0001f1f7\U0001f44d\U0001f3fd",
    "letters with joiners": "a\u200d",
    "nested brackets": "([{",
    "nested quotes": "«“\"'‘",
    "apostrophes": "l'",
    "mixed scripts": "aبжक",
    "humps": "aB",
    "titles joined": "GetUser",
    "bidi controls": "\u202e\u2066a",
    "bidi isolates": "\u2067بيت\u2069 \u2066home\u2069 ",
    "control characters": "a\x00\x1f\x85",
    "digits": "1,234.5/",
    "grouped digits": "1 000 ",
    "telephone": "+33-6.12/",
    "one long number": "12345,",
    "exponents": "2²³",
    "stops and quotes": '."',
    "acronym": "U.S.A.",
    "dots": ".",
    "hyphens": "e-mail-",
    "plus and hash": "C++#",
    "near duplicates": "the same words come again and again ",
    "the query's word": "museum ",
    "backticks": "`\u200d`\n",
    "Markdown fences": "```\n~~~\n",
    "HTML": "<b a='1'>&amp;</b>",
    "an address": "https://example.org/a-b_c/?q=1&r=a.b@c.d#e",
    "path": "/usr/lib",
    "CJK": "漢字かな한국",
    "Thai": "ภาษาไทย",
    "jamo": "\u1112\u1161\u11ab",
    "ligatures that grow": "\ufdfa",
    "full width": "ＡＢｃ１",
    "fractions": "1½",
    "lone surrogates": "a\ud800",
    "paragraphs": "\n \n",
    "white space of many kinds": "\u00a0\u2003\u3000\t",
}
SHAPES: dict[str, Callable[[int], str]] = {
    "marks": lambda n: "a" + filled("\u0301\u0323", n - 1),
    "marks between joiners": lambda n: "a" + filled("\u0301\u200d\u0323\u200c", n - 1),
    "Arabic marks": lambda n: "ب" + filled("\u064e\u0651\u0670", n - 1),
    "tatweel before a Quranic sign": lambda n: "\u0640" * (n - 2) + "\u0627\u0670",
    "thirty marks a letter": lambda n: filled("a" + "\u0301\u0323" * 15, n),
    "ever other scripts": lambda n: drawn([LATIN, ARABIC, CYRILLIC], n),
    "ever other letters": lambda n: drawn([ANY], n),
    "ever other Han": lambda n: drawn([HAN], n),
    "ever other words": lambda n: drawn([LATIN, LATIN, LATIN, LATIN, " "], n),
    "ever other plain words": lambda n: drawn([PLAIN] * 5 + [" "], n),
    **{name: partial(filled, unit) for name, unit in UNITS.items()},
}


def entries() -> dict[str, Callable[[str], object]]:
    """What takes text from strangers."""
    read = {name: analyzer_for(name) for name in (*LANGUAGES, "auto-neutral", "auto-ar")}
    strict = partial(ContextBuilder, 2000, fence=True, strip_invisible=True)
    builders = {
        "context": ContextBuilder(2000),
        "fenced context": strict(),
        "context, near duplicates": strict(near_duplicates=0.8, order="edges"),
        "context with room": ContextBuilder(10_000_000),
    }
    spans = ContextBuilder(2000, passages="spans")
    bm25 = BM25(["a museum", "a bus", "a river"], language="en")
    reranker = load_reranker("bundled", device="cpu", engine="torch")
    reranker.warm_up()
    static, encoder = StaticEncoder.default(), BundledEncoder.default()
    return {
        "normalize": lambda text: normalize("NFKC", text),
        **{f"terms, {name}": analyzer for name, analyzer in read.items()},
        **{f"query, {name}": analyzer.query for name, analyzer in read.items()},
        "word spans": word_spans,
        "detect_language": lambda text: detect_language([text]),
        "BM25": lambda text: BM25([text, "b"], language="en"),
        "BM25 query": lambda text: bm25.search(f"q {text}", 3),
        "explain": lambda text: BM25([text, "b"], language="auto").explain(f"q {text}", 0),
        "static vectors": lambda text: static.encode([text]),
        "encoder's tokens": encoder.count_tokens,
        "encoder's query": lambda text: encoder.encode_query([text]),
        "shingles": shingles_of,
        "sentences": sentence_ends,
        "fenced": lambda text: fenced("", text),
        "fenced header": lambda text: fenced(text, ""),
        "strip_invisible": strip_invisible,
        **{name: partial(packed, builder) for name, builder in builders.items()},
        "context of spans": lambda text: spans.build([ContextPassage(text, text, 1.0, (0, 9))]),
        "rerank passage": lambda text: reranker.rerank("museum", [text, "b"]),
        "rerank query": lambda text: reranker.rerank(f"q {text}", ["a", "b"]),
        "display passage": lambda text: ranking_html(ranked("museum", text)),
        "display query": lambda text: ranking_html(ranked(f"q {text}", "a museum")),
    }


def packed(builder: ContextBuilder, text: str) -> object:
    """The context of a text beside a short one."""
    return builder.build([text, "b"])


def ranked(query: str, text: str) -> Ranking:
    """A ranking that no model made."""
    some = as_candidates([text, "b"])
    items = [Ranked(one, 1.0 / rank, 1.0, rank) for rank, one in enumerate(some, start=1)]
    return Ranking(query, tuple(items), "none", "logit", len(some))


def hostile(sizes: list[int], only: str) -> None:
    """All times, then of each entry the slowest shape, and what grew more than the text.

    Args:
        sizes: Characters, ascending.
        only: Part of the shapes' names.
    """
    kinds = entries()
    for call in kinds.values():
        call("warm up")
    # A collection of all that torch and others hold takes 150 ms, which have nothing to do with
    # the text that happens to set it off.
    gc.collect()
    gc.freeze()
    rows: list[tuple[str, str, list[float]]] = []
    say("| Shape | Entry | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    say("|---|---|" + "---:|" * len(sizes))
    for shape, make in SHAPES.items():
        if only not in shape:
            continue
        for entry, call in kinds.items():
            times = [milliseconds(call, make(size)) for size in sizes]
            if times[-1] > MOST_A_MILLION * sizes[-1] / 1_000_000:
                # The less of two, since other work on the machine can only add.
                times = [
                    min(ms, milliseconds(call, make(size)))
                    for ms, size in zip(times, sizes, strict=True)
                ]
            rows.append((shape, entry, times))
            say(f"| {shape} | {entry} | " + " | ".join(f"{ms:.1f}" for ms in times) + " |")
    say("\n| Entry | " + " | ".join(f"{size:,}" for size in sizes) + " | Slowest shape |")
    say("|---|" + "---:|" * len(sizes) + "---|")
    for entry in kinds:
        shape, _, times = max((row for row in rows if row[1] == entry), key=lambda row: row[2][-1])
        say(f"| {entry} | " + " | ".join(f"{ms:.0f}" for ms in times) + f" | {shape} |")
    per_million = sizes[-1] / 1_000_000
    over = [row for row in rows if row[2][-1] > MOST_A_MILLION * per_million]
    say(f"\nover {MOST_A_MILLION} ms a million characters: {over or 'none'}")
    if len(sizes) > 1:
        growth = 1.5 * sizes[-1] / sizes[-2]
        grown = [row for row in rows if row[2][-1] > max(100.0, growth * row[2][-2])]
        say(f"grown by half more than the text: {grown or 'none'}")


def milliseconds(call: Callable[[str], object], text: str) -> float:
    """Of processor time, of one call."""
    start = time.process_time()
    call(text)
    return 1000 * (time.process_time() - start)


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
    parser.add_argument("--only", default="", help="part of the shapes' names")
    options = parser.parse_args()
    if options.what == "hostile":
        hostile(options.sizes, options.only)
    else:
        deadlines()
