"""Where a passage, of whatever language, may be cut.

Only the end of a cut passage is looked for, never a full segmentation, and a missed end costs
less than a wrong one; so a few lines that are wary of abbreviations do.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

# A run of stops with its closing quotes and brackets, or the place before an empty line. The
# Arabic semicolon counts: Arabic prose sets it between clauses that stand alone, in sentences
# that run to a paragraph. A single line break does not: text from PDF files breaks anywhere.
# The look-behind keeps the search linear on long runs of stops.
_END = re.compile(
    r"(?<![.!?…؟؛])(?P<stop>[.!?…؟؛]+)(?:\s?[»”’\"')\]])*(?=\s)|(?=\n[^\S\n]*\n)",
)
# Shortened words that a capital or a number often follows; after any other, a lower-case
# letter shows that the sentence continues.
_ENGLISH = "dr mr mrs ms st mt prof rev gen capt fig vol ch pp vs approx"
_FRENCH = "mm mme mlle ste art chap env av bd cf éd"
_POLISH = "inż mgr hab ks św im ul al pl os płk kpt por zob np tj tzw ok godz str nr tel ur zm ang"
_ABBREVIATIONS = frozenset(f"{_ENGLISH} {_FRENCH} {_POLISH}".split())
_LONGEST_ABBREVIATION = 40  # characters looked at before a full stop
_WIDEST_GAP = 80  # white space looked through after it


def sentence_ends(text: str) -> list[int]:
    """Positions at which a sentence or paragraph ends, ascending, without the text's own end.

    Errs on the side of too few. One letter before a full stop is taken for an initial or an
    abbreviation in every script (M., د., r.), and so are one or two digits (1., 12.) and words
    like p.m. and m.in.
    """
    ends = []
    for match in _END.finditer(text):
        start, end = match.span()
        if match["stop"] is not None and text[end : end + _WIDEST_GAP].lstrip()[:1].islower():
            continue
        before = text[max(0, start - _LONGEST_ABBREVIATION) : start]
        if match["stop"] == "." and _is_abbreviation(before):
            continue
        ends.append(end)
    return ends


def _is_abbreviation(before: str) -> bool:
    """Whether the last word of this text, which a full stop follows, may be a shortened one."""
    word = re.split(r"[\s(\[«„“\"']", before)[-1].lower()
    return (
        (len(word) == 1 and word.isalpha())
        or (len(word) <= 2 and word.isdigit())
        or ("." in word and all(part.isalpha() and len(part) <= 2 for part in word.split(".")))
        or word in _ABBREVIATIONS
    )


def whole_sentences(text: str, start: int, end: int) -> tuple[int, int]:
    """The span widened to the sentences that it touches."""
    ends = [0, *sentence_ends(text), len(text)]
    return ends[bisect_right(ends, start) - 1], ends[bisect_left(ends, end)]


def word_ends(text: str) -> list[int]:
    """Positions at which white space follows a word, ascending."""
    return [match.start() for match in re.finditer(r"\s+", text)]


def last_that_fits(ends: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of the ascending ends that fits, or None when not even the first does.

    Doubles from the first end, then halves: what is tried is never much longer than what fits,
    however long the text.
    """
    fitting, beyond = 0, 1  # the first `fitting` ends fit, the first `beyond` do not
    while beyond <= len(ends) and fits(ends[beyond - 1]):
        fitting, beyond = beyond, 2 * beyond
    beyond = min(beyond, len(ends) + 1)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if fits(ends[middle - 1]):
            fitting = middle
        else:
            beyond = middle
    return ends[fitting - 1] if fitting else None
