"""What is of queries alone: their stop words, their long numbers, and what they fall back to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Final

from rerank_plugins.first_stage.analysis import arabic
from rerank_plugins.first_stage.analysis.identifiers import LONG_NUMBER, MAX_WHOLE, Token
from rerank_plugins.first_stage.analysis.normalization import folded
from rerank_plugins.first_stage.analysis.stop_words import LABELLED, LISTS, REVERSING

_SHORT_TITLE: Final = 3
# Verbs and these are written joined or apart: log in, back up, check out.
_PARTICLES: Final = frozenset({"in", "up", "out", "off", "on"})
_LONGEST_JOINED: Final = 30
# Letters that half a word has at least. French and Polish words are not cut: it cost .0025 of
# nDCG@10 there, and gained as much in Arabic.
_HALF_OF_ARABIC: Final = 3
_HALF_OF_ENGLISH: Final = 4
_MOST_PIECES: Final = 64  # of a query, that are looked at for what it falls back to


def without_stop_words(found: Sequence[Token], language: str) -> list[Token]:
    """The tokens that are not stop words of the language or of Arabic; none without content.

    A stop word that is written as a name stays: in capitals, with a capital inside a query that
    is not all capitals ("a concert of The Who") or is a short title ("Doctor Who"), or a single
    letter at the end or behind what letters name ("vitamin a").
    """
    words = [text for text, kind in found if kind == "word"]
    title = len(words) <= _SHORT_TITLE and not all(word.isupper() for word in words)
    sentence = title or any(word.islower() for word in words)
    kept = []
    before = ""
    for place, (text, kind) in enumerate(found):
        name = sentence and text[:1].isupper() and (place > 0 or (len(text) > 1 and text.isupper()))
        label = len(text) == 1 and (
            place == len(found) - 1 or (text in "aAأ" and folded(before) in LABELLED)
        )
        if kind != "word" or name or label or not _is_stop_word(text, language):
            kept.append((text, kind))
        before = text
    alone = all(text.casefold() in REVERSING for text, _ in kept)
    return [] if alone else kept


def _is_stop_word(text: str, language: str) -> bool:
    if arabic.is_arabic(text):
        return language != "neutral" and text in LISTS["ar"]
    return text.casefold() in _stop_words(language)


@cache
def _stop_words(language: str) -> frozenset[str]:
    """The stop words with and without their accents."""
    listed = LISTS.get(language, frozenset())
    return listed | frozenset(map(folded, listed))


def weighted(found: Sequence[Token]) -> Iterator[Token]:
    """The tokens, the whole of a long number as often as it has groups, each a token too.

    So that a telephone number finds the one that is written with other gaps before its neighbours.
    """
    groups: list[str] = []
    for token in found:
        yield token
        text, _ = token
        if not text.isdecimal():
            continue
        if LONG_NUMBER <= len(text) <= MAX_WHOLE:
            rest, count = text, 0
            for group in reversed(groups):
                if not rest.endswith(group):
                    break
                rest, count = rest.removesuffix(group), count + 1
            yield from [token] * (count - 1 if not rest else 0)
        groups.append(text)


def fallbacks(
    by_piece: Sequence[Sequence[Token]],
    language: str,
    query_terms: Callable[[Token], Sequence[str]],
    other_forms: Callable[[str], Sequence[str]],
    has: Callable[[str], bool],
) -> list[str]:
    """What a query asks for beside its terms where one of its words is in no passage.

    Other forms of the word; its two halves, if passages have both; and what it is as one with its
    neighbour.

    Args:
        by_piece: The tokens of each piece of the query.
        language: Of the analyzer that cut it.
        query_terms: The terms of a token.
        other_forms: The terms that stand for a term.
        has: Whether a passage has a term.
    """
    by_piece = by_piece[:_MOST_PIECES]
    tokens = list(chain.from_iterable(by_piece))
    kept = dict.fromkeys(without_stop_words(tokens, language) or tokens)
    missing = [token for token in kept if not any(map(has, query_terms(token)))]
    found: list[str] = []
    for token in missing:
        found += dict.fromkeys(chain.from_iterable(map(other_forms, query_terms(token))))
        for halves in _halves(token, language):
            terms = [list(query_terms(half)) for half in halves]
            if all(any(map(has, of_half)) for of_half in terms):
                found += chain.from_iterable(terms)
    for one, other in _written_apart(by_piece, set(kept)):
        if one in missing or other in missing or not any(map(has, query_terms(other))):
            found += query_terms((one[0] + other[0], "word"))
    return found


def _written_apart(
    by_piece: Sequence[Sequence[Token]], kept: set[Token]
) -> Iterator[tuple[Token, Token]]:
    """Neighbours in a query that may be one word: ``data base``, ``e mail``, ``بور سعيد``."""
    words = [piece[0] if len(piece) == 1 else None for piece in by_piece]
    for one, next_one in pairwise(words):
        if one is None or next_one is None or one not in kept:
            continue
        text, other = one[0], next_one[0]
        if (
            (next_one in kept or other.casefold() in _PARTICLES)
            and text.isalpha()
            and other.isalpha()
            and arabic.is_arabic(text) == arabic.is_arabic(other)
            and len(text + other) <= _LONGEST_JOINED
            and len(arabic.name_parts(text + other)) == 1
        ):
            yield one, next_one


def _halves(token: Token, language: str) -> Iterator[tuple[Token, Token]]:
    """A word cut in two, at each place: ``database``, ``بورسعيد``."""
    text, kind = token
    if kind != "word" or not text.isalpha() or language == "neutral":
        return
    if arabic.is_arabic(text):
        least = _HALF_OF_ARABIC
    elif language == "en":
        least = _HALF_OF_ENGLISH
    else:
        return
    if len(text) <= _LONGEST_JOINED:
        for at in range(least, len(text) - least + 1):
            one, other = text[:at], text[at:]
            if not (_is_stop_word(one, language) or _is_stop_word(other, language)):
                yield (one, "word"), (other, "word")
