"""Unicode normalization in linear time, whatever the text.

Canonical ordering sorts each run of combining marks, and CPython sorts it by insertion: 100,000
alternating marks keep ``unicodedata.normalize`` busy for most of a minute, in one call that
nothing can interrupt. Unicode's stream-safe text format (UAX #15, section 13) therefore allows
at most 30 marks in a row. No language writes more than a handful.

The longest compatibility form is that of U+FDFA, "may God honour him and grant him peace": one
character becomes 18, so that a text of nothing else would be 18 times as long to whoever reads
it. Of these, too, 30 in a row are enough.
"""

from __future__ import annotations

import unicodedata
from typing import Final, Literal

import regex

MAX_MARKS: Final = 30
"""The longest run of combining marks in stream-safe text (UAX #15, section 13)."""

# The two halfwidth kana marks are letters that become marks under NFKC.
_MARK: Final = r"\p{M}\uFF9E\uFF9F"
# What a tokenizer or an analyzer may delete before it normalizes, which joins the marks around it.
_DELETED: Final = r"\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\u0640"
_MARKS: Final = regex.compile(rf"[{_MARK}]+", regex.V1)
_LONG_RUN: Final = regex.compile(
    rf"[{_MARK}][[{_MARK}{_DELETED}]--[\t\n\r]]{{{MAX_MARKS},}}", regex.V1
)

_PHRASE: Final = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"
_PHRASES: Final = regex.compile(rf"((?:{_PHRASE}\s*+){{{MAX_MARKS}}})(?:{_PHRASE}\s*+)+")


def stream_safe(text: str) -> str:
    """The text with every run of combining marks, or of U+FDFA, cut to its first 30.

    Characters between marks that a normalizer may delete (zero-width joiners, bidi controls,
    tatweel...) do not end a run; they stay. Neither does white space between U+FDFA. Linear in
    the text. Text without such a run comes back as it is.
    """
    if text.isascii():
        return text
    if _PHRASE in text:
        text = _PHRASES.sub(r"\1", text)
    return _LONG_RUN.sub(_cut, text)


def normalize(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """``unicodedata.normalize`` of the stream-safe text: linear in the text."""
    return unicodedata.normalize(form, text if len(text) <= MAX_MARKS else stream_safe(text))


def _cut(run: regex.Match[str]) -> str:
    left = MAX_MARKS

    def kept(marks: regex.Match[str]) -> str:
        nonlocal left
        first: str = marks[0][:left]
        left -= len(first)
        return first

    cut: str = _MARKS.sub(kept, run[0])
    return cut
