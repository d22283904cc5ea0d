"""One spelling for what Unicode writes in several ways: first step of the analysis.

Compatibility forms come before the cut into words, so that ``m²`` is ``m2`` and ``ﻻ`` is
``لا``. Case is kept: the cut needs it (``getUserById``), and `folded` drops it later.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import regex

from rerank_plugins._text import normalize

_FRACTIONS: Final = "".join(
    chr(code)
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x2160), 0x2189)
    if unicodedata.decomposition(chr(code)).startswith("<fraction>")
)
# One character for one: what NFKC leaves apart, or would glue to the word before it.
_SAME: Final = str.maketrans(
    {
        **dict.fromkeys("’‘ʼ＇‛′", "'"),
        **dict.fromkeys("‐‑‒–−", "-"),
        **dict.fromkeys("—―\u200b™℠", " "),
        "\u2044": "/",
        "٪": "%",
        "٫": ".",
        "٬": ",",
        "،": ",",
        # A fraction stands beside a whole number ("1½") and is a separate word.
        **{sign: " " + normalize("NFKC", sign).replace("\u2044", "/") for sign in _FRACTIONS},
    }
)
# Persian and Urdu letters that keyboards and PDFs put in Arabic words, and the Arabic-Indic
# digits of both kinds.
_LETTERS: Final = str.maketrans(
    "یکٱےۍڪہھۀۃۂە٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹",
    "يكايىكهههةهه" + "0123456789" * 2,
)
# What all of these leave as it is: ASCII, letters of our languages, and most of other Latin,
# Greek, Cyrillic, kana, Han and Hangul.
_PLAIN: Final = re.compile(
    "[\x00-\x7f\xc0-\xd6\xd8-\xf6\xf8-\u0131\u0134-\u013e\u0141-\u0148\u014a-\u017e"
    "\u0180-\u01c3\u01cd-\u01f0\u01f4-\u024f\u0386\u0388-\u03ce\u0400-\u0481\u048a-\u052f"
    "\u0621-\u063a\u0641-\u064a\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3]*"
)
_POWER: Final = regex.compile(r"(?<=\d)(?=[⁰¹²³⁴⁵⁶⁷⁸⁹])")
# Bidi marks, soft hyphens and joiners; tatweel; tashkeel, Quranic and honorific marks.
_DROPPED: Final = regex.compile(
    r"[\p{Cf}\uFE00-\uFE0F\u0640\u0610-\u061A\u064B-\u065F\u0670\u06D6-\u06ED\u08D3-\u08FF]+",
    flags=regex.VERSION1,
)
# What the Quran's spelling (Uthmani) writes as marks and today's spelling as letters, or the
# other way round; in order, before the marks go. `~` stands for vowel signs, of
# which few follow each other: a bound keeps the time linear.
_UTHMANI_SIGNS: Final = ("\u0670", "\u06e7", "\u0654")
_UTHMANI: Final = tuple(
    (
        regex.compile(pattern.replace("~", "[\u0640\u064b-\u065f\u06d6-\u06e6\u06e8-\u06ed]{0,8}")),
        letters,
    )
    for pattern, letters in (
        ("\u0640~\u0654", "\u0626"),  # a hamza without a seat: مسـٔول
        ("\u06e7", "ي"),  # إبرهـۧم
        ("^ي~\u0670~(?=\\p{L}~\\p{L})", "يا "),  # يٰموسى
        ("و\u0670(?:ا\u06df)?", "ا"),  # الصلوٰة
        ("[ىيی]~\u0670(?=~\\p{L})", "ا"),  # هدىٰهم
        ("(?<=[ىيیا]~)\u0670", ""),  # موسىٰ
        # Words that are written without the alef today too: هٰذا, ذٰلك, الرحمٰن, إلٰه, لٰكن, أولٰئك.
        ("(?<=ه~)\u0670(?=~[ذؤكتهأ])|(?<=ذ~)\u0670(?=~ل)|(?<=ر~ح~م~)\u0670(?=~ن)", ""),
        ("(?<=[اإٱل]~ل~)\u0670(?=~ه)|(?<=ل~)\u0670(?=~ك~ن)|(?<=و~ل~)\u0670(?=~ئ~ك)", ""),
        ("\u0670", "ا"),  # الكتٰب
    )
)
_SURROGATE: Final = regex.compile("[\ud800-\udfff]")
_DIACRITICS: Final = regex.compile("[\u0300-\u036f]+")
# Letters that have no decomposition: ICU's Latin-ASCII transliteration has the same pairs.
_UNDECOMPOSED: Final = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "ŋ": "n", "ĸ": "k"}
    | {"œ": "oe", "æ": "ae", "þ": "th", "ĳ": "ij", "ŀ": "l", "ƒ": "f"}
)
# Scripts without case, whose marks are letters: composed, they stay as they are.
_CASELESS: Final = re.compile("[\u0620-\u08ff\u0900-\u109f\u2e80-\u9fff\uac00-\ud7a3]+")
# Letters with case that fold one by one: Latin, Greek, Cyrillic.
_CASED: Final = re.compile(
    "[0-9A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u024f\u0388-\u0481\u048a-\u052f\u1e00-\u1fbc]+"
)


class _Folded(dict[int, str]):
    """What a letter becomes, for ``str.translate``; filled as letters come."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _folded(chr(code))
        return folded


_FOLDED: Final = _Folded()


def normalized(text: str) -> str:
    """The text in compatibility form, its digits ASCII, without marks that nobody types.

    Letters with accents are composed; Arabic keeps its hamzas and its teh marbuta.
    """
    if text.isascii() or _PLAIN.fullmatch(text):
        return text
    text = _POWER.sub("^", text).translate(_SAME)
    if any(sign in text for sign in _UTHMANI_SIGNS):
        for pattern, letters in _UTHMANI:
            text = pattern.sub(letters, text)
    text = _DROPPED.sub("", normalize("NFKC", text))
    return _SURROGATE.sub(" ", text).translate(_SAME).translate(_LETTERS)


def folded(word: str) -> str:
    """The word without case, accents and ligatures.

    Scripts in which marks are letters keep them (Devanagari, Thai).
    """
    if word.isascii():
        return word.lower()
    if _CASELESS.fullmatch(word):
        return normalize("NFC", word)
    return word.translate(_FOLDED) if _CASED.fullmatch(word) else _folded(word)


def _folded(word: str) -> str:
    word = word.casefold()
    bare = _DIACRITICS.sub("", normalize("NFD", word.translate(_UNDECOMPOSED)))
    return normalize("NFC", bare) or word  # a mark that stands alone stays
