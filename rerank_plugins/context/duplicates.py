"""How alike two passages are: shingles and their Jaccard index."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from itertools import chain
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


class Seen:
    """The shingles of the passages that are kept, each with the passages that have it.

    Args:
        limit: The resemblance from which two passages are near duplicates, in (0, 1]: the
            Jaccard index, shared shingles over all shingles.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._sizes: list[int] = []
        self._having: defaultdict[Shingle, list[int]] = defaultdict(list)
        self._whole: set[frozenset[Shingle]] = set()

    def resembles(self, shingles: frozenset[Shingle]) -> bool:
        """Whether a passage of these shingles is a near duplicate of one that is kept."""
        if self._limit == 1:
            return shingles in self._whole
        having = (self._having[shingle] for shingle in shingles if shingle in self._having)
        shared = Counter(chain.from_iterable(having))
        return any(
            count / (len(shingles) + self._sizes[kept] - count) >= self._limit
            for kept, count in shared.items()
        )

    def add(self, shingles: frozenset[Shingle]) -> None:
        """Keeps a passage of these shingles."""
        if self._limit == 1:
            self._whole.add(shingles)
            return
        for shingle in shingles:
            self._having[shingle].append(len(self._sizes))
        self._sizes.append(len(shingles))
