"""Changes of one character that no test noticed once: each of these tests fails for one."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_plugins import Candidate, Cascade, ContextBuilder, Reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.significance import randomization_test
from rerank_plugins.first_stage.analysis import analyzer_for
from rerank_plugins.reranking.scored import _below, with_unread
from rerank_plugins.scoring.token_cache import TokenCache
from rerank_plugins.testing import OverlapScorer


def test_scores_below_the_model_s_are_below_the_lowest_from_the_first() -> None:
    """Half of it, a third of it...: never the lowest itself."""
    assert [_below(0.6, probability=True)(place) for place in (1, 2)] == pytest.approx([0.3, 0.2])
    assert [_below(-2.0, probability=False)(place) for place in (1, 2)] == [-3.0, -4.0]
    assert [_below(None, probability=True)(place) for place in (1, 2)] == [1.0, 0.5]


def test_a_cascade_has_the_big_model_s_limits() -> None:
    """Batches, windows and tokens of the head are as the big one has them."""
    big = Reranker(OverlapScorer(), batch_tokens=77, windows=5, max_tokens=999)
    assert Cascade(Reranker(OverlapScorer()), big).options == big.options


def test_a_text_that_is_kept_again_counts_once() -> None:
    """Else the cache believes itself full and forgets what it could hold."""
    cache = TokenCache(1000)
    for _ in range(100):
        cache.put({"text": [1, 2, 3]})
    assert cache._held == 3 + 1 + 32
    cache.put({"other": [1]})
    assert set(cache.get(["text", "other"])) == {"text", "other"}


def test_a_p_value_counts_the_sample_itself() -> None:
    """No number of resamples gives 0: (1 + as far) / (1 + resamples)."""
    one, other = [1.0] * 60, [0.0] * 60
    assert randomization_test(one, other, resamples=99) == pytest.approx(1 / 100)
    assert randomization_test(one, other, resamples=999) == pytest.approx(1 / 1000)


@pytest.mark.parametrize(("keep", "ranks"), [(None, [1, 2, 3, 4]), (3, [1, 2, 3]), (1, [1, 2])])
def test_what_no_model_reads_takes_the_next_ranks(keep: int | None, ranks: list[int]) -> None:
    """Below the others in its own order, marked, and counted among the candidates."""
    ranking = Reranker(OverlapScorer()).rerank("museum", ["a museum", "a bus"])
    images = [Candidate(2, ""), Candidate(3, "")]
    both = with_unread(ranking, images, keep)
    assert [ranked.rank for ranked in both] == ranks
    assert list(both.scores) == sorted(both.scores, reverse=True)
    assert {ranked.source for ranked in both[2:]} <= {"first_stage"}
    assert both.candidates == 4


@pytest.mark.parametrize("flag", ["fence", "strip_invisible"])
def test_a_flag_that_is_none_is_named(flag: str) -> None:
    """By its own name."""
    wrong: dict[str, Any] = {flag: "yes"}
    with pytest.raises(InvalidInputError, match=flag):
        ContextBuilder(100, **wrong)


@pytest.mark.parametrize(("language", "text"), [("en", "running shoes"), ("fr", "chevaux blancs")])
def test_where_no_language_shows_words_have_the_terms_of_each(language: str, text: str) -> None:
    """Neither in the passage nor in the corpus."""
    assert set(analyzer_for("auto-neutral")(text)) >= set(analyzer_for(language)(text))
