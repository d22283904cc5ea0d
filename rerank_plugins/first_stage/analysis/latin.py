"""French, Polish and English words: elisions, contractions, accents and stems.

People leave accents out ("musee", "zostal"). So accents go before the stem, and every form of
a word meets itself; but Snowball's rules look for accents in the endings. They are put back
there, where the spelling leaves one reading or the stem is the same anyway, for the stemmer
alone.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import regex

from rerank_plugins.first_stage.analysis import irregular, polish, snowball
from rerank_plugins.first_stage.analysis.normalization import folded

LANGUAGES: Final = ("fr", "pl", "en")

# Lucene's French articles, and those that are longer.
_ELISION: Final = regex.compile(
    "(?:[ltmqunsjdc]|qu|jusqu|quoiqu|lorsqu|puisqu)'(?=.)", flags=regex.IGNORECASE
)
# "est-ce", "a-t-il", "celui-ci": pronouns behind a verb, which make no compound.
_INVERSION: Final = regex.compile(
    "(?<=.)(?:-t)?-(?:ce|il|elle|on|ils|elles|je|tu|ci|là|l[ae]|les|lui|leur|moi|toi|nous|y|en"
    "|(?<!rendez-)vous)$",
    flags=regex.IGNORECASE,
)
_CONTRACTION: Final = regex.compile(
    "(?<=.)(?:(?<!ca)n't|'(?:s|t|re|ve|ll|d|m))$", flags=regex.IGNORECASE
)

MAY_HAVE_CLITICS: Final = re.compile("[a-z]'|['-][a-z]", re.IGNORECASE)
"""What stands in every text that `without_clitics` changes."""

# Those of folded words, and those that folding once more takes apart.
_LETTER: Final = re.compile("[a-złøđðħŧıŋĸœæþĳŀƒ]")

_PAIR_LEAST: Final = 4
# Numbers and genders that Snowball's French stemmer leaves apart: photos, actif, neuve, actrice,
# vendeuse, étrangère.
_PLURAL: Final = re.compile("(?:[^o]u|o|[^aou]i)s$")
_GENDERS: Final = {
    "f": (("if", "iv"), ("euf", "euv")),
    "c": (("tric", "teu"),),
    "r": (("teur", "teu"), ("deur", "deu"), ("anger", "ang"), ("ssager", "ssag")),
    "x": (("teux", "teu"), ("deux", "deu")),
}
_BRITISH: Final = re.compile(
    "^((?:dis|mis|un)?(?:arm|behavi|cand|clam|col|endeav|fav|flav|glam|harb|hon|hum|lab|neighb"
    "|od|parl|ranc|rum|savi|splend|tum|val|vap|vig))our"
)

# Endings that Snowball's rules know with their accents; the longest that fits is put back.
_ACCENTED_ENDINGS: Final = {
    "fr": "ée ées ité ités ière ières èrent yé yés",
    "pl": (
        "ów ał ała ało ały ałam ałem ił iła iło iły iłam iłem liście łyście liśmy łyśmy łaś łeś "
        "ąc ąca ące ący ącego ącemu ącej ących ącym ącymi ają ić ieć ść byś"
    ),
    "en": "",
}
_ACCENTED: Final = {
    language: {folded(ending): ending for ending in endings.split()}
    for language, endings in _ACCENTED_ENDINGS.items()
}
# The same by their last two letters, the longest first.
_BY_TAIL: Final = {
    language: {
        tail: sorted((bare for bare in endings if bare[-2:] == tail), key=len, reverse=True)
        for tail in {bare[-2:] for bare in endings}
    }
    for language, endings in _ACCENTED.items()
}


def without_clitics(run: str, language: str) -> str:
    """The run without elisions, pronouns or contractions: ``l'été``, ``a-t-il``, ``John's``."""
    if language == "fr" and ("'" in run or "-" in run):
        return _INVERSION.sub("", _ELISION.sub("", run, 1) if _ELISION.match(run) else run)
    if language == "en" and "'" in run:
        return _CONTRACTION.sub("", run)
    return run


def stem(word: str, language: str) -> str:
    """The term of a word: the same with its accents and without."""
    return stem_of_folded(folded(word), language)


def stem_of_folded(word: str, language: str) -> str:
    """The same of a word that is `folded` already."""
    if not (word.isascii() or _LETTER.search(word)):
        return word  # no rule is of other scripts
    word = irregular.WORD_OF[language].get(word, word)
    if language == "fr":
        return _of_french_pair(_stem(word, language))
    if language == "en":
        return _american(_stem(word, language))
    stemmed = _stem(polish.hardened(word), language)
    # Snowball takes one Polish ending; many words have two: Krakowa, Kraków.
    if stemmed != word:
        stemmed = _stem(stemmed, language)
    return polish.without_lonely_e(stemmed)


@cache
def other_forms(language: str) -> dict[str, tuple[str, ...]]:
    """By stem: the stems that stand for one which no passage has."""
    return irregular.by_stem(
        irregular.DOUBTFUL.get(language, ()), lambda word: stem(word, language)
    )


def _of_french_pair(stem: str) -> str:
    if len(stem) < _PAIR_LEAST:
        return stem
    if stem[-1] == "s" and _PLURAL.search(stem):
        return stem[:-1]
    for ending, other in _GENDERS.get(stem[-1], ()):
        if stem.endswith(ending):
            return stem[: -len(ending)] + other
    return stem


def _american(stem: str) -> str:
    """One stem for British and American spelling: organise, analyse, colour."""
    if len(stem) >= _PAIR_LEAST + 2 and stem.endswith(("is", "ys")):
        return stem[:-1] + "z"
    return _BRITISH.sub(r"\1or", stem) if "our" in stem else stem


def _stem(bare: str, language: str) -> str:
    if bare[-2:] in _BY_TAIL[language]:
        bare = _with_accents(bare, language)
    word = snowball.stem(bare, language)
    return word if word.isascii() else folded(word)


def _with_accents(bare: str, language: str) -> str:
    for ending in _BY_TAIL[language][bare[-2:]]:
        if bare.endswith(ending):
            return bare[: -len(ending)] + _ACCENTED[language][ending]
    return bare
