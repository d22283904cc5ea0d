"""Every option and rule of Reranker."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
from typing import Any

import numpy as np
import pytest
from scorers import AnsweringScorer, TableScorer

from rerank_plugins import Candidate, Reranker
from rerank_plugins.errors import (
    InvalidInputError,
    NonFiniteScoreError,
    ScoreCountError,
    UnknownModelError,
)
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import OverlapScorer

TABLE = {"low": -2.0, "zero": 0.0, "high": 3.0, "top": 5.0}
PASSAGES = ["low", "zero", "high", "top"]


def keys(reranker: Reranker, passages: Any = PASSAGES, **options: Any) -> list[int]:
    """Keys of the ranking, best first."""
    return reranker.rerank("query", passages, **options).keys


# What comes out.


def test_passages_come_in_order_of_their_logits() -> None:
    """Best first, ranks from 1, each with its own logit and its sigmoid."""
    ranking = Reranker(TableScorer(TABLE)).rerank("query", PASSAGES)
    assert ranking.texts == ["top", "high", "zero", "low"]
    assert [item.rank for item in ranking] == [1, 2, 3, 4]
    assert [item.logit for item in ranking] == [5.0, 3.0, 0.0, -2.0]
    assert ranking.scores == pytest.approx([1 / (1 + math.exp(-x)) for x in (5, 3, 0, -2)])
    assert all(item.source == "model" for item in ranking)


def test_the_logit_scale_gives_logits_and_says_so() -> None:
    """Unbounded scores for who asks for them; the scale stands beside them."""
    ranking = Reranker(TableScorer(TABLE), scale="logit").rerank("query", PASSAGES)
    assert ranking.scores == [5.0, 3.0, 0.0, -2.0]
    assert ranking.scale == "logit"
    assert Reranker(TableScorer(TABLE)).rerank("query", PASSAGES).scale == "probability"


def test_probabilities_of_far_logits_neither_overflow_nor_lose_the_order() -> None:
    """Both saturate to 1.0 or 0.0, and the logit still decides."""
    table = {"a": 800.0, "b": 900.0, "c": -900.0, "d": -800.0}
    with np.errstate(all="raise", under="ignore"):
        ranking = Reranker(TableScorer(table)).rerank("query", list("abcd"))
    assert ranking.texts == ["b", "a", "d", "c"]
    assert ranking.scores[:2] == [1.0, 1.0]
    assert ranking.scores[2:] == pytest.approx([0.0, 0.0])


def test_ties_keep_first_stage_order() -> None:
    """Equal logits change nothing."""
    table = dict.fromkeys("abcd", 1.0) | {"c": 2.0}
    assert keys(Reranker(TableScorer(table)), list("abcd")) == [2, 0, 1, 3]


def test_scores_are_native_floats() -> None:
    """Nothing of numpy leaves, so JSON and pydantic take it."""
    item = Reranker(TableScorer(TABLE)).rerank("query", PASSAGES)[0]
    assert (type(item.score), type(item.logit), type(item.rank)) == (float, float, int)
    assert type(item.truncated) is bool
    json.dumps(item.to_dict())


def test_candidates_come_back_as_they_went_in() -> None:
    """Key, first-stage score and rank are kept; keys need not be positions."""
    given = [Candidate(40, "low", 9.0, 1), Candidate(7, "top", 1.0, 2)]
    ranking = Reranker(TableScorer(TABLE)).rerank("query", given)
    assert [item.candidate for item in ranking] == [given[1], given[0]]


def test_the_ranking_knows_model_counts_and_times() -> None:
    """What came in, what was cut or dropped, and how long it took."""
    scorer = TableScorer(TABLE, truncated=["top"])
    ranking = Reranker(scorer, top_n=1, deduplicate=True).rerank(
        "query", [*PASSAGES, "low"], first_stage_seconds=0.25
    )
    assert (ranking.query, ranking.model) == ("query", "table")
    assert (ranking.candidates, ranking.truncated, ranking.deduplicated) == (5, 1, 1)
    assert ranking.first_stage_seconds == 0.25
    assert ranking.scoring_seconds > 0
    assert ranking.error is None
    assert ranking[0].truncated


# How many come out.


@pytest.mark.parametrize(
    ("top_n", "expected"),
    [(None, [3, 2, 1, 0]), (0, []), (1, [3]), (4, [3, 2, 1, 0]), (99, [3, 2, 1, 0])],
)
def test_top_n_cuts_the_ranking(top_n: int | None, expected: list[int]) -> None:
    """None means all, 0 means nothing, more than available means all."""
    assert keys(Reranker(TableScorer(TABLE), top_n=top_n)) == expected
    assert keys(Reranker(TableScorer(TABLE)), top_n=top_n) == expected


def test_top_n_of_a_call_stands_in_for_the_reranker_s_own() -> None:
    """Zero too: it is a number like any other."""
    reranker = Reranker(TableScorer(TABLE), top_n=3)
    assert keys(reranker, top_n=0) == []
    assert keys(reranker, top_n=1) == [3]
    assert keys(reranker) == [3, 2, 1]


@pytest.mark.parametrize("top_n", [-1, 1.0, True, False, "3", [1], math.nan])
def test_a_bad_top_n_is_refused_in_both_places(top_n: Any) -> None:
    """Negative, float, bool, text: the rule and the value are in the message."""
    with pytest.raises(InvalidInputError, match="top_n must be a whole number of at least 0"):
        Reranker(TableScorer(TABLE), top_n=top_n)
    with pytest.raises(InvalidInputError, match="top_n must be a whole number of at least 0"):
        Reranker(TableScorer(TABLE)).rerank("query", PASSAGES, top_n=top_n)


def test_a_threshold_keeps_what_reaches_it() -> None:
    """On the scale of the scores; equal is enough."""
    assert keys(Reranker(TableScorer(TABLE), score_threshold=0.5)) == [3, 2, 1]
    assert keys(Reranker(TableScorer(TABLE), scale="logit", score_threshold=3.0)) == [3, 2]
    assert keys(Reranker(TableScorer(TABLE), score_threshold=2.0)) == []


def test_a_threshold_of_zero_is_a_threshold() -> None:
    """0.0 differs from None: on logits it drops what is below."""
    assert keys(Reranker(TableScorer(TABLE), scale="logit", score_threshold=0.0)) == [3, 2, 1]
    assert keys(Reranker(TableScorer(TABLE), scale="logit"), score_threshold=0.0) == [3, 2, 1]
    override = Reranker(TableScorer(TABLE), scale="logit", score_threshold=4.0)
    assert keys(override, score_threshold=0.0) == [3, 2, 1]
    assert keys(override) == [3]


def test_threshold_and_top_n_both_hold() -> None:
    """Whichever is stricter."""
    reranker = Reranker(TableScorer(TABLE), scale="logit", score_threshold=0.0, top_n=2)
    assert keys(reranker) == [3, 2]
    assert keys(reranker, score_threshold=4.0) == [3]


@pytest.mark.parametrize("threshold", ["0.5", True, math.nan, math.inf, [0.5]])
def test_a_bad_threshold_is_refused(threshold: Any) -> None:
    """Text, bool and what is not finite."""
    with pytest.raises(InvalidInputError, match="score_threshold must be a finite number"):
        Reranker(TableScorer(TABLE), score_threshold=threshold)
    with pytest.raises(InvalidInputError, match="score_threshold must be a finite number"):
        Reranker(TableScorer(TABLE)).rerank("query", PASSAGES, score_threshold=threshold)


# What goes in.


@pytest.mark.parametrize("empty", [[], (), iter([]), (text for text in [])])
def test_no_passages_give_an_empty_ranking(empty: Any) -> None:
    """And the model is not asked."""
    scorer = TableScorer({})
    ranking = Reranker(scorer).rerank("query", empty)
    assert len(ranking) == 0
    assert (ranking.candidates, ranking.scoring_seconds) == (0, 0.0)
    assert scorer.calls == []


@pytest.mark.parametrize("query", ["", " ", "\n\t\u00a0", "\u2003"])
def test_a_blank_query_is_refused(query: str) -> None:
    """Whitespace of any kind is not a question, even when there is nothing to rank."""
    for passages in (PASSAGES, []):
        with pytest.raises(InvalidInputError, match="query must not be blank"):
            Reranker(TableScorer(TABLE)).rerank(query, passages)


@pytest.mark.parametrize("query", [None, 7, b"bytes", ["a"], {"query": "a"}])
def test_a_query_that_is_no_text_is_refused(query: Any) -> None:
    """The message says what it is instead."""
    with pytest.raises(
        InvalidInputError, match=f"query must be text, but got {type(query).__name__}"
    ):
        Reranker(TableScorer(TABLE)).rerank(query, PASSAGES)


def test_a_generator_of_passages_is_consumed_once_and_wholly() -> None:
    """A first stage may stream."""
    assert keys(Reranker(TableScorer(TABLE)), (text for text in PASSAGES)) == [3, 2, 1, 0]


def test_of_the_same_text_the_first_stays_if_asked() -> None:
    """Its first-stage score and rank are the better ones."""
    given = [Candidate(5, "low", 3.0, 1), Candidate(6, "top", 2.0, 2), Candidate(8, "low", 1.0, 3)]
    scorer = TableScorer(TABLE)
    ranking = Reranker(scorer, deduplicate=True).rerank("query", given)
    assert ranking.keys == [6, 5]
    assert ranking.deduplicated == 1
    assert scorer.calls[0][0] == [("query", "low"), ("query", "top")]


def test_without_deduplication_every_copy_comes_back_with_the_same_score() -> None:
    """In first-stage order among themselves."""
    ranking = Reranker(TableScorer(TABLE)).rerank("q", ["low", "top", "low"])
    assert ranking.keys == [1, 0, 2]
    assert ranking.scores[1] == ranking.scores[2]
    assert ranking.deduplicated == 0


def test_texts_that_differ_in_one_space_are_not_the_same() -> None:
    """Only equal texts are duplicates."""
    assert len(Reranker(OverlapScorer()).rerank("q", ["a b", "a  b", "a b "])) == 3


def test_the_same_key_twice_is_no_duplicate() -> None:
    """A caller's keys are the caller's; both passages come back."""
    given = [Candidate(1, "low"), Candidate(1, "top")]
    assert Reranker(TableScorer(TABLE)).rerank("query", given).texts == ["top", "low"]


def test_inputs_are_left_as_they_were() -> None:
    """The caller's list is not modified."""
    given = ["top", "low", "low", "zero"]
    Reranker(TableScorer(TABLE), top_n=1).rerank("query", given)
    assert given == ["top", "low", "low", "zero"]


# Options that reach the scorer.


def test_batch_tokens_and_long_passages_reach_the_scorer() -> None:
    """The reranker does not batch."""
    scorer = TableScorer(TABLE)
    Reranker(scorer, batch_tokens=123, long_passages="mean").rerank("query", PASSAGES)
    Reranker(scorer).rerank("query", PASSAGES)
    assert scorer.calls[0][1] == ScoreOptions(batch_tokens=123, long_passages="mean")
    assert scorer.calls[1][1].long_passages is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "percent"}, "scale must be one of"),
        ({"scale": None}, "scale must be one of"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"long_passages": "median"}, "long_passages must be one of"),
        ({"batch_tokens": 0}, "batch_tokens must be a whole number of at least 1"),
        ({"batch_tokens": 8.5}, "batch_tokens must be a whole number"),
        ({"first_stage_weight": 1.5}, "first_stage_weight must be between 0 and 1"),
        ({"first_stage_weight": -0.1}, "first_stage_weight must be between 0 and 1"),
        ({"first_stage_weight": "half"}, "first_stage_weight must be a finite number"),
    ],
)
def test_other_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """When the reranker is made, not at the first query; the value is in the message."""
    with pytest.raises(InvalidInputError, match=message) as raised:
        Reranker(TableScorer(TABLE), **options)
    assert repr(next(iter(options.values()))) in str(raised.value)


@pytest.mark.parametrize("scorer", ["BAAI/bge-reranker-large", None, object()])
def test_what_cannot_score_is_refused(scorer: Any) -> None:
    """A name in place of a scorer is told of `load_reranker`."""
    with pytest.raises(InvalidInputError, match="load_reranker"):
        Reranker(scorer)


def test_numpy_numbers_are_numbers() -> None:
    """Options that come out of a data frame."""
    reranker = Reranker(
        TableScorer(TABLE),
        top_n=np.int64(3),
        score_threshold=np.float32(0.5),
        batch_tokens=np.int32(99),
    )
    assert keys(reranker) == [3, 2, 1]
    assert keys(reranker, top_n=np.int8(1)) == [3]
    json.dumps(reranker.describe())


# Blending with the first stage.


def blended(logits: list[float], first: list[float], weight: float) -> np.ndarray:
    """Standardize both, average, put back on the scale of the logits: a plain oracle."""

    def standard(values: list[float]) -> list[float]:
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        return [0.0 if spread == 0 else (value - mean) / spread for value in values]

    mean = sum(logits) / len(logits)
    spread = math.sqrt(sum((value - mean) ** 2 for value in logits) / len(logits))
    pairs = zip(standard(logits), standard(first), strict=True)
    return np.asarray([mean + spread * ((1 - weight) * a + weight * b) for a, b in pairs])


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("own", [True, False])
def test_blending_is_a_weighted_mean_of_standardized_scores(weight: float, *, own: bool) -> None:
    """The caller's weight, or the model's own where the caller has none."""
    first = [12.0, 3.0, 7.5, 0.0]
    candidates = [
        Candidate(key, text, score)
        for key, (text, score) in enumerate(zip(PASSAGES, first, strict=True))
    ]
    scorer = TableScorer(TABLE, first_stage_weight=weight if own else 0.7)
    reranker = Reranker(scorer, scale="logit", first_stage_weight=None if own else weight)
    found = {item.candidate.key: item for item in reranker.rerank("query", candidates)}
    expected = blended(list(TABLE.values()), first, weight)
    np.testing.assert_allclose([found[key].score for key in range(4)], expected, atol=1e-12)
    assert [found[key].logit for key in range(4)] == list(TABLE.values())
    assert reranker.rerank("query", candidates).keys == np.argsort(-expected).tolist()


def test_a_weight_of_one_is_the_first_stage_s_order_and_zero_the_model_s() -> None:
    """The two ends."""
    candidates = [Candidate(key, text, score=float(-key)) for key, text in enumerate(PASSAGES)]
    assert keys(Reranker(TableScorer(TABLE), first_stage_weight=1.0), candidates) == [0, 1, 2, 3]
    assert keys(Reranker(TableScorer(TABLE), first_stage_weight=0.0), candidates) == [3, 2, 1, 0]


def test_a_list_with_a_missing_first_stage_score_is_ordered_by_the_model_alone() -> None:
    """Plain texts have none, and one that is missing cannot be made up."""
    reranker = Reranker(TableScorer(TABLE), scale="logit", first_stage_weight=0.9)
    assert reranker.rerank("query", PASSAGES).scores == [5.0, 3.0, 0.0, -2.0]
    some = [Candidate(key, text, None if key == 2 else 1.0) for key, text in enumerate(PASSAGES)]
    assert reranker.rerank("query", some).scores == [5.0, 3.0, 0.0, -2.0]


def test_blending_where_all_are_alike_divides_by_nothing() -> None:
    """One passage, equal logits, equal first-stage scores."""
    with np.errstate(all="raise"):
        reranker = Reranker(TableScorer(TABLE), scale="logit", first_stage_weight=0.5)
        assert reranker.rerank("query", [Candidate(0, "high", 4.0)]).scores == [3.0]
        alike = [Candidate(0, "low", 4.0), Candidate(1, "high", 4.0)]
        assert reranker.rerank("query", alike).keys == [1, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_first_stage_score_that_is_not_finite_is_named_when_it_is_blended(bad: float) -> None:
    """Not blamed on the model; where nothing is blended it does no harm."""
    candidates = [Candidate(0, "low", 1.0), Candidate(1, "high", bad)]
    with pytest.raises(InvalidInputError, match=r"first-stage scores must be finite.* number 1"):
        Reranker(TableScorer(TABLE), first_stage_weight=0.5).rerank("query", candidates)
    assert keys(Reranker(TableScorer(TABLE)), candidates) == [1, 0]


# What a model can do wrong.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error(bad: float) -> None:
    """One NaN, and no order means anything."""
    with pytest.raises(NonFiniteScoreError, match="number 1"):
        Reranker(TableScorer({"a": 1.0, "b": bad})).rerank("query", ["a", "b"])


@pytest.mark.parametrize(
    "logits",
    [np.zeros(3), np.zeros(5), np.zeros((4, 1)), np.zeros((4, 2)), np.zeros(8), np.float64(1.0)],
    ids=["fewer", "more", "column", "two columns", "two labels flattened", "scalar"],
)
def test_a_wrong_number_of_scores_is_an_error(logits: np.ndarray) -> None:
    """A 2-label model read as one column gives 2n scores; so does much else."""
    with pytest.raises(ScoreCountError, match=r"one score per pair, .* for 4 pairs"):
        Reranker(AnsweringScorer(logits)).rerank("query", PASSAGES)
    with pytest.raises(ScoreCountError, match="truncated of shape"):
        Reranker(AnsweringScorer(np.zeros(4), np.zeros(3, np.bool_))).rerank("query", PASSAGES)


def test_a_scorer_may_answer_in_lists() -> None:
    """What numpy can read as one number a pair is good enough."""
    ranking = Reranker(AnsweringScorer([1, 2, 3, 4], [False, True, False, False])).rerank(
        "query", PASSAGES
    )
    assert ranking.keys == [3, 2, 1, 0]
    assert ranking.truncated == 1


def test_an_error_of_the_scorer_is_raised_as_it_is() -> None:
    """Nothing is hidden unless it was asked for."""
    error = UnknownModelError("no such model")
    with pytest.raises(UnknownModelError) as raised:
        Reranker(OverlapScorer(error=error)).rerank("query", PASSAGES)
    assert raised.value is error


# on_error="first_stage".


@pytest.mark.parametrize(
    "scorer",
    [
        OverlapScorer(error=RuntimeError("out of memory")),
        AnsweringScorer(np.zeros(1)),
        TableScorer(TABLE | {"low": math.nan}),
    ],
    ids=["raises", "counts wrong", "gives NaN"],
)
def test_a_failing_model_leaves_the_first_stage_order_marked_as_such(scorer: Any) -> None:
    """Order kept, scores 1/rank, no logit, every item and the ranking say where it came from."""
    reranker = Reranker(scorer, on_error="first_stage", deduplicate=True)
    ranking = reranker.rerank("query", [*PASSAGES, "low"])
    assert ranking.texts == PASSAGES
    assert ranking.scale == "first_stage"
    assert ranking.scores == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert {item.source for item in ranking} == {"first_stage"}
    assert {item.logit for item in ranking} == {None}
    assert ranking.error
    assert type(ranking.error) is str
    assert (ranking.candidates, ranking.deduplicated, ranking.truncated) == (5, 1, 0)
    json.dumps(ranking.to_dict())


def test_the_fallback_is_cut_to_top_n_and_no_threshold_is_applied_to_it() -> None:
    """1/rank is on no scale that a threshold was meant for."""
    scorer = OverlapScorer(error=RuntimeError("down"))
    reranker = Reranker(scorer, on_error="first_stage", top_n=2, score_threshold=0.9)
    assert reranker.rerank("query", PASSAGES).keys == [0, 1]


def test_the_warning_comes_once_a_reranker(caplog: pytest.LogCaptureFixture) -> None:
    """A model that is down under load does not fill the log; it is named, with its error."""
    reranker = Reranker(OverlapScorer(error=RuntimeError("out of memory")), on_error="first_stage")
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        for _ in range(5):
            reranker.rerank("query", PASSAGES)
    assert len(caplog.records) == 1
    assert "overlap" in caplog.text
    assert "RuntimeError: out of memory" in caplog.text


def test_a_model_that_recovers_is_used_again() -> None:
    """The fallback is for a call, not for ever."""
    scorer = OverlapScorer(error=RuntimeError("down"))
    reranker = Reranker(scorer, on_error="first_stage")
    assert reranker.rerank("museum", ["bus", "museum"]).scale == "first_stage"
    scorer.error = None
    ranking = reranker.rerank("museum", ["bus", "museum"])
    assert (ranking.scale, ranking.keys, ranking.error) == ("probability", [1, 0], None)


def test_the_caller_s_mistakes_are_raised_whatever_on_error_says() -> None:
    """A blank query is not a model failure."""
    reranker = Reranker(OverlapScorer(), on_error="first_stage")
    with pytest.raises(InvalidInputError):
        reranker.rerank(" ", PASSAGES)
    with pytest.raises(InvalidInputError):
        reranker.rerank("query", [None])


def test_an_option_that_the_model_cannot_have_is_raised_whatever_on_error_says() -> None:
    """It would fail for every query, and nobody would notice that nothing is reranked."""
    scorer = OverlapScorer(error=InvalidInputError("max_length must be at most 512, but got 9000"))
    with pytest.raises(InvalidInputError, match="max_length"):
        Reranker(scorer, on_error="first_stage").rerank("query", PASSAGES)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_never_swallowed(stop: type[BaseException]) -> None:
    """Ctrl-C stops, fallback or not."""

    class Interrupted(OverlapScorer):
        def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
            raise stop

    with pytest.raises(stop):
        Reranker(Interrupted(), on_error="first_stage").rerank("query", PASSAGES)


# Many queries, and beside the event loop.


def test_rerank_many_gives_what_rerank_gives_with_one_call_of_the_scorer() -> None:
    """All queries share batches; each ranking is the query's own."""
    queries = ["museum hours", "night ferry", "museum hours"]
    lists = [["the museum", "a ferry"], [], ["night ferry at eleven", "museum", "museum"]]
    scorer = TableScorer({text: len(text) for some in lists for text in some})
    many = Reranker(scorer, top_n=2).rerank_many(queries, lists)
    assert len(scorer.calls) == 1
    for query, passages, ranking in zip(queries, lists, many, strict=True):
        alone = Reranker(scorer, top_n=2).rerank(query, passages)
        assert ranking.to_dicts() == alone.to_dicts()
        assert (ranking.query, ranking.candidates, ranking.deduplicated) == (
            query,
            alone.candidates,
            alone.deduplicated,
        )


def test_rerank_many_of_nothing_is_nothing() -> None:
    """No queries, no rankings."""
    assert Reranker(OverlapScorer()).rerank_many([], []) == []


def test_rerank_many_takes_generators() -> None:
    """Lists that stream in."""
    many = Reranker(OverlapScorer()).rerank_many((q for q in ["a", "b"]), (["a"] for _ in range(2)))
    assert [ranking.query for ranking in many] == ["a", "b"]


@pytest.mark.parametrize(
    ("queries", "lists", "message"),
    [
        (["a", "b"], [["x"]], "2 queries and 1 lists"),
        ("ab", [["x"], ["y"]], "one string"),
        (["a", " "], [["x"], ["y"]], "must not be blank"),
        (["a"], ["x"], "got one string"),
        (["a"], [None], "NoneType"),
    ],
)
def test_rerank_many_refuses_what_does_not_pair_up(queries: Any, lists: Any, message: str) -> None:
    """Before anything is scored."""
    scorer = TableScorer({})
    with pytest.raises(InvalidInputError, match=message):
        Reranker(scorer).rerank_many(queries, lists)
    assert scorer.calls == []


def test_a_failure_in_rerank_many_leaves_every_query_its_first_stage_order() -> None:
    """The queries shared the batches, so they share the failure."""
    reranker = Reranker(OverlapScorer(error=RuntimeError("down")), on_error="first_stage")
    many = reranker.rerank_many(["a", "b"], [["x", "y"], ["z"]])
    assert [ranking.scale for ranking in many] == ["first_stage", "first_stage"]
    assert [ranking.keys for ranking in many] == [[0, 1], [0]]


async def test_arerank_gives_what_rerank_gives() -> None:
    """With the same options and the same errors."""
    reranker = Reranker(TableScorer(TABLE))
    for options in ({}, {"top_n": 2}, {"score_threshold": 0.6}, {"first_stage_seconds": 1.5}):
        there = await reranker.arerank("query", PASSAGES, **options)
        here = reranker.rerank("query", PASSAGES, **options)
        assert there.to_dicts() == here.to_dicts()
        assert there.first_stage_seconds == here.first_stage_seconds
    with pytest.raises(InvalidInputError, match="blank"):
        await reranker.arerank(" ", PASSAGES)
    with pytest.raises(InvalidInputError, match="one string"):
        await reranker.arerank("query", "one string")
    with pytest.raises(InvalidInputError, match="NoneType"):
        await reranker.arerank("query", None)


async def test_arerank_scores_in_another_thread_while_the_loop_goes_on() -> None:
    """The scorer waits for something that only the event loop can do."""
    done = threading.Event()
    threads: list[str] = []

    class Waiting(OverlapScorer):
        def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
            threads.append(threading.current_thread().name)
            assert done.wait(timeout=30), "the event loop stood still"
            return super().score(pairs, options)

    async def later() -> None:
        done.set()

    ranking, _ = await asyncio.gather(Reranker(Waiting()).arerank("a", ["a", "b"]), later())
    assert len(ranking) == 2
    assert threads != [threading.current_thread().name]


async def test_arerank_ranks_the_list_as_it_was_when_called() -> None:
    """What the caller does to the list meanwhile changes nothing."""
    passages = ["low", "top"]
    task = asyncio.create_task(Reranker(TableScorer(TABLE)).arerank("query", passages))
    await asyncio.sleep(0)
    passages.clear()
    assert (await task).texts == ["top", "low"]


async def test_arerank_takes_the_caller_s_context_along() -> None:
    """Tracing frameworks keep the current run in a context variable."""
    from contextvars import ContextVar

    current: ContextVar[str] = ContextVar("current", default="nothing")
    seen: list[str] = []

    class Looking(OverlapScorer):
        def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
            seen.append(current.get())
            return super().score(pairs, options)

    current.set("this run")
    await Reranker(Looking()).arerank("a", ["a"])
    assert seen == ["this run"]


async def test_arerank_leaves_the_loop_s_own_threads_free() -> None:
    """Forty waiting rerank calls do not hold up the caller's own ``to_thread``."""
    release = threading.Event()

    class Waiting(OverlapScorer):
        def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
            release.wait(timeout=30)
            return super().score(pairs, options)

    reranker = Reranker(Waiting())
    waiting = [asyncio.create_task(reranker.arerank("a", ["a"])) for _ in range(40)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), timeout=20) == "free"
    release.set()
    assert len(await asyncio.gather(*waiting)) == 40


def test_describe_adds_the_reranker_s_settings_to_the_scorer_s() -> None:
    """Native types, ready for JSON."""
    told = Reranker(OverlapScorer(), scale="logit", batch_tokens=50).describe()
    assert told["model"] == "overlap"
    assert (told["scale"], told["batch_tokens"]) == ("logit", 50)
    json.dumps(told)
