"""The analysis takes short cuts for most words: they give what the long road gives."""

from __future__ import annotations

import unicodedata
from itertools import chain

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_plugins.first_stage.analysis import LANGUAGES, analyzer_for, identifiers, normalization
from rerank_plugins.first_stage.analysis.detection import shown_language
from rerank_plugins.first_stage.analysis.latin import stem, without_clitics
from rerank_plugins.first_stage.analysis.normalization import folded, normalized
from rerank_plugins.first_stage.analysis.pieces import pieces

LETTERS = [chr(code) for code in range(0x20, 0x3400)] + ["漢", "가", "각", "\ufdfa", "\ufb01"]
WORDS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=12)
LATIN = st.text(st.sampled_from(LETTERS[: 0x530 - 0x20]), min_size=1, max_size=12)


def long_folded(word: str) -> str:
    """As Unicode says: fold the case, decompose, drop the diacritics, compose."""
    if regex.fullmatch("[\u0620-\u08ff\u0900-\u109f\u2e80-\u9fff\uac00-\ud7a3]+", word):
        return unicodedata.normalize("NFC", word)
    undecomposed = dict(zip("łøđðħŧıŋĸ", "lodd" + "htin" + "k", strict=True))
    undecomposed |= {"œ": "oe", "æ": "ae", "þ": "th", "ĳ": "ij", "ŀ": "l", "ƒ": "f"}
    word = word.casefold()
    apart = unicodedata.normalize("NFD", "".join(undecomposed.get(one, one) for one in word))
    bare = "".join(one for one in apart if not "\u0300" <= one <= "\u036f")
    return unicodedata.normalize("NFC", bare) or word


def test_each_letter_folds_as_unicode_says() -> None:
    """One by one, and beside another."""
    for letter in LETTERS:
        assert folded(letter) == long_folded(letter), hex(ord(letter))
        assert folded(letter + "É") == long_folded(letter + "É"), hex(ord(letter))


@given(st.one_of(WORDS, LATIN))
def test_words_fold_as_unicode_says(word: str) -> None:
    """Whatever scripts they mix."""
    assert folded(word) == long_folded(word)


def test_what_is_plain_needs_no_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each letter that is passed over, and a pair of neighbours, comes back from the long road."""
    every = [chr(code) for code in range(0x80, 0xFFFF)]
    plain = [one for one in every if normalization._PLAIN.fullmatch(one)]
    assert len(plain) > 30_000
    monkeypatch.setattr(normalization, "_PLAIN", regex.compile("(?!)"))
    assert [one for one in plain if normalized(one) != one] == []
    text = "".join(plain)
    assert normalized(text) == text


@given(st.one_of(WORDS, LATIN), st.sampled_from(["fr", "pl", "en"]))
@example("GetUserByID", "en")
@example("ʻOkina", "fr")
def test_words_of_one_script_are_cut_as_compounds_are(word: str, language: str) -> None:
    """Letters in upper and lower case are a run with humps."""
    text = "".join(filter(str.isalpha, normalized(word)))
    if not text or not identifiers._HUMPED.fullmatch(text):
        return
    run = without_clitics(text, language)
    expected = [text] if identifiers._PLAIN.fullmatch(run) else None
    found = identifiers._compound(run)
    assert identifiers.tokens(text, language) == found
    assert expected is None or [part for part, _ in found] == expected


@given(st.text(st.characters(min_codepoint=0x370, exclude_categories=["Cs"]), min_size=1))
@example("ǽ")
@example("ǿ")
def test_no_language_stems_other_scripts(text: str) -> None:
    """A word without Latin letters is its own stem, folded until nothing changes."""
    word = folded("".join(filter(str.isalpha, text))) or "б"
    if not regex.search(r"\p{Script=Latin}", word):
        assert {stem(word, language) for language in ("fr", "pl", "en")} == {folded(word)}


@given(
    st.lists(
        st.one_of(WORDS, LATIN, st.sampled_from(["l'été", "John's", "a-t-il", "1½", "عبدالله"]))
    )
)
@example(["ǽ", "l'Ǽ-il"])
def test_where_no_language_shows_a_piece_has_the_terms_of_all(words: list[str]) -> None:
    """Those that the analyzers of the languages give it, each once."""
    text = " ".join(words)
    analyzer = analyzer_for("auto-neutral")
    if shown_language(pieces(text)) is not None:
        return
    readings = [analyzer_for(language) for language in ("fr", "pl", "en", "ar")]
    of_pieces = [set(chain(*(reading(piece) for reading in readings))) for piece in pieces(text)]
    assert sorted(analyzer(text)) == sorted(chain(*of_pieces))


@given(
    st.text(st.sampled_from("漢字かがバ\u3099\u309a\u200d가\u1100\u1161ไท\u0e31x "), max_size=12)
)
def test_pairs_of_characters_are_terms_as_they_stand(text: str) -> None:
    """Marks whose joiner was dropped are composed with their letter."""
    for language in LANGUAGES:
        terms = analyzer_for(language)(text)
        assert terms == [folded(term) for term in terms]
