"""The window of a long passage that is most likely to answer a question."""

from __future__ import annotations

import re

from rerank_plugins._memo import Memo

_WORD = re.compile(r"\S+")
_GRAM = 4


def best_window(query: str, passage: str, words: int) -> str:
    """The stretch of ``words`` words that shares most with the question.

    Windows start every half window. Counted are the distinct character 4-grams (word ends
    included) of the question that a window holds: long rare words weigh more than short
    common ones, and inflected forms (Polish cases, Arabic articles and clitics) still match,
    without a word list for any language. The first of equal windows wins.

    Args:
        query: The question.
        passage: Any text.
        words: Words in a window, at least 1.

    Returns:
        A slice of the passage, or all of it when it has no more words than that.
    """
    spans = [match.span() for match in _WORD.finditer(passage)]
    if len(spans) <= words:
        return passage
    wanted = frozenset[str]().union(*(_grams(word) for word in query.split()))
    hits = [_grams(passage[start:end]) & wanted for start, end in spans]
    step = max(1, words // 2)
    starts = [*range(0, len(spans) - words, step), len(spans) - words]
    best = max(starts, key=lambda start: len(set().union(*hits[start : start + words])))
    return passage[spans[best][0] : spans[best + words - 1][1]]


def _grams_of(word: str) -> frozenset[str]:
    padded = f" {word.casefold()} "
    return frozenset(padded[at : at + _GRAM] for at in range(max(1, len(padded) - _GRAM + 1)))


_grams = Memo(_grams_of, max_bytes=64_000_000).__getitem__
