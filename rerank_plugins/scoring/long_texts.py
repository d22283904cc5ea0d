"""Texts of any length, for a tokenizer: readable, in blocks, and no more of them than is used."""

from __future__ import annotations

from typing import Final

from rerank_plugins._text import stream_safe

BLOCK: Final = 1 << 16
"""Characters that are tokenized at a time; a row of 8,192 tokens is hardly ever longer."""

# Characters that a token has at most, but in texts that are hardly of words.
_TOKEN: Final = 16
# How far back a blank is looked for, where a text may be cut.
_BACK: Final = 1 << 10


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 can hold, made U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def readable(text: str) -> str:
    """The text as a tokenizer can take it in linear time: well formed, and stream-safe."""
    return stream_safe(well_formed(text))


def blocks_of(text: str) -> list[str]:
    """The text in blocks, cut before a blank where there is one: tokens of one after another.

    Words are tokenized apart from each other, so cutting between two changes no token, as far
    as the tokenizer takes a text's first word for any other.
    """
    if len(text) <= BLOCK:
        return [text]
    blocks, start = [], 0
    while len(text) - start > BLOCK:
        end = _blank_before(text, start, start + BLOCK)
        blocks.append(text[start:end])
        start = end
    return [*blocks, text[start:]]


def head_of(text: str, tokens: int) -> str:
    """A beginning that has more than so many tokens, in all but odd texts; or the text."""
    length = _TOKEN * tokens + _BACK
    return text if len(text) <= length else text[: _blank_before(text, 0, length)]


def _blank_before(text: str, start: int, end: int) -> int:
    """The last blank not far before ``end`` and behind ``start``, or ``end``."""
    start = max(start, end - _BACK)
    blank = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
    return blank if blank > start else end
