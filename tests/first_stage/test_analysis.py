"""What words become when they are indexed and when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.analysis import LANGUAGES, analyzer_for, detect_language
from rerank_plugins.first_stage.analysis.analyzers import MAX_QUERY, pieces

ANY_TEXT = st.text(st.characters(), max_size=60)  # surrogates included
NAMES = (*LANGUAGES, *(f"auto-{language}" for language in LANGUAGES))
ENGLISH = "The bees were dancing in the garden because they had found some flowers."
FRENCH = "Les abeilles dansaient dans le jardin parce qu'elles avaient trouvé des fleurs."
POLISH = "Pszczoły tańczyły w ogrodzie, ponieważ znalazły tam jakieś kwiaty."
ARABIC = "كان النحل يرقص في الحديقة لأنه وجد الأزهار هناك."
GERMAN = "Die Bienen tanzten im Garten, weil sie dort einige Blumen gefunden hatten."
SPANISH = "Las abejas bailaban en el jardín porque habían encontrado unas flores."


@pytest.mark.parametrize(
    "word",
    # The forms of Lucene's own tests for its Arabic stemmer: all one stem.
    ["حسن", "الحسن", "والحسن", "بالحسن", "كالحسن", "فالحسن", "للحسن", "وحسن"],
)
def test_arabic_prefixes_are_taken_off(word: str) -> None:
    """The article, with a conjunction or preposition before it or not, does not part words."""
    assert analyzer_for("ar")(word) == ["حسن"]


@pytest.mark.parametrize(
    "word",
    ["زوجها", "زوجان", "زوجات", "زوجون", "زوجين", "زوجيه", "زوجية", "زوجه", "زوجة", "زوجي"],
)
def test_arabic_suffixes_are_taken_off(word: str) -> None:
    """Number, gender and possession do not part words."""
    assert analyzer_for("ar")(word) == ["زوج"]


@pytest.mark.parametrize("word", ["ال", "في", "وعد", "لل"])
def test_arabic_words_are_never_stemmed_to_a_letter(word: str) -> None:
    """Two letters always stay, and a leading waw only leaves a word of four."""
    assert analyzer_for("ar")(word) == [word]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("مُحَمَّدٌ رَسُولُ", "محمد رسول"),
        ("مـــحـــمـــد", "محمد"),
        ("أحمد إسلام آثار ٱلله", "احمد اسلام اثار الله"),
        ("مستشفى", "مستشفي"),
        ("مكتبة", "مكتبه"),
        ("سنة ١٩٥٦", "سنة 1956"),
        ("۱۲۳", "123"),
        ("ﻣﺤﻤﺪ ﷲ", "محمد الله"),
        ("م\u200dح\u200eم\u061cد", "محمد"),
        ("کتاب کبیر", "كتاب كبير"),
        ("قال:«محمد»،", "قال محمد"),
        ("الـWiFi", "ال WiFi"),
        ("كوفيد19", "كوفيد-19"),
        ("١٬٠٠٠٫٥", "1,000.5"),
        ("۲۰۲۴", "2024"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_spellings_of_arabic_meet(one: str, other: str, name: str) -> None:
    """Marks, tatweel, letter forms, digits and invisible characters do not part words."""
    assert analyzer_for(name)(one) == analyzer_for(name)(other) != []


@given(st.text(st.sampled_from("ابتحدرمنوي "), max_size=20), st.data())
def test_vowels_change_nothing(text: str, data: st.DataObject) -> None:
    """Tashkeel and tatweel anywhere after a letter leave the terms as they were."""
    marks = st.text(st.sampled_from("\u064b\u064e\u0651\u0652\u0640"), max_size=2)
    vowelled = "".join(c + (data.draw(marks) if c != " " else "") for c in text)
    for name in ("ar", "auto-ar"):
        assert analyzer_for(name)(vowelled) == analyzer_for(name)(text)
        assert analyzer_for(name).query(vowelled) == analyzer_for(name).query(text)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("fr", "l'énergie", "énergies"),
        ("fr", "L’ÉNERGIE", "energie"),
        ("fr", "qu'arrive", "arriver"),
        ("fr", "jusqu'aux", "aux"),
        ("fr", "e\u0301nergie", "énergie"),
        ("pl", "książka", "książkami"),
        ("pl", "zamkiem", "zamkowi"),
        ("pl", "WARSZAWIE", "warszawie"),
        ("en", "running", "runs"),
        ("en", "John's", "John"),
        ("en", "ﬁnding", "finds"),
        ("en", "ｆｉｎｄ", "find"),
        ("en", "co\u00adoperate", "cooperate"),
        ("neutral", "Đorđe Straße", "dorde strasse"),
        ("neutral", "Ёлка", "елка"),
    ],
)
def test_forms_of_a_word_meet(language: str, one: str, other: str) -> None:
    """Elision, case, endings, accents and compatibility forms do not part words."""
    assert analyzer_for(language)(one) == analyzer_for(language)(other) != []


@pytest.mark.parametrize("language", ["fr", "pl", "en"])
def test_stems_are_snowballs(language: str) -> None:
    """On lower-case words without accents the terms are what the Snowball stemmer gives."""
    import Stemmer
    from snowballstemmer.polish_stemmer import PolishStemmer

    stemmer = (
        PolishStemmer()  # PyStemmer before 3.1 has none
        if language == "pl"
        else Stemmer.Stemmer({"fr": "french", "en": "english"}[language])
    )
    text = "nationalization continuellement kamieniami generously maisons domami flies"
    stems = stemmer.stemWords(text.split())
    assert analyzer_for(language)(text) == (stemmer.stemWords(stems) if language == "pl" else stems)


def test_snowball_sees_accents_in_endings_that_are_typed_without() -> None:
    """Its rules need them; the term has none, whether the word was typed with them or not."""
    import Stemmer

    stem = Stemmer.Stemmer("french").stemWord
    assert stem("répétitivité") == "répétit"
    assert stem("repetitivite") == "repetitivit"
    assert analyzer_for("fr")("répétitivité repetitivite") == ["repetit", "repetit"]


@given(st.text(st.sampled_from("abcdeilorstuéèêàçôîœłąęśćżźńó"), min_size=1, max_size=12))
def test_a_word_meets_itself_without_accents(word: str) -> None:
    """Whatever the letters, in every language that writes accents."""
    from rerank_plugins.first_stage.analysis.normalization import folded

    for language in ("fr", "pl", "en", "neutral"):
        assert analyzer_for(language)(word) == analyzer_for(language)(folded(word))
        assert analyzer_for(language)(word.upper()) == analyzer_for(language)(word)


@pytest.mark.parametrize(
    ("language", "query", "left"),
    [
        ("ar", "من هو محمد", "محمد"),
        ("ar", "إلى أيّ مدينة", "مدينة"),
        ("fr", "Quelle est la capitale", "capitale"),
        ("fr", "où sont les fleurs", "fleurs"),
        ("pl", "Gdzie jest Kraków", "Kraków"),
        ("pl", "Jan III", "Jan III"),
        ("en", "what is the capital", "capital"),
        ("neutral", "what is the capital", "what is the capital"),
    ],
)
def test_queries_lose_their_stop_words(language: str, query: str, left: str) -> None:
    """Only words that carry meaning are searched for; numerals of kings do."""
    analyzer = analyzer_for(language)
    assert analyzer.query(query) == analyzer(left)


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "to be or not to be"), ("fr", "qui est-ce"), ("pl", "kto to jest"), ("ar", "من هو")],
)
@pytest.mark.parametrize("auto", ["", "auto-"])
def test_a_query_of_stop_words_keeps_them(language: str, text: str, auto: str) -> None:
    """A query that would be left empty is searched for whole, and passages keep their words."""
    analyzer = analyzer_for(auto + language)
    assert analyzer.query(text) == analyzer(text) != []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (FRENCH, "fr"),
        (POLISH, "pl"),
        (ARABIC, "ar"),
        (GERMAN, "neutral"),
        (SPANISH, "neutral"),
        ("蜜蜂在花园里跳舞。", "neutral"),
        ("Пчёлы танцевали в саду.", "neutral"),
        ("12345 !!!", "neutral"),
        ("", "neutral"),
    ],
)
def test_the_language_of_running_text_is_seen(text: str, language: str) -> None:
    """Ours are told apart; others, their Latin neighbours too, are neutral."""
    assert detect_language([text]) == language


def test_the_language_of_a_corpus_is_that_of_most_texts() -> None:
    """One text in another language does not decide, and only a sample is read."""
    assert detect_language([FRENCH, POLISH, POLISH, ""]) == "pl"
    texts = iter([ENGLISH] * 5)
    assert detect_language(texts, sample=2) == "en"
    assert len(list(texts)) == 3


@pytest.mark.parametrize(
    ("text", "language"), [(ENGLISH, "en"), (FRENCH, "fr"), (POLISH, "pl"), (ARABIC, "ar")]
)
def test_auto_reads_each_text_by_its_own_language(text: str, language: str) -> None:
    """In a corpus that mixes languages each passage and question gets its own analysis."""
    mixed = analyzer_for("auto", texts=[ENGLISH, FRENCH, POLISH, ARABIC])
    assert mixed(text) == analyzer_for(language)(text)
    assert set(analyzer_for(language).query(text)) <= set(mixed.query(text))


def test_auto_reads_a_bare_word_as_every_language_would() -> None:
    """A query whose language does not show meets the stems of all."""
    terms = analyzer_for("auto-en").query("jardins kwiatami dancing")
    for language, word in (("fr", "jardins"), ("pl", "kwiatami"), ("en", "dancing")):
        assert set(analyzer_for(language)(word)) <= set(terms)


def test_auto_reads_a_bare_passage_as_most_of_the_corpus() -> None:
    """A title takes the endings of the corpus around it."""
    mixed = analyzer_for("auto", texts=[POLISH, POLISH, FRENCH])
    assert mixed("Książkami") == analyzer_for("pl")("Książkami")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("auto")])
@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("iPhone cases", "where is the case for my iPhone?"),
        ("Książki kucharskie", "gdzie są te książki kucharskie?"),
        ("Jardins publics", "où sont les jardins publics ?"),
        ("المكتبات العامة", "أين هي المكتبة العامة؟"),
        ("Kochbücher", "wo sind die Kochbücher?"),
    ],
)
def test_auto_meets_bare_titles_with_whole_questions(name: str, title: str, question: str) -> None:
    """Whatever the corpus is in, a question in running text meets a title of a few words."""
    assert set(analyzer_for(name).query(question)) & set(analyzer_for(name)(title))


@pytest.mark.parametrize("name", NAMES)
@example(text="\u0300")
@given(text=ANY_TEXT)
def test_any_text_gives_terms_that_can_be_stored(name: str, text: str) -> None:
    """Every string is analysed, into non-empty terms that UTF-8 can write."""
    analyzer = analyzer_for(name)
    for term in analyzer(text) + analyzer.query(text):
        assert term
        term.encode("utf-8")


@given(piece=st.text(st.characters(), min_size=1, max_size=20))
@example(piece="1½ℵ™x")
@example(piece="إلى-l'été/ﷺ")
def test_a_piece_has_the_terms_of_its_tokens(piece: str) -> None:
    """However its terms are found: by a short cut, from memory or token by token."""
    for language in LANGUAGES:
        analyzer = analyzer_for(language)
        for part in pieces(piece):
            expected = [analyzer.term(token) for token in analyzer.tokens(part)]
            assert analyzer(part) == expected


def test_a_phrase_in_one_character_stands_apart_from_the_word_before_it() -> None:
    """The blessing is typed behind a name without a space, and the name is found."""
    analyzer = analyzer_for("ar")
    assert analyzer("محمدﷺ") == [*analyzer("محمد"), *analyzer("صلى الله عليه وسلم")]
    assert analyzer("اللهﷻ")[0] == analyzer("الله")[0]


@pytest.mark.parametrize("name", NAMES)
def test_of_a_long_query_the_beginning_is_searched(name: str) -> None:
    """Whole words of its first 65,536 characters; a passage of that length is read whole."""
    analyzer = analyzer_for(name)
    words = [f"word{number:06d}" for number in range(10_000)]
    asked = set(analyzer.query(" ".join(words)))
    assert {"word000000", "word005956"} <= {term for term in asked if term.startswith("word")}
    assert not asked & {"word005957", "word00595", "word009999"}
    assert "word009999" in analyzer(" ".join(words))
    assert analyzer.query("x" * 70_000) == analyzer.query("x" * MAX_QUERY)


@given(text=ANY_TEXT)
def test_a_query_searches_for_terms_of_the_passage(text: str) -> None:
    """The query terms of a text are among its passage terms, or it could not find itself."""
    for language in LANGUAGES:
        analyzer = analyzer_for(language)
        assert set(analyzer.query(text)) <= set(analyzer(text))


def test_emoji_are_words() -> None:
    """Each emoji is found alone, a sequence whole too; joiners and skin tones do not count."""
    assert analyzer_for("neutral")("❤️ 👩‍🚀x 👍🏽") == ["❤", "👩", "🚀", "👩🚀", "x", "👍"]
    assert analyzer_for("neutral")("🇵🇱🇫🇷") == ["🇵🇱", "🇫🇷"]


def test_an_analyzer_is_named_and_made_again_from_its_name() -> None:
    """A stored index records name and version, which give the same analyzer back."""
    for name in NAMES:
        analyzer = analyzer_for(name)
        assert analyzer.name == name
        assert analyzer_for(analyzer.name) is analyzer
        assert isinstance(analyzer.version, int)
    assert analyzer_for("auto", texts=[FRENCH]).name == "auto-fr"
    assert analyzer_for("auto").name == "auto-neutral"


@pytest.mark.parametrize("language", ["de", "", "auto-", "auto-auto", "AR", None, "arabic"])
def test_an_unknown_language_is_an_error_that_lists_the_known(language: str) -> None:
    """The message gives the choices and what was asked for."""
    with pytest.raises(InvalidInputError, match="auto, ar, fr, pl, en, neutral") as caught:
        analyzer_for(language)
    assert repr(language) in str(caught.value)


def test_threads_share_an_analyzer() -> None:
    """Many threads that meet new words at once get the terms of one."""
    texts = [f"{ENGLISH} {FRENCH} {POLISH} {ARABIC} nowe{n}słowa" for n in range(200)]
    analyzer = analyzer_for("pl")
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(analyzer, texts))
    assert together == [analyzer(text) for text in texts]


def test_importing_the_first_stages_loads_no_engine() -> None:
    """Engines, stemmers and stop words are imported when they are used."""
    code = (
        "import sys, rerank_plugins.first_stage, rerank_plugins.first_stage.conformance;"
        "print([m for m in ('faiss','torch','bm25s','rank_bm25','Stemmer','snowballstemmer',"
        "'tokenizers','safetensors','pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
