"""From text to search terms, for Arabic, French, Polish, English, and corpora that mix them.

Every analyzer takes the same road; only the tables differ:

1. runs of letters, marks and digits, each emoji alone (apostrophes stay inside a run);
2. NFKC, case folding, Arabic-Indic digits to ASCII, zero-width and bidi controls dropped;
3. Arabic script, wherever it stands: tashkeel and tatweel dropped, alef forms to bare alef,
   alef maqsura to yeh, teh marbuta to heh, then the light stem. The steps are those of
   Lucene's ArabicNormalizer and ArabicStemmer (Larkey, Ballesteros and Connell, 2002);
4. other scripts: the language's elisions, its Snowball stem (PyStemmer) on the accented word,
   and only then accents folded, so that ``énergie`` and ``energie`` meet.

Stop words are dropped from queries alone. Passages keep them, which measures the same or
better than dropping them on both sides, and lets a query made of stop words only (``to be or
not to be``) find its passage. They come from stopwordsiso (ar, pl) and from the lists that
bm25s ships (fr, en), each chosen by MRR@10 on the sets that
``benchmarks/first_stage_quality.py`` reads, and go through the same normalisation as the words
they are compared with.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, islice
from typing import Final

import regex

from rerank_plugins._memo import Memo
from rerank_plugins._text import normalize
from rerank_plugins.errors import InvalidInputError

LANGUAGES: Final = ("ar", "fr", "pl", "en", "neutral")
"""What ``analyzer_for`` takes beside ``auto``; ``neutral`` neither stems nor stops."""

VERSION: Final = 2
"""Raised by every change that alters terms, so that a stored index can tell it is old."""

_LATIN: Final = ("fr", "pl", "en")
_SNOWBALL: Final = {"fr": "french", "pl": "polish", "en": "english"}

# Format characters stay inside a run and are dropped from it later, so that a bidi mark or a
# soft hyphen does not break a word in two. `regex` and not `re`, whose \w has no marks.
_RUNS: Final = regex.compile(
    r"[\w\p{Cf}]+(?:['’‘ʼ＇][\w\p{Cf}]+)*|\p{Extended_Pictographic}", flags=regex.VERSION1
)
# A word has one script: "الWiFi" and "كوفيد19" are two words each.
_WORDS: Final = regex.compile(
    r"[\p{L}&&\p{Script=Arabic}]+"
    r"|[[\p{L}\p{M}\p{N}]--[[\p{L}&&\p{Script=Arabic}][\uFE00-\uFE0F]]]+"
    r"|\p{Extended_Pictographic}",
    flags=regex.VERSION1,
)
_DROPPED: Final = regex.compile(
    r"[[\p{Cf}--\u200B]\u0640\u0610-\u061A\u064B-\u065F\u0670\u06D6-\u06ED\u08D3-\u08FF]+",
    flags=regex.VERSION1,
)
_APOSTROPHES: Final = regex.compile("[’‘ʼ＇]")
_ELISION: Final = regex.compile("^(?:[ltmqunsjdc]|qu|jusqu|quoiqu|lorsqu|puisqu)'(?=.)")
_POSSESSIVE: Final = regex.compile("'s$")
_DIACRITICS: Final = regex.compile("[\u0300-\u036f]+")
_NUMERAL: Final = regex.compile("[ivx]{2,}$")
_ARABIC: Final = regex.compile(r"\p{Script=Arabic}")
_LETTER: Final = regex.compile(r"\p{L}")

_TO_ASCII_DIGITS: Final = {
    zero + digit: str(digit) for zero in (0x0660, 0x06F0) for digit in range(10)
}
# The last two are the Persian yeh and kaf, which keyboards and PDFs put in Arabic words.
_ARABIC_LETTERS: Final = str.maketrans("أإآٱىةیک", "اااايهيك")
_UNDECOMPOSED: Final = str.maketrans("łøđ", "lod")

_PREFIXES: Final = ("ال", "وال", "بال", "كال", "فال", "لل")
_SUFFIXES: Final = ("ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي")

# bm25s' French list (NLTK's) has no question words, and questions are what people type.
_FRENCH_QUESTION_WORDS: Final = (
    "qui que quoi quel quelle quels quelles lequel laquelle lesquels lesquelles "
    "comment combien où quand pourquoi"
)

# Letters that name a language. Those of its neighbours count against all of ours: without
# them a Spanish or German corpus would be stemmed as French or English.
_LETTERS_OF: Final = {"pl": "ąćęłńśźż", "fr": "àâçèêëîïùûœ", "other": "ñ¿ãõßäöüåøčřšžğış"}
_SHORTEST_WITH_WAW: Final = 4
# A corpus has far fewer distinct runs than runs. In bytes, since one run may be a whole text.
_MEMO_BYTES: Final = 64_000_000


def _arabic_stem(word: str) -> str:
    """Lucene's light stem of a normalised word: at most one prefix, then each suffix once."""
    for prefix in _PREFIXES:
        if word.startswith(prefix) and len(word) >= len(prefix) + 2:
            word = word[len(prefix) :]
            break
    else:
        if word.startswith("و") and len(word) >= _SHORTEST_WITH_WAW:
            word = word[1:]
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) >= len(suffix) + 2:
            word = word[: -len(suffix)]
    return word


def _fold(word: str) -> str:
    """The word without accents; scripts whose marks are letters of their own keep them."""
    if word.isascii():
        return word
    bare = _DIACRITICS.sub("", normalize("NFD", word.translate(_UNDECOMPOSED)))
    return normalize("NFC", bare) or word  # a mark that stands alone stays


def _words(run: str, language: str) -> list[str]:
    """The normalised words of one run, accents and endings still on."""
    if not run.isascii():
        run = _DROPPED.sub("", normalize("NFKC", run)).replace(" ", "")
        run = _APOSTROPHES.sub("'", run).translate(_TO_ASCII_DIGITS).translate(_ARABIC_LETTERS)
    run = run.casefold()
    if "'" in run:
        if language == "fr":
            run = _ELISION.sub("", run)
        elif language == "en":
            run = _POSSESSIVE.sub("", run)
    words: list[str] = _WORDS.findall(run)
    return words


class Analyzer:
    """Turns a passage, or a query, into terms. Make one with ``analyzer_for``.

    Safe to share between threads.

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
        """The terms of a query: those of a passage less its stop words, if any are left."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, version={self.version})"


class LanguageAnalyzer(Analyzer):
    """One language for everything outside Arabic script, which is always read as Arabic."""

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self.stop_words = _stop_words(language)
        if language != "neutral":
            self.stop_words |= _stop_words("ar")
        self._stemmer: Callable[[str], str] | None = None
        if language in _SNOWBALL:
            import Stemmer

            # Our own memo holds the stems; Stemmer objects are not made for several threads.
            self._stemmer = Stemmer.Stemmer(_SNOWBALL[language], 0).stemWord
        self._lock = threading.Lock()
        self._memo: Memo[str, tuple[str, ...]] = Memo(
            lambda run: tuple(map(self.stem, self.words(run))), max_bytes=_MEMO_BYTES
        )

    def words(self, run: str) -> list[str]:
        """The normalised words of one run of letters."""
        return _words(run, self.name)

    def stem(self, word: str) -> str:
        """The term of one normalised word."""
        if _ARABIC.match(word):
            return word if self.name == "neutral" else _arabic_stem(word)
        if self._stemmer is not None:
            with self._lock:
                word = self._stemmer(word)
        return _fold(word)

    def __call__(self, text: str) -> list[str]:
        """The terms of a passage, in order, repeats included."""
        return self.terms(_RUNS.findall(text))

    def terms(self, runs: Sequence[str]) -> list[str]:
        """The terms of runs that are already found."""
        return list(chain.from_iterable(map(self._memo.__getitem__, runs)))

    def query(self, text: str) -> list[str]:
        """The terms of a query: those of a passage less its stop words, if any are left."""
        return [self.stem(word) for word in self.query_words(text)]

    def query_words(self, text: str) -> list[str]:
        """The normalised words of a query, less its stop words if any others are there."""
        words = [word for run in _RUNS.findall(text) for word in self.words(run)]
        return [word for word in words if word not in self.stop_words] or words


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

    def __call__(self, text: str) -> list[str]:
        """The terms of a passage, in order, repeats included."""
        runs: list[str] = _RUNS.findall(text)
        shown = _guess(runs)
        return (_reading(shown) if shown else self._fallback).terms(runs)

    def query(self, text: str) -> list[str]:
        """The terms of a query: each word's stem, or stems where languages differ on it."""
        shown = _guess(_RUNS.findall(text))
        own = _reading(shown) if shown else self._fallback
        readings = [own, self._fallback] if shown else [_shared(n) for n in (*_LATIN, "ar")]
        stems = (
            dict.fromkeys(reading.stem(word) for reading in readings)
            for word in own.query_words(text)
        )
        return list(chain.from_iterable(stems))


def _reading(language: str) -> LanguageAnalyzer:
    # The Arabic analyzer leaves other scripts as the neutral one does.
    return _shared("ar" if language == "neutral" else language)


@cache
def _stop_words(language: str) -> frozenset[str]:
    """The language's stop words, normalised, with and without their accents."""
    listed: set[str] = set()
    if language in ("ar", "pl"):
        import stopwordsiso

        # Numerals tell kings and popes apart: Jan III is not Jan II.
        listed = {w for w in stopwordsiso.stopwords(language) if not _NUMERAL.match(w)}
    elif language in ("fr", "en"):
        from bm25s import stopwords

        french = {*stopwords.STOPWORDS_FRENCH, *_FRENCH_QUESTION_WORDS.split()}
        listed = french if language == "fr" else set(stopwords.STOPWORDS_EN_PLUS)
    normalised = (_words(word, language) for word in listed)
    alone = {words[0] for words in normalised if len(words) == 1}
    return frozenset(alone | {_fold(word) for word in alone})


@cache
def _function_words() -> dict[str, frozenset[str]]:
    """The words that show a language; ``other`` stands for neighbours that we do not stem."""
    from bm25s import stopwords

    others = (
        stopwords.STOPWORDS_GERMAN,
        stopwords.STOPWORDS_DUTCH,
        stopwords.STOPWORDS_SPANISH,
        stopwords.STOPWORDS_PORTUGUESE,
        stopwords.STOPWORDS_ITALIAN,
        stopwords.STOPWORDS_SWEDISH,
    )
    found = {name: _stop_words(name) for name in _LATIN}
    return found | {
        f"other{number}": frozenset(word.casefold() for word in words)
        for number, words in enumerate(others)
    }


def _evidence(run: str) -> tuple[str, ...]:
    """The languages that one run speaks for; empty when it tells nothing."""
    word = _APOSTROPHES.sub("'", run.casefold())
    shown = [name for name, words in _function_words().items() if word in words]
    if shown:
        return tuple(shown)
    if _ELISION.match(word):
        return ("fr",)
    return tuple(n for n, letters in _LETTERS_OF.items() if any(c in letters for c in word))


_EVIDENCE: Final = Memo(_evidence, max_bytes=_MEMO_BYTES // 8)


def _guess(runs: Sequence[str]) -> str | None:
    """The language outside Arabic script of a text, or None when it does not show.

    Function words make up a third or more of running text in all these languages; a language
    that covers less than a tenth of the words, or ties with another, is not believed.
    """
    votes = Counter(chain.from_iterable(map(_EVIDENCE.__getitem__, runs)))
    (best, count), (_, second) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
    if count == second or count * 10 < len(runs):
        return None
    return "neutral" if best.startswith("other") else best


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where words stand in a text: start and end of each run that analyzers read by itself.

    ``analyzer(text[start:end])`` gives the terms of that run, as in the whole text, so that a
    caller can point at the words that a query's terms met.
    """
    return [run.span() for run in _RUNS.finditer(text)]


def detect_language(texts: Iterable[str], *, sample: int = 1000) -> str:
    """The language that most of the first ``sample`` texts are in.

    Counts script and function words; it knows the languages of this module and says
    ``neutral`` for every other.

    Args:
        texts: Passages; no more than ``sample`` of them are read.
        sample: How many to look at.

    Returns:
        One of ``LANGUAGES``.
    """
    votes: Counter[str] = Counter()
    for text in islice(texts, sample):
        head = text[:2000]
        if 2 * len(_ARABIC.findall(head)) > len(_LETTER.findall(head)):
            votes["ar"] += 1
        else:
            votes[_guess(_RUNS.findall(head)) or ""] += 1
    del votes[""]
    return votes.most_common(1)[0][0] if votes else "neutral"


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
