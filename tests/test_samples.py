"""The sample corpus: well formed, in the right script, and hard where it means to be."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from itertools import combinations, pairwise

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.samples import (
    LANGUAGES,
    SamplePassage,
    SampleQuestion,
    corpus_path,
    load_passages,
    load_questions,
)

PASSAGES = load_passages()
QUESTIONS = load_questions()
BY_ID = {passage.id: passage for passage in PASSAGES}
SNOWBALL = {"ar": "arabic", "fr": "french", "pl": "polish", "en": "english"}
# Words of the questions that say nothing about their subject, as stems.
FUNCTION_WORDS = """في من ما كم إلى هل بعد قبل إذا ماذا كيف لماذا متى كان
    a à au aux ce combien comment de des du en est et faut il je la le les ma mon on ou par peut
    pour pourquoi que quel quelle qui sur un une y dans plus
    czy czym dla do i ile jak jest kiedy kto mogę na od o po przed się w we z ze bez dlaczego
    a an and are at can do does for from how i in is it many much my of on or out should the to
    when who why what with before get"""

per_language = pytest.mark.parametrize("language", LANGUAGES)
per_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.id)


def words(text: str) -> list[str]:
    """Lower-case words without Arabic vowel signs and tatweel."""
    text = unicodedata.normalize("NFC", text).lower()
    kept = (c for c in text if unicodedata.category(c) != "Mn" and c != "\N{ARABIC TATWEEL}")
    return re.findall(r"\w+", "".join(kept))


def stems(text: str, language: str) -> list[str]:
    """Snowball stems of the words, an independent analysis, not the library's."""
    stemmer = pytest.importorskip("Stemmer").Stemmer(SNOWBALL[language])
    stemmed: list[str] = stemmer.stemWords(words(text))
    return stemmed


def arabic_share(text: str) -> float:
    """Share of the letters that are Arabic."""
    letters = [c for c in text if c.isalpha()]
    return sum("ARABIC" in unicodedata.name(c) for c in letters) / len(letters)


@per_language
def test_every_language_has_enough_passages_and_questions(language: str) -> None:
    """At least 40 passages and 6 questions, on at least 10 topics."""
    passages = load_passages(language)
    assert len(passages) >= 40
    assert len(load_questions(language)) >= 6
    assert len({p.topic for p in passages}) >= 10


def test_the_files_are_json_lines_with_the_documented_fields() -> None:
    """Each line is one object with exactly the documented, non-blank text fields."""
    lines = corpus_path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(PASSAGES)
    for line in lines:
        row = json.loads(line)
        assert set(row) == {"id", "language", "title", "text", "topic"}
        assert all(isinstance(value, str) and value.strip() == value for value in row.values())
        assert all(row.values())


def test_ids_are_unique_and_name_their_language() -> None:
    """No id comes twice, and its prefix is the language."""
    ids = [p.id for p in PASSAGES] + [q.id for q in QUESTIONS]
    assert max(Counter(ids).values()) == 1
    for item in [*PASSAGES, *QUESTIONS]:
        assert item.id.split("-")[0] == item.language
        assert item.language in LANGUAGES


@per_question
def test_judgements_point_to_passages_of_the_same_language(question: SampleQuestion) -> None:
    """Relevant ids and distractors exist, share the language and do not overlap."""
    assert question.relevant
    assert not set(question.relevant) & set(question.distractors)
    for passage_id in question.relevant + question.distractors:
        assert BY_ID[passage_id].language == question.language


@per_question
def test_distractors_share_words_with_the_question(question: SampleQuestion) -> None:
    """At least four distractors, each with at least one content stem of the question."""
    assert len(set(question.distractors)) >= 4
    content = set(stems(question.text, question.language)) - set(FUNCTION_WORDS.split())
    for passage_id in question.distractors:
        shared = content & set(stems(BY_ID[passage_id].text, question.language))
        assert shared, f"{passage_id} shares nothing with {question.id}"


@per_language
def test_the_first_stage_alone_goes_wrong_on_the_demo_question(language: str) -> None:
    """BM25 finds the demo's answer among its first ten, but does not put it first."""
    passages = load_passages(language)
    demo = load_questions(language)[0]
    found = BM25([p.text for p in passages], language=language).search(demo.text, 10)
    order = [passages[candidate.key].id for candidate in found]
    assert order[0] not in demo.relevant
    assert set(order) & set(demo.relevant)


@per_language
def test_the_shipped_model_puts_the_answer_of_the_demo_question_first(language: str) -> None:
    """What the demo is there to show."""
    passages = load_passages(language)
    demo = load_questions(language)[0]
    found = BM25([p.text for p in passages], language=language).search(demo.text, 20)
    best = load_reranker(top_n=1).rerank(demo.text, found)
    assert [passages[key].id for key in best.keys] == list(demo.relevant)


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda p: p.id)
def test_passages_have_the_documented_length_and_script(passage: SamplePassage) -> None:
    """30 to 90 words or 200 to 300, in the letters of the language, NFC, no bidi controls."""
    count = len(passage.text.split())
    assert 30 <= count <= 90 or 200 <= count <= 300
    share = arabic_share(passage.text)
    assert share > 0.8 if passage.language == "ar" else share == 0
    assert unicodedata.is_normalized("NFC", passage.text)
    assert not any(unicodedata.category(c) == "Cf" for c in passage.text)
    assert passage.text[-1] in ".!?؟…»”"


@per_language
def test_questions_are_written_in_their_language(language: str) -> None:
    """Arabic questions end in an Arabic question mark, the others in a Latin one."""
    for question in load_questions(language):
        assert question.text.endswith("؟" if language == "ar" else "?")
        assert (arabic_share(question.text) == 1) == (language == "ar")


@pytest.mark.parametrize(
    ("language", "letters"), [("fr", "éèêàçùâîœ"), ("pl", "ąćęłńóśźż"), ("en", "wkth")]
)
def test_latin_passages_use_their_alphabet(language: str, letters: str) -> None:
    """The letters that mark each language occur in every passage or nearly so."""
    passages = load_passages(language)
    marked = sum(any(c in letters for c in p.text.lower()) for p in passages)
    assert marked == len(passages)


def test_arabic_shows_what_analysis_must_cope_with() -> None:
    """There are passages with full tashkeel, tatweel, both kinds of digits and Latin names."""
    texts = [p.text for p in load_passages("ar")]
    marks = [sum(0x64B <= ord(c) <= 0x652 for c in t) / len(t) for t in texts]
    assert sum(share > 0.25 for share in marks) >= 3
    assert any("\N{ARABIC TATWEEL}" in t for t in texts)
    assert sum(bool(re.search("[٠-٩]", t)) for t in texts) >= 3
    assert sum(bool(re.search("[0-9]", t)) for t in texts) >= 3
    assert sum(bool(re.search("[A-Za-z]{3}", t)) for t in texts) >= 4


@per_language
def test_every_language_has_a_long_passage_in_paragraphs(language: str) -> None:
    """At least one passage has 200 words or more and several paragraphs."""
    assert any(len(p.text.split()) >= 200 and "\n\n" in p.text for p in load_passages(language))


@per_language
def test_no_passage_repeats_another(language: str) -> None:
    """No two passages of a language share a fifth of their word pairs, no title comes twice."""
    passages = load_passages(language)
    assert len({p.title for p in passages}) == len(passages)
    pairs = [set(pairwise(words(p.text))) for p in passages]
    for (a, first), (b, second) in combinations(enumerate(pairs), 2):
        alike = len(first & second) / len(first | second)
        assert alike < 0.2, f"{passages[a].id} and {passages[b].id}: {alike:.2f}"


def test_an_unknown_language_is_an_error_that_lists_the_known_ones() -> None:
    """Asking for samples in a language that has none names the four."""
    for load in (load_passages, load_questions):
        with pytest.raises(InvalidInputError, match=r"ar, fr, pl, en or None, but got 'de'"):
            load("de")
