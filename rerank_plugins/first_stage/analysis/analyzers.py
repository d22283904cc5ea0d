"""From text to terms: the road that a text takes.

A passage is cut at white space; each piece takes these steps, once, since a memo keeps what
became of it:

1. `normalization.normalized`: compatibility forms, digits, marks that nobody types;
2. `identifiers.tokens`: words, numbers and symbols, an identifier by its parts and whole;
3. Arabic: `arabic.name_parts`, `arabic.stem`; other scripts: accents off, then the Snowball
   stem of the language, `latin.stem`.

A query takes the same road and loses its stop words (`queries`). Before the cut, numbers whose
groups stand apart ("1 000", telephone numbers) get their whole beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any, Final, TypeVar

from rerank_plugins._memo import Memo
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.analysis import arabic, latin
from rerank_plugins.first_stage.analysis.detection import detect_language, shown_language
from rerank_plugins.first_stage.analysis.identifiers import MAX_WHOLE, Token, simple_word, tokens
from rerank_plugins.first_stage.analysis.normalization import folded, normalized
from rerank_plugins.first_stage.analysis.pieces import pieces
from rerank_plugins.first_stage.analysis.queries import fallbacks, weighted, without_stop_words

S = TypeVar("S")
T = TypeVar("T")

LANGUAGES: Final = ("ar", "fr", "pl", "en", "neutral")
"""What ``analyzer_for`` takes beside ``auto``; ``neutral`` neither stems nor stops."""

VERSION: Final = 3
"""Raised by every change that alters terms, so that a stored index can tell it is old."""

_MEMO_BYTES: Final = 128_000_000
_STEM_BYTES: Final = 16_000_000

MAX_QUERY: Final = 1 << 16
"""Characters of a query that are searched for; what a longer one has behind them is left out."""


def _remembered(piece: str, terms: tuple[str, ...]) -> int:
    """About the bytes of a piece, its tuple and its terms, some of which others share."""
    return 150 + 2 * len(piece) + 90 * len(terms)


class Analyzer:
    """Turns a passage, or a query, into terms. Make one with ``analyzer_for``.

    Safe to share between threads; pickles and copies as its name.

    Attributes:
        name: What ``analyzer_for`` takes to make the same analyzer again.
        version: The ``VERSION`` that made it; terms of two versions do not mix.
    """

    version: int = VERSION

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, text: str) -> list[str]:
        """The terms of a passage, in order, repeats included."""
        raise NotImplementedError

    def query(self, text: str) -> list[str]:
        """The terms of a query: those of a passage less its stop words, if any are left.

        Of a query of more than `MAX_QUERY` characters, those of its beginning.
        """
        raise NotImplementedError

    def fallbacks(self, text: str, has: Callable[[str], bool]) -> list[str]:
        """What a query asks for beside its terms where one of its words is in no passage."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, version={self.version})"


class LanguageAnalyzer(Analyzer):
    """One language for everything outside Arabic script, which is always read as Arabic."""

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self._arabic = _exact if language == "neutral" else arabic.stem
        self._latin = (
            partial(latin.stem, language=language) if language in latin.LANGUAGES else folded
        )
        # A corpus has far fewer distinct pieces than pieces.
        self._memo: Memo[str, tuple[str, ...]] = Memo(
            self._terms_of_piece, max_bytes=_MEMO_BYTES, size=_remembered
        )
        # For words inside of pieces, of which one may be a million characters; and for queries.
        self._stems: Memo[str, str] = Memo(
            self._stem, max_bytes=_STEM_BYTES, size=lambda word, stem: 150 + 2 * len(word + stem)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return analyzer_for, (self.name,)

    def __call__(self, text: str) -> list[str]:
        """The terms of a passage, in order, repeats included."""
        return self.terms(pieces(text))

    def terms(self, found: Sequence[str]) -> list[str]:
        """The terms of pieces that are already cut."""
        return list(chain.from_iterable(map(self._memo.__getitem__, found)))

    def query(self, text: str) -> list[str]:
        """The terms of a query: those of a passage less its stop words, if any are left."""
        return _joined(self.query_terms, self.query_tokens(text))

    def fallbacks(self, text: str, has: Callable[[str], bool]) -> list[str]:
        """What a query asks for beside its terms where one of its words is in no passage."""
        return fallbacks(self.by_piece(text), self.name, self.query_terms, self.other_forms, has)

    def other_forms(self, term: str) -> tuple[str, ...]:
        """Irregular forms, and spellings that dialects know: ``طالب`` for ``طلاب``."""
        if self.name == "neutral":
            return ()
        if arabic.is_arabic(term):
            return arabic.other_forms(term)
        return latin.other_forms(self.name).get(term, ())

    def reading(self, text: str) -> LanguageAnalyzer:  # noqa: ARG002  (a mixed one chooses)
        """This analyzer."""
        return self

    def tokens(self, piece: str) -> Iterator[Token]:
        """The tokens of one piece, accents and endings still on."""
        for token in tokens(normalized(piece), self.name):
            text, kind = token
            if kind == "word" and arabic.is_arabic(text):
                for part in arabic.name_parts(text):
                    yield part, "word"
            else:
                yield token

    def term(self, token: Token) -> str:
        """The term of one token."""
        text, kind = token
        if kind == "word":
            return self._stems[text]
        return text if kind == "term" else _exact(text)

    def query_tokens(self, text: str) -> list[Token]:
        """The tokens of a query, less its stop words if any others are there."""
        found = list(chain.from_iterable(self.by_piece(text)))
        return list(weighted(without_stop_words(found, self.name) or found))

    def by_piece(self, text: str) -> list[tuple[Token, ...]]:
        """The tokens of each piece of a query."""
        return _of_each(self.tokens, pieces(_head(text)))

    def query_terms(self, token: Token) -> list[str]:
        """The terms that a query searches for a token: its own, and that of its other reading."""
        text, kind = token
        if kind == "word" and self.name != "neutral" and arabic.is_arabic(text):
            return arabic.query_stems(text)
        return [self.term(token)]

    def _terms_of_piece(self, piece: str) -> tuple[str, ...]:
        word = simple_word(piece, self.name)
        if not word:
            return self._terms_of_tokens(piece)
        if word < "\u0600":  # Latin: a simple word is that or Arabic
            return (self._latin(word),)
        return tuple(map(self._arabic, arabic.name_parts(word)))

    def _terms_of_tokens(self, piece: str) -> tuple[str, ...]:
        whole = normalized(piece)
        parts = whole.split()
        if len(parts) > 1:  # fractions and other signs that come apart: few differ
            return tuple(self.terms(parts))
        terms: list[str] = []
        for text, kind in tokens(whole, self.name):
            if kind == "term":
                terms.append(text)
            elif kind == "exact":
                terms.append(_exact(text))
            elif arabic.is_arabic(text):
                terms += map(self._stems.__getitem__, arabic.name_parts(text))
            else:
                terms.append(self._stems[text])
        return tuple(terms)

    def _stem(self, word: str) -> str:
        if arabic.is_arabic(word):
            return self._arabic(word)
        return self._latin(word)


def _head(query: str) -> str:
    """What is read of a query: no more than `MAX_QUERY` characters, whole words if it has any."""
    if len(query) <= MAX_QUERY:
        return query
    head, _, last = query[: MAX_QUERY + 1].rpartition(" ")
    return head if head.strip() else last[:MAX_QUERY]


def _exact(text: str) -> str:
    return folded(arabic.letters(text) if arabic.is_arabic(text) else text)


class MixedAnalyzer(Analyzer):
    """Each text by its own language; for ``language="auto"``.

    A passage whose language does not show (a title, a list of names) is read as the corpus
    mostly is, so a query is searched under those stems beside its own; and a query whose
    language does not show, under the stems of every language. A stem that no passage has
    finds nothing. Arabic words are stemmed in a text of any language, known or not.
    """

    def __init__(self, fallback: str) -> None:
        super().__init__(f"auto-{fallback}")
        self._fallback = _reading(fallback)

    def __reduce__(self) -> tuple[Any, ...]:
        return analyzer_for, (self.name,)

    def __call__(self, text: str) -> list[str]:
        """The terms of a passage, in order, repeats included.

        Where neither the passage nor the corpus shows a language, a word has its terms in each.
        """
        found = pieces(text)
        shown = shown_language(found)
        if shown is None and self.name == "auto-neutral":
            return list(chain.from_iterable(map(_TERMS_IN_EACH.__getitem__, found)))
        return (_reading(shown) if shown else self._fallback).terms(found)

    def reading(self, text: str) -> LanguageAnalyzer:
        """The analyzer of the language that the text shows, or of the corpus."""
        shown = shown_language(pieces(text))
        return _reading(shown) if shown else self._fallback

    def query(self, text: str) -> list[str]:
        """The terms of a query: each word's stem, or stems where languages differ on it."""
        own, readings = self._readings(text)
        return _joined(lambda token: _terms_of(token, readings), own.query_tokens(text))

    def fallbacks(self, text: str, has: Callable[[str], bool]) -> list[str]:
        """What a query asks for beside its terms where one of its words is in no passage."""
        own, readings = self._readings(text)

        def other_forms(term: str) -> tuple[str, ...]:
            return tuple(chain.from_iterable(one.other_forms(term) for one in readings))

        def query_terms(token: Token) -> list[str]:
            return _terms_of(token, readings)

        return fallbacks(own.by_piece(text), own.name, query_terms, other_forms, has)

    def _readings(self, text: str) -> tuple[LanguageAnalyzer, list[LanguageAnalyzer]]:
        """The analyzer that cuts a query, and those that stem its words."""
        shown = shown_language(pieces(_head(text)))
        own = _reading(shown) if shown else self._fallback
        return own, [own, self._fallback] if shown else list(map(_shared, _READINGS))


def _terms_of(token: Token, readings: Sequence[LanguageAnalyzer]) -> list[str]:
    return list(dict.fromkeys(t for reading in readings for t in reading.query_terms(token)))


def _joined(call: Callable[[T], Iterable[S]], found: Sequence[T]) -> list[S]:
    """What the call gives of each, one behind the other."""
    return list(chain.from_iterable(_of_each(call, found)))


def _of_each(call: Callable[[T], Iterable[S]], found: Sequence[T]) -> list[tuple[S, ...]]:
    """What the call gives of each; made once of those that are equal."""
    known = {one: tuple(call(one)) for one in set(found)}
    return list(map(known.__getitem__, found))


def _terms_in_each(piece: str) -> tuple[str, ...]:
    """The terms of a piece in each language, each once."""
    whole = normalized(piece)
    parts = whole.split()
    if len(parts) > 1:
        return tuple(dict.fromkeys(chain.from_iterable(map(_terms_in_each, parts))))
    # What is longer than any compound is an address, or no word of a language.
    differ = len(whole) <= MAX_WHOLE and latin.MAY_HAVE_CLITICS.search(whole)
    cuts = _CUTS if differ else {"pl": slice(None)}
    terms: list[str] = []
    for language, own in cuts.items():
        for text, kind in _shared(language).tokens(piece):
            if kind == "word":
                terms += _STEMS_IN_EACH[text][own]
            else:
                terms.append(text if kind == "term" else _exact(text))
    return tuple(dict.fromkeys(terms))


def _stems_in_each(word: str) -> tuple[str, ...]:
    """The stems of a word, a language of `_READINGS` each."""
    if arabic.is_arabic(word):
        return (arabic.stem(word),) * len(_READINGS)
    bare = folded(word)
    return (*(latin.stem_of_folded(bare, language) for language in _READINGS[:-1]), bare)


_READINGS: Final = ("fr", "pl", "en", "ar")
# Polish and Arabic have no clitics, and are cut alike.
_CUTS: Final = {"fr": slice(0, 1), "en": slice(2, 3), "pl": slice(1, 4, 2)}
_TERMS_IN_EACH: Final = Memo(_terms_in_each, max_bytes=_MEMO_BYTES, size=_remembered)
_STEMS_IN_EACH: Final = Memo(_stems_in_each, max_bytes=_MEMO_BYTES, size=_remembered)


def _reading(language: str) -> LanguageAnalyzer:
    # The Arabic analyzer leaves other scripts as the neutral one does.
    return _shared("ar" if language == "neutral" else language)


@cache
def _shared(language: str) -> LanguageAnalyzer:
    return LanguageAnalyzer(language)


@cache
def _shared_mixed(fallback: str) -> MixedAnalyzer:
    return MixedAnalyzer(fallback)


def analyzer_for(language: str, *, texts: Iterable[str] = ()) -> Analyzer:
    """The analyzer of a language; one object a name, shared by all who ask.

    Args:
        language: ``ar``, ``fr``, ``pl``, ``en``, ``neutral``; ``auto``, which reads each
            passage by its own language; or the ``name`` of an analyzer.
        texts: For ``auto``: the corpus, whose main language is used for passages too short
            to show their own.

    Raises:
        InvalidInputError: No such language.
    """
    if isinstance(language, str):
        if language == "auto":
            return _shared_mixed(detect_language(texts))
        if language in LANGUAGES:
            return _shared(language)
        fallback = language.removeprefix("auto-")
        if fallback != language and fallback in LANGUAGES:
            return _shared_mixed(fallback)
    raise InvalidInputError(
        f"language must be one of auto, {', '.join(LANGUAGES)}, but got {language!r}"
    )
