"""The cut of a normalized text into tokens: words, numbers, identifiers, symbols.

A run with inner punctuation, digits or case changes is found whole and by its parts. The whole
is a term in addition to the parts ("compound term"), in the passage and in the query, so
that the passage with the exact form comes first:

==========================  ===============================  ==========================
run                         parts                            whole
==========================  ===============================  ==========================
``e-mail``, ``Wi-Fi``       e, mail; Wi, Fi                  ``email``, ``WiFi``
``getUserById``             get, User, By, Id                ``getUserById``
``COVID-19``, ``iPhone15``  COVID, 19; iPhone, 15            ``COVID19``, ``iPhone15``
``C++``, ``C#``, ``.NET``   C; C; NET                        ``C++``, ``C#``, ``.NET``
``1.2.3``, ``2024-05-01``   1, 2, 3; 2024, 05, 01            ``1.2.3``, ``2024-05-01``
``a.b@example.org``         a, b, example, org               ``abexampleorg``
``1,000``, ``3,14``         (none); 3, 14                    ``1000``; ``3.14``
``U.S.A.``                  (none)                           ``USA``
==========================  ===============================  ==========================

The alternative, word positions with a phrase test, was measured to need more room: four bytes
for every word of the corpus against one term for each compound (``benchmarks/RESULTS.md``).

Scripts that are written without spaces are cut into pairs of characters, as Lucene's
CJKAnalyzer does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final, TypeAlias

import regex

from rerank_plugins._text import normalize
from rerank_plugins.first_stage.analysis.latin import without_clitics

MAX_WHOLE: Final = 100
"""The longest compound that becomes a term, in characters; parts have no limit."""


LONG_NUMBER: Final = 7
"""Digits from which a number is one that people write with gaps: telephones, accounts."""

# A plain tuple: a text has as many as words, and named ones take ten times as long to make.
Token: TypeAlias = tuple[str, str]
"""A piece of a text that becomes a term, as it stands, case kept; and its kind: ``word``, which is
stemmed and may be a stop word; ``exact``, which is not; ``term``, which is its term already."""

_W: Final = r"[\p{L}\p{M}\p{N}]"
_UNSPACED: Final = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}"
    r"\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Hangul}"
)
# A word with what may stand inside or at the edge of an identifier; or a symbol.
_RUN: Final = regex.compile(
    rf"(?P<run>(?:(?<![\w.])[.#@](?=\p{{L}}))?{_W}+"
    rf"(?:(?:://|['._&@/:^~=?+#-]|(?<=\d),(?=\d)){_W}+|(?:\+\+|\#){_W}+)*"
    rf"(?:[+#]{{1,2}}(?!\w))?)"
    r"|(?P<symbol>\p{Regional_Indicator}{2}"
    r"|\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|\u200D?\p{Extended_Pictographic})*"
    r"|[\p{Sc}\p{So}%‰§\p{Sm}--[+<>=|~]])",
    flags=regex.VERSION1,
)
# Single letters with full stops: an abbreviation that is written without them as often.
_ACRONYM: Final = regex.compile(r"(?<![\w.])\p{L}(?:\.\p{L})+\.?(?!\w)")
_PLAIN: Final = regex.compile(
    r"\p{N}+|[[\p{L}\p{M}]&&\p{Script=Arabic}]+"
    rf"|\p{{Lu}}?[[\p{{L}}\p{{M}}]--[\p{{Lu}}\p{{Script=Arabic}}{_UNSPACED}]]+|\p{{Lu}}+",
    flags=regex.VERSION1,
)
# What may stand before and behind a word without being part of it; a full stop before is: .NET
_BEFORE: Final = "'’‘,:،?()[]\"!;«»„“”؛؟…–-"
_BEHIND: Final = _BEFORE + "."
_SIMPLE: Final = re.compile("[ء-غ\u0640-\u0652]+|[A-ZÀ-ÖØ-ÞŁŚŻŹĆ]?[a-zß-öø-ÿąćęłńśźżœ]+")
# Letters of one script or several, in upper and lower case.
_HUMPED: Final = regex.compile(
    rf"[[\p{{L}}\p{{M}}]--[\p{{Script=Arabic}}{_UNSPACED}]]+", flags=regex.VERSION1
)
# The two commonest compounds: numbers, and Latin words with the same kind of sign between them.
_NUMBER: Final = re.compile("[0-9]+(?:[.,:/^-][0-9]+)+")
_L: Final = "[A-Za-zÀ-ÖØ-öø-ɏ]{2,}"
_JOINED: Final = re.compile(rf"(?!(?i:www)\.){_L}(?:(?:[.-]{_L})+|(?:/{_L})+)")
_TASHKEEL: Final = re.compile("[\u0640\u064b-\u0652]+")
_PARTS: Final = regex.compile(
    r"(?P<number>\p{Nd}+(?:[.,:/^-]\p{Nd}+)*)"
    r"|(?P<arabic>[\p{L}&&\p{Script=Arabic}]+)"
    rf"|(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<word>[[\p{{L}}\p{{M}}\p{{N}}]--[\p{{Nd}}[\p{{L}}&&\p{{Script=Arabic}}]{_UNSPACED}]]+)"
    r"(?P<sign>\+\+|\#)?",
    flags=regex.VERSION1,
)
_HUMPS: Final = regex.compile(
    r"\p{Lu}+(?=\p{Lu}[\p{Ll}\p{M}])|\p{Lu}?[\p{Ll}\p{Lo}\p{M}]+|\p{Lu}+", flags=regex.VERSION1
)
_THOUSANDS: Final = regex.compile(r"\d{1,3}([.,])\d{3}(?:\1\d{3})*(?:[.,]\d{1,2})?")
_ORDINAL: Final = regex.compile(r"\d+(?:st|nd|rd|th|s|er|ère|re|e|ème|eme|nde)", flags=regex.I)
_SEGMENTS: Final = regex.compile(r"://|[@/:?=&~]")
_SCHEME: Final = regex.compile(r"\A(?:https?://)?(?:www\.)?(?=.)", flags=regex.I)
# Punctuation that does not matter to the whole: all but what stands between two digits.
_JOINTS: Final = regex.compile(r"(?<!\p{Nd})['._@/:~=?^-]+|['._@/:~=?^-]+(?!\p{Nd})")
_SEPARATORS: Final = regex.compile(r"\D+")
_ARABIC: Final = regex.compile(r"\p{Script=Arabic}")
_LATIN: Final = regex.compile(r"\p{Script=Latin}")
_DIGIT: Final = regex.compile(r"\p{Nd}")
_UNSPACED_LETTER: Final = regex.compile(f"[{_UNSPACED}]")
_HAN: Final = regex.compile(r"\p{Script=Han}")
_FLAG: Final = regex.compile(r"\p{Regional_Indicator}")
_GRAPHEME: Final = regex.compile(r"\X")
_SKIN: Final = regex.compile(r"\p{Emoji_Modifier}|\u200D")


def simple_word(piece: str, language: str) -> str:
    """The word or number that a piece is, less punctuation at its edges, or nothing if it is more.

    A short cut past `normalized` and `tokens`, which give the same for it: nearly every piece
    of running text is one word in the letters of our languages, composed.
    """
    word = piece.lstrip(_BEFORE).rstrip(_BEHIND)
    if "'" in word or "’" in word or "-" in word:
        word = without_clitics(word.replace("’", "'"), language)
    if word.isascii():
        if word.isalpha():
            return word if word.isupper() or word[1:].islower() or len(word) == 1 else ""
        return word if word.isdecimal() else ""
    if not _SIMPLE.fullmatch(word):
        return ""
    return _TASHKEEL.sub("", word) if word > "\u0600" else word


def tokens(text: str, language: str) -> list[Token]:
    """The tokens of a normalized text, in order; a compound follows its parts."""
    if _PLAIN.fullmatch(text):  # nearly all
        return [(text, "word")]
    if _HUMPED.fullmatch(text):
        return _letters(text)
    if _NUMBER.fullmatch(text):
        return _number(text)
    if _JOINED.fullmatch(text):
        return _joined(without_clitics(text, language))
    if "." in text:
        text = _ACRONYM.sub(lambda found: found[0].replace(".", ""), text)
    found: list[Token] = []
    for run, symbol in _RUN.findall(text):
        if symbol:
            found += _symbol(symbol)
            continue
        word = without_clitics(run, language)
        if _PLAIN.fullmatch(word):
            found.append((word, "word"))
        else:
            found += _compound(word)
    return found


def _joined(run: str) -> list[Token]:
    """`_compound` of Latin words with hyphens and full stops, or with slashes, between them."""
    parts = run.replace(".", "-").replace("/", "-").split("-")
    found = list(chain.from_iterable(map(_letters, parts)))
    whole = "".join(parts)
    return [*found, (whole, "word")] if len(parts) > 1 and len(whole) <= MAX_WHOLE else found


def _compound(run: str) -> list[Token]:
    """The parts of a run, then each piece of an address that has several, then the whole."""
    run = _SCHEME.sub("", run) if run[0] in "hHwW" else run
    parts = [(part[0], part.lastgroup) for part in _PARTS.finditer(run)]
    if parts == [(run, "number")]:
        return _number(run)
    if run[0].isdigit() and _ORDINAL.fullmatch(run):
        del parts[1:]
    found: list[Token] = []
    for part, kind in parts:
        if kind == "number":
            found += _number(part)
        elif kind == "unspaced":
            found += _pairs(part)
        elif kind == "sign":
            found += _letters(part.rstrip("+#"))
            found.append((part, "exact"))
        else:
            found += _letters(part)
    wholes = [whole_of(run)]
    segments = _SEGMENTS.split(run)
    if len(segments) > 1:
        wholes += [
            whole_of(s) for s in segments if len(_PARTS.findall(s, endpos=2 * MAX_WHOLE)) > 1
        ]
    plain = {part for part, _ in parts}
    for whole in dict.fromkeys(wholes):
        if whole and whole not in plain and len(whole) <= MAX_WHOLE:
            found.append((whole, "word" if whole.isalpha() else "exact"))
    return found


def whole_of(run: str) -> str:
    """The compound term of a run, empty where it would be two words without a space.

    ``-``, ``.``, ``_`` and their kind go, but between digits they stay: 1.2.3 is not 12.3.
    """
    if len(run) > 2 * MAX_WHOLE:
        return ""
    lead = run[0] if run[0] in ".@" else ""
    joined = lead + _JOINTS.sub("", run[len(lead) :])
    if not joined.isascii():
        two_words = _ARABIC.search(joined) and (_LATIN.search(joined) or not _DIGIT.search(joined))
        if two_words or _UNSPACED_LETTER.search(joined):
            return ""
    return joined.replace(",", ".")


def _letters(word: str) -> list[Token]:
    """A word, and its humps where it has several of two letters or more."""
    if len(word) < 4:
        return [(word, "word")]
    title = word.isascii() and word[1:].islower()
    if not (title or word.isupper() or word.islower()):
        humps = [hump for hump in _HUMPS.findall(word) if len(hump) > 1]
        if len(humps) > 1:
            return [(part, "word") for part in (word, *humps)]
    return [(word, "word")]


def _number(number: str) -> list[Token]:
    """The groups of a number and its wholes: as written, with one sign for the decimal point."""
    if number.isdecimal():
        return [(number, "word")]
    thousands = _THOUSANDS.fullmatch(number)
    groups = _SEPARATORS.split(number)
    found = [] if thousands and len(groups) <= 3 else [(group, "word") for group in groups]
    found.append((number.replace(",", "."), "exact"))
    if thousands:
        separator = thousands[1]
        found.append((number.replace(separator, "").replace(",", "."), "exact"))
    elif sum(map(len, groups)) >= LONG_NUMBER and [len(group) for group in groups] != [4, 4]:
        found.append(("".join(groups), "exact"))  # dates, telephone and account numbers
    return found


def _pairs(text: str) -> list[Token]:
    """Pairs of neighbouring characters; of Han each by itself too."""
    characters: list[str] = _GRAPHEME.findall(normalize("NFC", text))
    if len(characters) == 1:
        return [(characters[0], "term")]
    terms = list(map(str.__add__, characters, characters[1:]))
    terms += filter(_HAN.match, characters)
    return [(term, "term") for term in terms]


def _symbol(symbol: str) -> Iterator[Token]:
    """A symbol; of a sequence of emoji each one, then the whole."""
    bare = _SKIN.sub("", symbol)
    signs = [bare] if _FLAG.match(bare) else list(bare)
    for sign in signs:
        yield sign, "exact"
    if len(signs) > 1:
        yield bare, "exact"
