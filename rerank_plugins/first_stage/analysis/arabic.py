"""Arabic words: letters, clitics, endings, and names that are written joined or apart.

The light stem is Lucene's (Larkey, Ballesteros and Connell, 2002) with these changes, each
measured by ``benchmarks/first_stage_quality.py``:

- the article is looked for while hamzas are still there (``ألعاب`` begins with no article,
  ``الألعاب`` does) and, where two follow each other, both go (``الالتزام``, ``التزام``);
- a combined prefix (``وال``, ``بال``...) leaves at least three letters (``والدة`` has no prefix);
- the proclitics و ف ب ل and the س of the future go too, if three letters are left, ك if four;
- the seats of hamza are one letter (``مسؤول``, ``مسئول``);
- more of the possessive endings, and the final alef of the accusative, as in Snowball's
  Arabic stemmer.

Broken plurals keep stems apart from their singulars': as one stem they cost .0008 of nDCG@10 on
four sets of questions. `other_forms` joins them where a query's own word is in no passage.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from rerank_plugins.first_stage.analysis import irregular

# Alef forms and alef maqsura, teh marbuta, the seats of hamza, letters of loan words. Letters
# that stay are listed too: `str.translate` raises and catches an error for each that is not.
_LETTERS: Final = {code: code for code in range(0x621, 0x64B)} | str.maketrans(
    "أإآىةؤئڤپچگ", "ااايهءءفبجك"
)

_GOD: Final = re.compile("(?:[وفبكت]?الله|[وف]?لله|اللهم)")
_COMBINED: Final = ("وبال", "وكال", "فبال", "فكال", "وال", "بال", "كال", "فال")
_ALEFS: Final = frozenset("أإآ")
_LIL: Final = re.compile("[وف]?لل(?=..)")
# What follows ``لل`` in nouns that begin with lam: ``للغة`` is of ``لغة``, ``للمتحف`` of ``متحف``.
_LAM_NOUNS: Final = re.compile(
    "غة|غات|غو|يل|يالي|اعب|جنة|جان|قاء|بنان|يبي|وح|حظ|سان|باس|جوء|اجئ|ندن|واء|حم|حوم|ون|بن|قب"
    "|عب|ائح|وائح|هج|قاح|حي|غز|يمون|طف|ؤلؤ|ثة"
)
# Stems whose waw is their own: without them the ministry (وزارة) meets "he visited" (زار).
_WAW_NOUNS: Final = re.compile(
    "وزير|وزار|وزراء|وطن|وقت|وكال|وكيل|وكلاء|وسائل|وساءل|وسيل|وسيط|وسط|وظيف|وظاءف|وثيق|وثاءق"
    "|واقع|واجب|واحد|واسع|واضح|واد|والد|واح|وصول|وصف|وصي|وجود|وجه|وحد|ورق|ورش|وراء|وراث"
    "|ولاي|ولاد|ولد|وليد|وفا|وفق|وضع|وعد|وعي|وقع|وقاي|وقود|وزن|وداع|وديع|وباء"
)
_ENDINGS: Final = (
    *("ها", "ان", "ات", "ون", "ين", "يه", "ه", "ي"),  # Lucene's
    *("يا", "ا", "وا", "نا", "كم", "هم", "هن", "هما"),
    *("ته", "تها", "تهم", "تهما", "تنا", "تك"),
)
_BY_LAST_LETTER: Final = {
    last: tuple(sorted((e for e in _ENDINGS if e[-1] == last), key=len, reverse=True))
    for last in {ending[-1] for ending in _ENDINGS}
}
# Of nouns in ة with another ending: سيارتي, مدينتين; but كويتي, بيروتي are of ت.
_TEH_ENDINGS: Final = ("تي", "تين", "تان")
_AFTER_TEH: Final = re.compile(f"(..+[^وي])(?:{'|'.join(_TEH_ENDINGS)})")
_MOST_ENDINGS: Final = 3
_LEFT: Final = 3  # letters that an ending leaves
_PROCLITICS: Final = {"ل": 4, "ب": 4, "ك": 5}  # and how long the word is that has one
_AFTER_CONJUNCTION: Final = 5
_CLITICS: Final = "وبلفك"
_FUTURE: Final = {"ي": 4, "ت": 4, "ن": 5, "ا": 5}  # by what follows the س

# After an article or at the beginning, what may be an article or letters of the noun.
_ALEF_LAM: Final = re.compile("(?:[وفبك]?ال|[وف]?لل)?([اأإآ])ل(?=..)")

# Spellings that no rule brings together.
_RESPELT: Final = (("مائة", "مئة"), ("مائت", "مئت"), ("يأة", "يئة"))
# Loan words and foreign names, spelled by ear: g is ج, غ, ق or ك, and long vowels are short.
_LOANS: Final = tuple(
    (re.compile(pattern), spelling)
    for pattern, spelling in (
        ("اميرك", "امريك"),
        ("ان[كق]ليز", "انجليز"),
        ("[غق]و[غق]ل|كوكل", "جوجل"),
        ("انست[غق]رام", "انستجرام"),
        ("تي?لي?[غقج]رام", "تلجرام"),
        ("(?<=كيلو)غرام|(?<=ملي)غرام", "جرام"),
        ("غرافيك", "جرافيك"),
        ("شيكاجو", "شيكاغو"),
        ("تلفاز|تليفزيون", "تلفزيون"),
        ("تليفون", "تلفون"),
        ("ديموقراط", "ديمقراط"),
        ("كومبيوتر", "كمبيوتر"),
        ("مايكروسوفت", "ميكروسوفت"),
        ("يوتوب", "يوتيوب"),
        ("اوروب", "اورب"),
        ("سويسره", "سويسرا"),
    )
)
_LOAN: Final = re.compile("|".join(pattern.pattern for pattern, _ in _LOANS))

# Four letters that end in a hamza, and what dialects leave of them; غدا is "tomorrow", not lunch.
_SHORT_HAMZA: Final = re.compile("..اء")
_NO_HAMZA: Final = re.compile("(?!غدا)..ا")

_QURANIC_NIGHT: Final = {"اليل": "الليل", "واليل": "والليل", "باليل": "بالليل"}
_QURANIC: Final = re.compile("(?:(?<=^)|(?<=^[وفلب])|(?<=قر))ءا(?=ن|..)")

_SERVANT: Final = re.compile("([وفلبك]?عبد)(ال..+)")
_FATHER: Final = re.compile("([وفلبك]?[أا]بو)((?!ا)...+|ال...+)")
_OF_GOD: Final = re.compile("(...+)(الله)")
_OF_FAITH: Final = re.compile(
    "([وفلبك]?(?:نور|صلاح|سيف|شمس|علاء|عز|تقي|محي|محيي|بهاء|جمال|خير|زين|فخر|كمال|ناصر|نجم|ضياء"
    "|بدر|جلال|حسام|سعد|شرف|شهاب|عماد|غياث|قمر|مجد|معز|نصر|نظام|برهان|تاج|سراج|صفي|عصام|لسان))"
    "(الدين)"
)
_OWNER: Final = re.compile("(ذو|ذي|ذا)(ال...+)")
_NAMES: Final = (_SERVANT, _OF_FAITH, _OF_GOD, _FATHER, _OWNER)
_MAY_BE_NAME: Final = re.compile("عبدال|الدين$|الله$|^.?.بو|^ذ")


def is_arabic(word: str) -> bool:
    """Whether a normalized word is in Arabic script, by its first character."""
    first = word[0]
    return (
        "\u0600" <= first <= "\u06ff"
        or "\u0750" <= first <= "\u077f"
        or "\u08a0" <= first <= "\u08ff"
    )


def name_parts(word: str) -> list[str]:
    """The words of a name that is written as one: ``عبدالله`` is ``عبد الله``."""
    if (word.find("ال", 2) > 0 or "بو" in word[:4]) and _MAY_BE_NAME.search(word):
        for pattern in _NAMES:
            found = pattern.fullmatch(word)
            if found:
                return [found[1], found[2]]
    return [word]


def letters(word: str) -> str:
    """One letter for alefs with and without hamza, for ى and ي, ة and ه, and for hamza seats."""
    if "ءا" in word:  # the Quran's own spelling: ءامنوا, القرءان
        word = _QURANIC.sub("ا", word)
    if "ئ" in word or "أة" in word:
        for spelling, other in _RESPELT:
            word = word.replace(spelling, other)
    word = word.translate(_LETTERS)
    if _LOAN.search(word):
        for pattern, spelling in _LOANS:
            word = pattern.sub(spelling, word)
    if "وو" in word[1:]:  # داود, داوود
        word = word[0] + word[1:].replace("وو", "و")
    return word.replace("يء", "ء")  # شيء, شئ; شاطىء, شاطئ


def stem(word: str) -> str:
    """The light stem of a word whose hamzas are still there."""
    word = _QURANIC_NIGHT.get(word, word)
    if "لله" in word and _GOD.fullmatch(word):
        return "الله"
    word, conjunction = _without_conjunction(letters(_without_article(word)))
    return _without_proclitics(_without_endings(word), conjunction)


def other_forms(found: str) -> tuple[str, ...]:
    """The stems that stand for a stem which no passage has.

    The singular or the broken plurals of a noun; the spelling with or without the hamza at its
    end, which dialects drop (``دواء``, ``دوا``); and the stem with or without a first letter that
    a clitic may be or the word's own (``بطاقة``, ``وبطاقتي``).
    """
    forms = [*_families().get(found, ())]
    if _SHORT_HAMZA.fullmatch(found):
        forms.append(found[:-1])
    elif _NO_HAMZA.fullmatch(found):
        forms.append(found + "ء")
    if len(found) > _LEFT and found[0] in _CLITICS:
        forms.append(found[1:])
    elif len(found) == _LEFT:
        forms += [clitic + found for clitic in _CLITICS]
    return tuple(forms)


@cache
def _families() -> dict[str, tuple[str, ...]]:
    """The stems of nouns that have broken plurals, and of these, each with the others."""
    return irregular.by_stem(irregular.ARABIC, stem)


def query_stems(word: str) -> list[str]:
    """The stem of a word in a query, and that of its other reading.

    ``الام`` is "the mother" or, hamza left out, "pains": passages have one stem, queries ask
    for both. Whether it is written with the hamza or without, the other is the second stem.
    """
    found = _ALEF_LAM.match(word)
    if not found or _GOD.fullmatch(word):
        return [stem(word)]
    other = "أ" if found[1] == "ا" else "ا"
    other_spelling = word[: found.start(1)] + other + word[found.end(1) :]
    return list(dict.fromkeys((stem(word), stem(other_spelling))))


def _without_article(word: str) -> str:
    if word.startswith("ال"):
        while word.startswith("ال") and len(word) >= 4:
            word = word[2:]
    elif word.startswith(_COMBINED):
        prefix = next(p for p in _COMBINED if word.startswith(p))
        if len(word) >= len(prefix) + 3:
            word = word[len(prefix) :]
    elif "لل" in word[:3]:
        lil = _LIL.match(word)
        if lil:
            noun = word[lil.end() :]
            word = "ل" + noun if _LAM_NOUNS.match(noun) else noun
    # A hamza on alef begins a word, so that what stands before it is a proclitic.
    if word[1:2] in _ALEFS and word[0] in "وفلبك" and len(word) >= 4:
        word = word[1:]
    return word


def _without_endings(word: str) -> str:
    if word.endswith("ءا") and len(word) == _LEFT:  # شيئا
        return word[:-1]
    for _ in range(_MOST_ENDINGS):  # فلسطينيين: ين, ي, ين
        if word.endswith(_TEH_ENDINGS) and (teh := _AFTER_TEH.fullmatch(word)):
            word = teh[1]
            continue
        for ending in _BY_LAST_LETTER.get(word[-1], ()):
            if word.endswith(ending) and len(word) >= len(ending) + _LEFT:
                word = word[: -len(ending)]
                break
        else:
            break
    return word


def _without_conjunction(word: str) -> tuple[str, bool]:
    if word[0] == "و" and len(word) >= 4 and not _WAW_NOUNS.match(word):
        return word[1:], True
    return word, False


def _without_proclitics(word: str, conjunction: bool) -> str:
    if word[0] == "ف" and len(word) >= 4 and not conjunction:
        word, conjunction = word[1:], True
    at_least = _AFTER_CONJUNCTION if conjunction else 0
    if len(word) >= max(at_least, _PROCLITICS.get(word[0], len(word) + 1)):
        word = word[1:]
    if word[0] == "س" and len(word) >= _FUTURE.get(word[1:2], len(word) + 1):
        word = word[1:]
    return word
