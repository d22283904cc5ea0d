"""Why a passage has its score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25

WORDS = st.sampled_from("abcdefgh")
CORPORA = st.lists(st.lists(WORDS, max_size=8), min_size=1, max_size=12).filter(any)


@given(
    corpus=CORPORA,
    query=st.lists(st.sampled_from("abcdxyz"), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 11), max_size=4),
)
def test_the_shares_sum_to_the_score(
    corpus: list[list[str]], query: list[str], gone: set[int]
) -> None:
    """For every passage, after additions and removals too; 0 for one that is not found."""
    bm25 = BM25([" ".join(words) for words in corpus[:5]], analyzer=str.split, b=0.5)
    for words in corpus[5:]:
        bm25.add([" ".join(words)])
    bm25.remove(gone & set(range(len(corpus) - 1)))
    scores = {c.key: c.score for c in bm25.search(" ".join(query), 20)}
    for key in bm25.keys:
        told = bm25.explain(" ".join(query), key)
        assert told.score == pytest.approx(scores.get(key, 0.0))
        assert told.score == pytest.approx(sum(one.share for one in told.terms))
        assert told.length == len(corpus[key])
        assert {one.term: one.tf for one in told.terms} == {
            term: corpus[key].count(term) for term in query
        }


def test_an_explanation_reads_as_lucenes() -> None:
    """Terms by their share, those that are missing too, with the numbers of the formula."""
    bm25 = BM25(["a cat and a cat", "a dog", "a bird"], language="en")
    told = bm25.explain("cats, dogs and cats", 0)
    first, second = told.terms
    assert (first.term, first.tf, first.found_in, first.times) == ("cat", 2, 1, 2)
    assert first.idf == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert (second.term, second.tf, second.share) == ("dog", 0, 0.0)
    lines = str(told).splitlines()
    assert lines[0] == f"{told.score:.4f} = passage 0: 5 terms (mean 3.0), k1 1.5, b 0.75"
    assert lines[1].endswith("cat: idf 0.9808 (in 1 of 3 passages), tf 2, 2 times in the query")


@pytest.mark.parametrize("key", [-1, 1, 2])
def test_only_a_passage_of_the_index_can_be_explained(key: int) -> None:
    """A removed key and one that was never given are errors that name it."""
    bm25 = BM25(["a cat", "a dog"], language="en")
    bm25.remove([1])
    with pytest.raises(InvalidInputError, match=f"but {key} is not"):
        bm25.explain("cat", key)
    with pytest.raises(InvalidInputError, match="query"):
        bm25.explain(" ", 0)
