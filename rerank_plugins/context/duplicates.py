"""How alike two passages are: shingles and their Jaccard index."""

from __future__ import annotations

import re
import unicodedata
from typing import TypeAlias

from rerank_plugins._text import normalize

Shingle: TypeAlias = tuple[str, ...]
_SHINGLE_WORDS = 3


def shingles_of(text: str) -> frozenset[Shingle]:
    """Runs of three words, without case, accents, vowel signs and tatweel.

    A text of fewer words is one shingle, and one without any word is its own.
    """
    plain = "".join(
        character
        for character in normalize("NFKD", text).casefold()
        if not unicodedata.combining(character) and character != "\N{ARABIC TATWEEL}"
    )
    words = re.findall(r"\w+", plain) or [plain]
    count = max(1, len(words) - _SHINGLE_WORDS + 1)
    return frozenset(tuple(words[i : i + _SHINGLE_WORDS]) for i in range(count))


def resemblance(first: frozenset[Shingle], second: frozenset[Shingle]) -> float:
    """Jaccard index: shared shingles over all shingles, in [0, 1]."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
