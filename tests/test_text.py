"""Stream-safe text: runs of combining marks are bounded before anything normalizes them."""

from __future__ import annotations

import ast
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rerank_plugins
from rerank_plugins._text import MAX_MARKS, normalize, stream_safe

MARKS = "\u0301\u0323\u064e\u0651\u0670\u3099\uff9e\ufe0f"
IGNORED = "\u200c\u200d\u202e\u00ad\u0640\x00"
PACKAGE = Path(rerank_plugins.__file__).parent


def longest_run(text: str) -> int:
    """The longest run of characters that canonical ordering may move."""
    longest = run = 0
    for character in unicodedata.normalize("NFKD", text):
        run = run + 1 if unicodedata.combining(character) else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "مَرْحَبًا بِكُمْ فِي الْمَكْتَبَةِ",
        "Nguyễn",
        "e" + "\u0301" * MAX_MARKS,
        "e" + "\u0301\u200d" * MAX_MARKS,
        "\u0640" * 100,
        "\u0301" + "\u0640" * 100,
    ],
)
def test_text_with_at_most_thirty_marks_in_a_row_stays_as_it_is(text: str) -> None:
    """Only what no language writes is cut."""
    assert stream_safe(text) == text


def test_the_first_thirty_marks_of_a_run_stay() -> None:
    """In their order, with whatever comes before and after."""
    run = "\u0301\u0323" * 50
    assert stream_safe(f"a{run}b{run}c") == f"a{run[:30]}b{run[:30]}c"


@pytest.mark.parametrize("between", IGNORED)
def test_marks_that_meet_once_a_character_is_deleted_are_one_run(between: str) -> None:
    """A normalizer that drops joiners or tatweel first meets no longer run."""
    cut = stream_safe("a" + ("\u0301" + between) * 1000 + "b")
    assert cut.count("\u0301") == MAX_MARKS
    assert cut.count(between) == 1000
    assert cut.startswith("a")
    assert cut.endswith("b")


@given(st.text(alphabet=MARKS + IGNORED + "aé \n", max_size=400))
def test_no_run_is_longer_than_thirty_and_nothing_else_changes(text: str) -> None:
    """Whatever stands between the marks."""
    cut = stream_safe(text)
    assert longest_run("".join(c for c in cut if c not in IGNORED)) <= MAX_MARKS
    assert [c for c in cut if c not in MARKS] == [c for c in text if c not in MARKS]
    assert stream_safe(cut) == cut
    assert normalize("NFKC", text) == unicodedata.normalize("NFKC", cut)


def test_of_a_sign_that_becomes_eighteen_letters_thirty_in_a_row_stay() -> None:
    """White space between them is no text; a word is. Nothing else grows nearly as much."""
    sign = "\ufdfa"
    assert stream_safe(f"a{sign * 30}b{f'{sign} ' * 99}c") == f"a{sign * 30}b{f'{sign} ' * 30}c"
    assert stream_safe(f"محمد {sign} " * 99) == f"محمد {sign} " * 99
    grown = {chr(code): len(unicodedata.normalize("NFKC", chr(code))) for code in range(0x110000)}
    assert [one for one, length in grown.items() if length > 8] == [sign]


def test_no_character_but_a_mark_becomes_one_that_starts_with_a_mark() -> None:
    """Over all of Unicode: a decomposition joins the run before it by its first characters."""
    for code in range(sys.maxunicode + 1):
        first = unicodedata.normalize("NFKD", chr(code))[0]
        if unicodedata.combining(first):
            assert stream_safe("a" + chr(code) * 100) == "a" + chr(code) * MAX_MARKS, hex(code)


def test_the_package_normalizes_by_this_function_alone() -> None:
    """A bare ``unicodedata.normalize`` is quadratic on hostile text."""
    bare = [
        f"{source.relative_to(PACKAGE)}:{node.lineno}"
        for source in PACKAGE.rglob("*.py")
        if source.name != "_text.py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"normalize", "is_normalized"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "unicodedata"
    ]
    assert not bare
