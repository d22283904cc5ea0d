"""Which language a text is in: by script, function words and letters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, islice
from typing import Final

import regex

from rerank_plugins._memo import Memo
from rerank_plugins.first_stage.analysis.normalization import folded, normalized
from rerank_plugins.first_stage.analysis.stop_words import LISTS, NEIGHBOURS

_LATIN: Final = ("fr", "pl", "en")
_ARABIC: Final = regex.compile(r"\p{Script=Arabic}")
_LETTER: Final = regex.compile(r"\p{L}")
_WORD: Final = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*", flags=regex.VERSION1)
_ELIDED: Final = regex.compile("(?:[ltmqunsjdc]|qu|jusqu|quoiqu|lorsqu|puisqu)'.")

# Letters that name a language. Those of its neighbours count against all of ours: without
# them a Spanish or German corpus would be stemmed as French or English.
_LETTERS_OF: Final = {
    "pl": frozenset("ąćęłńśźż"),
    "fr": frozenset("àâçèêëîïùûœ"),
    "other": frozenset("ñ¿ãõßäöüåøčřšžğış"),
}
_MEMO_BYTES: Final = 8_000_000


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
            votes[shown_language(head.split()) or ""] += 1
    del votes[""]
    return votes.most_common(1)[0][0] if votes else "neutral"


def shown_language(pieces: Sequence[str]) -> str | None:
    """The language outside Arabic script of a text, or None when it does not show.

    Function words make up a third or more of running text in all these languages; a language
    that covers less than a tenth of the words, or ties with another, is not believed.
    """
    votes = Counter(chain.from_iterable(map(_EVIDENCE.__getitem__, pieces)))
    # At a tie one of ours goes before its neighbours: "des" is French and German.
    ranked = sorted(votes.items(), key=lambda vote: (-vote[1], vote[0].startswith("other")))
    (best, count), (rival, second) = [*ranked[:2], ("", 0), ("", 0)][:2]
    tie = count == second and not (best in _LATIN and rival not in _LATIN)
    if tie or count * 10 < len(pieces):
        return None
    return "neutral" if best.startswith("other") else best


def _evidence(piece: str) -> tuple[str, ...]:
    """The languages that one piece speaks for; empty when it tells nothing."""
    word_found = _WORD.search(normalized(piece).casefold())
    if word_found is None:
        return ()
    word = word_found[0]
    shown = _function_words().get(word)
    if shown:
        return shown
    if _ELIDED.match(word):
        return ("fr",)
    if word.isascii():
        return ()
    return tuple(n for n, letters in _LETTERS_OF.items() if not letters.isdisjoint(word))


_EVIDENCE: Final = Memo(_evidence, max_bytes=_MEMO_BYTES)


@cache
def _function_words() -> dict[str, tuple[str, ...]]:
    """The words that show languages; ``other`` stands for neighbours that we do not stem."""
    found = {name: LISTS[name] | frozenset(map(folded, LISTS[name])) for name in _LATIN}
    found |= {f"other{number}": words for number, words in enumerate(NEIGHBOURS)}
    shown: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, words in found.items():
        for word in words:
            shown[word] += (name,)
    return dict(shown)
