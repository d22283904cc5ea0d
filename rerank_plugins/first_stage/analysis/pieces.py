"""The first cut of a text, at white space and at signs that stand in no word."""

from __future__ import annotations

from typing import Final

import regex

from rerank_plugins.first_stage.analysis.identifiers import LONG_NUMBER

_SPACED_NUMBER: Final = regex.compile(
    r"(?<![\d.,])\d{1,4}(?:[ \u00a0\u2009\u202f]\d{2,5}){1,8}(?![\d])"
)
_AREA_CODE: Final = regex.compile(r"\((\d{2,5})\) ?(\d{2,4}(?:[ .-]\d{2,4}){1,4})(?!\d)")
_SPACED_THOUSANDS: Final = regex.compile(r"\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+")
# Signs that are a phrase each: between words, and a word beside them stays one.
_PHRASES: Final = ("\ufdfa", "\ufdfb")
_BREAKS: Final = ('"', "(", ")", "[", "]", "«", "»", "“", "”", ". ", ", ", "، ")


def pieces(text: str) -> list[str]:
    """The text cut at white space, with the wholes of numbers whose groups stand apart."""
    if _SPACED_NUMBER.search(text):
        text = _SPACED_NUMBER.sub(_with_whole_number, text)
    if "(" in text:
        text = _AREA_CODE.sub(_with_area_code, text)
    for sign in _BREAKS:
        text = text.replace(sign, " ")
    for sign in _PHRASES:
        text = text.replace(sign, f" {sign} ")
    return text.split()


def _with_area_code(found: regex.Match[str]) -> str:
    whole = "".join(filter(str.isdecimal, found[0]))
    return f"{found[0]} {whole}" if len(whole) >= LONG_NUMBER else found[0]


def _with_whole_number(found: regex.Match[str]) -> str:
    groups = found[0].split()
    whole = "".join(groups)
    if _SPACED_THOUSANDS.fullmatch(found[0]):
        return whole if " " not in found[0] else f"{found[0]} {whole}"
    return f"{found[0]} {whole}" if len(groups) > 2 and len(whole) >= LONG_NUMBER else found[0]
