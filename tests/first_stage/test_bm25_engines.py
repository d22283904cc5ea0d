"""BM25 scores against the formula, written out, and what is found at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25
from rerank_plugins.first_stage.bm25 import ENGINES

WORDS = st.sampled_from("abcdefgh")
CORPORA = st.lists(st.lists(WORDS, max_size=8), min_size=1, max_size=12).filter(any)
QUERIES = st.lists(st.sampled_from("abcdefghxyz"), min_size=1, max_size=6)


def bm25_scores(corpus: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """Okapi BM25 (rank_bm25's, with its factor k1 + 1) with Lucene's idf, term by term."""
    mean = sum(map(len, corpus)) / len(corpus)
    scores = []
    for words in corpus:
        score = 0.0
        for term in (t for t in query if t in words):
            found_in = sum(term in other for other in corpus)
            idf = math.log(1 + (len(corpus) - found_in + 0.5) / (found_in + 0.5))
            tf = words.count(term)
            score += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("engine", ENGINES)
@given(
    corpus=CORPORA,
    query=QUERIES,
    k1_and_b=st.tuples(st.floats(0.1, 3), st.floats(0, 1)),
    masked=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_scores_and_order_are_the_formulas(
    engine: str,
    corpus: list[list[str]],
    query: list[str],
    k1_and_b: tuple[float, float],
    masked: list[bool],
) -> None:
    """Every passage that shares a word comes back with its score, above 0, and no other does.

    Small corpora are full of words in most passages, where other idfs turn negative.
    """
    mask = np.asarray(masked[: len(corpus)])
    k1, b = k1_and_b
    expected = bm25_scores(corpus, query, k1, b)
    sharing = [i for i, words in enumerate(corpus) if set(words) & set(query) and mask[i]]
    bm25 = BM25(
        [" ".join(words) for words in corpus], analyzer=str.split, engine=engine, k1=k1, b=b
    )
    found = bm25.search(" ".join(query), len(corpus), mask=mask)
    assert sorted(c.key for c in found) == sharing
    for candidate in found:
        assert candidate.score == pytest.approx(expected[candidate.key], abs=1e-9)
        assert candidate.score > 0
    best = sorted(sharing, key=lambda i: (-round(expected[i], 9), i))
    assert [round(expected[c.key], 9) for c in found] == [round(expected[i], 9) for i in best]


@given(corpus=CORPORA, query=QUERIES)
def test_engines_agree(corpus: list[list[str]], query: list[str]) -> None:
    """Changing the engine changes neither what is found nor its score."""
    texts = [" ".join(words) for words in corpus]
    one, other = (
        BM25(texts, analyzer=str.split, engine=engine).search(" ".join(query), 100)
        for engine in ("auto", "rank-bm25")
    )
    assert {c.key: pytest.approx(c.score, abs=1e-9) for c in one} == {c.key: c.score for c in other}


@pytest.mark.parametrize("engine", ENGINES)
@given(corpus=CORPORA, query=QUERIES, more=st.lists(WORDS, min_size=1, max_size=3))
def test_a_further_match_never_lowers_a_score(
    engine: str, corpus: list[list[str]], query: list[str], more: list[str]
) -> None:
    """A longer query is never satisfied less, whatever share of the passages has its words."""
    bm25 = BM25([" ".join(words) for words in corpus], analyzer=str.split, engine=engine)
    short, long = (
        {c.key: c.score for c in bm25.search(" ".join(words), 100)}
        for words in (query, query + more)
    )
    for key, score in short.items():
        assert long[key] >= score
        if set(more) & set(corpus[key]):
            assert long[key] > score


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("found_in", [98, 99, 100, 101, 102, 200])
def test_idf_falls_smoothly_as_a_word_gets_common(engine: str, found_in: int) -> None:
    """A word in 98 of 200 passages and one in 102 weigh almost the same."""
    texts = ["word" if at < found_in else "other" for at in range(200)]
    best = BM25(texts, analyzer=str.split, engine=engine).search("word", 1)[0]
    assert best.score == pytest.approx(math.log(1 + (200.5 - found_in) / (found_in + 0.5)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_word_of_every_passage_still_finds_them(engine: str) -> None:
    """In a collection of one or two the words of the query count for what they are."""
    alone = BM25(["cat"], engine=engine).search("cat", 5)
    assert [(c.key, c.score) for c in alone] == [(0, pytest.approx(math.log(4 / 3)))]
    twice = BM25(["cat", "cat cat cat"], engine=engine).search("cat", 5)
    assert [c.key for c in twice] == [1, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_shares_no_word_is_not_found(engine: str) -> None:
    """No list is filled up with passages that do not match."""
    bm25 = BM25(["cat sat", "dog ran", "bird flew"], engine=engine)
    assert [c.key for c in bm25.search("dogs", 3)] == [1]
    assert bm25.search("fish", 3) == []
    assert bm25.search("!!!", 3) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_do_not_depend_on_the_mask(engine: str) -> None:
    """A filter hides passages; it does not make words rarer."""
    texts = ["cat sat here", "dog ran", "cat ran off", "a bird", "a fish", "a cow"]
    bm25 = BM25(texts, engine=engine)
    mask = np.asarray([False, True, True, True, True, True])
    open_scores = {c.key: c.score for c in bm25.search("cat ran", 9)}
    masked = {c.key: c.score for c in bm25.search("cat ran", 9, mask=mask)}
    assert masked == {key: score for key, score in open_scores.items() if mask[key]}


@pytest.mark.parametrize("engine", ENGINES)
def test_four_languages_in_one_corpus(engine: str) -> None:
    """With language auto each question finds its passage through another form of its words."""
    texts = [
        "The bees were dancing in the garden because they had found some flowers.",
        "Les bibliothèques de la ville sont ouvertes le dimanche.",
        "W ogrodzie stoją książki, które zostały tam po deszczu.",
        "كانت المكتبات في المدينة مفتوحة يوم الأحد.",
    ]
    bm25 = BM25(texts, engine=engine)
    questions = [
        "Where does a bee dance?",
        "Quelle bibliothèque est ouverte ?",
        "Gdzie jest książka?",
        "متى تفتح المكتبة أبوابها؟",
    ]
    assert [bm25.search(question, 1)[0].key for question in questions] == [0, 1, 2, 3]


def test_a_query_takes_the_analyzers_own_road_for_queries() -> None:
    """An analyzer with a query method reads queries by it, a plain callable by itself."""

    class Shouting:
        def __call__(self, text: str) -> list[str]:
            return text.split()

        def query(self, text: str) -> list[str]:
            return text.upper().split()

    assert [c.key for c in BM25(["CAT", "cat"], analyzer=Shouting()).search("cat", 5)] == [0]
    assert [c.key for c in BM25(["CAT", "cat"], analyzer=str.split).search("cat", 5)] == [1]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"engine": "lucene"}, r"one of \['auto', 'rank-bm25', 'bm25s'\], but got 'lucene'"),
        ({"k1": 0}, "k1 must be a finite number above 0, but got 0"),
        ({"k1": float("nan")}, "k1 must be"),
        ({"b": 1.5}, r"b must be in \[0, 1\], but got 1.5"),
        ({"b": float("nan")}, "b must be"),
        ({"language": "klingon"}, "language must be one of"),
    ],
)
def test_a_bad_option_is_named_with_its_rule(options: dict[str, object], rule: str) -> None:
    """Errors state the rule and the value."""
    with pytest.raises(InvalidInputError, match=rule):
        BM25(["text"], **options)
