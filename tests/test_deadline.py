"""A deadline: what is scored in time, in which order, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import Clock, SlowScorer
from hypothesis import given
from hypothesis import strategies as st
from scorers import TableScorer

from rerank_plugins import Candidate, Reranker, load_reranker
from rerank_plugins.context import context_passages
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import OverlapScorer

QUERY = "when does the museum open"
# Of equal length, the worst first, so that any scoring changes the order.
PASSAGES = [
    " ".join(QUERY.split()[: number % 6]).ljust(30, ".") + f"{number:03}" for number in range(40)
]


def in_first_stage_order(passages: list[str], scored: int) -> list[int]:
    """What a deadline must give that leaves time for so many: the head reranked, then the rest."""
    head = Reranker(OverlapScorer()).rerank(QUERY, passages[:scored]).keys
    return head + list(range(scored, len(passages)))


# What fits, and what becomes of the rest.


@pytest.mark.parametrize("milliseconds", [1, 15, 50, 100, 200, 399, 1000])
def test_the_head_is_scored_and_the_rest_keeps_its_order_below(milliseconds: int) -> None:
    """Whatever fits is a beginning of the list; the result says how much it was."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        ranking = Reranker(scorer, deadline_ms=milliseconds).rerank(QUERY, PASSAGES)
    assert [text for call in scorer.calls for _, text in call] == PASSAGES[: ranking.scored]
    assert ranking.keys == in_first_stage_order(PASSAGES, ranking.scored)
    assert [item.source for item in ranking] == ["model"] * ranking.scored + ["first_stage"] * (
        40 - ranking.scored
    )
    assert [item.logit is None for item in ranking] == [item.source != "model" for item in ranking]
    assert [item.rank for item in ranking] == list(range(1, 41))
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert (ranking.candidates, ranking.scale, ranking.error) == (40, "probability", None)
    json.dumps(ranking.to_dict())


def test_time_is_used_and_kept_to_by_a_steady_model() -> None:
    """A model of 10 ms a passage: most of 300 ms is used, none of it twice."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        reranker = Reranker(scorer, deadline_ms=300)
        for _ in range(3):
            start = clock.seconds
            ranking = reranker.rerank(QUERY, PASSAGES)
            assert clock.seconds - start <= 0.300 + 1e-9
            assert ranking.scored >= 25


def test_a_model_that_turns_twice_as_slow_is_still_in_time() -> None:
    """A chunk is planned to take half of what is left."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        reranker = Reranker(scorer, deadline_ms=300)
        reranker.rerank(QUERY, PASSAGES)
        scorer.seconds = lambda pair: 0.020
        start = clock.seconds
        reranker.rerank(QUERY, PASSAGES)
        assert clock.seconds - start <= 0.300 + 1e-9


def test_a_long_first_passage_teaches_no_haste() -> None:
    """Cut to the model's length it cost little a character; the next chunk stays small."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        Reranker(scorer, deadline_ms=200).rerank(QUERY, ["long " * 5000, *PASSAGES])
        assert [len(call) for call in scorer.calls][:2] == [1, 4]
        assert clock.seconds - 1000 <= 0.200 + 1e-9


def test_a_deadline_with_time_to_spare_changes_nothing() -> None:
    """All scored, every figure the same."""
    with Clock() as clock:
        plain = Reranker(SlowScorer(clock, 0.001)).rerank(QUERY, PASSAGES)
        timed = Reranker(SlowScorer(clock, 0.001)).rerank(QUERY, PASSAGES, deadline_ms=10_000)
    assert timed.to_dicts() == plain.to_dicts()
    assert timed.scored == plain.scored == 40


def test_the_next_call_knows_the_pace() -> None:
    """No second groping: half of the time's worth at once."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        reranker = Reranker(scorer, deadline_ms=200)
        reranker.rerank(QUERY, PASSAGES)
        assert len(scorer.calls[0]) == 1
        scorer.calls.clear()
        reranker.rerank(QUERY, PASSAGES)
        assert len(scorer.calls[0]) == 10


def test_loading_does_not_count_and_time_does_from_the_call() -> None:
    """The first query has scores like any other; one that comes too late has none."""
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010, loading=5.0), deadline_ms=200)
        assert reranker.rerank(QUERY, PASSAGES).scored >= 10

    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=200)
        passages = PASSAGES

        def late() -> Any:
            clock.seconds += 5.0
            yield from passages

        ranking = reranker.rerank(QUERY, late(), score_threshold=0.99, top_n=30)
        assert ranking.keys == list(range(30))
        assert (ranking.scored, ranking.scale) == (0, "first_stage")
        assert ranking.scores == [1 / rank for rank in range(1, 31)]
        assert {item.source for item in ranking} == {"first_stage"}
        assert "deadline of 200.0 ms" in ranking.error
        assert reranker.rerank(QUERY, PASSAGES).scored >= 10


def test_reading_the_passages_counts() -> None:
    """A first stage that streams takes its time out of the same purse."""
    with Clock() as clock:

        def stream() -> Any:
            for passage in PASSAGES:
                clock.seconds += 0.004
                yield passage

        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=200)
        reranker.rerank(QUERY, PASSAGES)
        assert 1 <= reranker.rerank(QUERY, stream()).scored <= 4


def test_a_model_slower_than_the_deadline_still_scores_the_first_passage() -> None:
    """Every time: a pace that was learned in a bad moment does not last for ever."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 3.0)
        reranker = Reranker(scorer, deadline_ms=100)
        assert [reranker.rerank(QUERY, PASSAGES).scored for _ in range(3)] == [1, 1, 1]
        scorer.seconds = lambda pair: 0.001
        assert reranker.rerank(QUERY, PASSAGES).scored > 20


def test_what_a_cache_answers_teaches_nothing() -> None:
    """After a query that took no time, an unknown one is still in time."""
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=200, cache=1000)
        for _ in range(4):
            ranking = reranker.rerank(QUERY, PASSAGES)
        assert ranking.scored == 40
        start = clock.seconds
        other = reranker.rerank("another question of the kind", PASSAGES)
        assert clock.seconds - start <= 0.200 + 1e-9
        assert 10 <= other.scored < 40


# With the other options.


def test_the_blend_looks_at_nothing_but_what_was_scored() -> None:
    """The head comes out as if there were no rest, whatever scores the rest has."""
    candidates = [Candidate(key, text, 50.0 - key) for key, text in enumerate(PASSAGES)]
    candidates[-1] = Candidate(39, PASSAGES[-1], math.nan)
    candidates[-2] = Candidate(38, PASSAGES[-2], None)
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), first_stage_weight=0.4, deadline_ms=150)
        ranking = reranker.rerank(QUERY, candidates)
    scored = ranking.scored
    assert 1 < scored < 38
    alone = Reranker(OverlapScorer(), first_stage_weight=0.4).rerank(QUERY, candidates[:scored])
    assert ranking[:scored].to_dicts() == alone.to_dicts()


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_a_threshold_drops_what_was_scored_too_low_and_nothing_that_was_not(scale: Any) -> None:
    """Nobody said that these are bad; ranks close up."""
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), scale=scale, deadline_ms=150)
        whole = reranker.rerank(QUERY, PASSAGES)
        reranker = Reranker(SlowScorer(clock, 0.010), scale=scale, deadline_ms=150)
        cut = reranker.rerank(QUERY, PASSAGES, score_threshold=0.5)
    good = [item for item in whole[: whole.scored] if item.score >= 0.5]
    assert 0 < len(good) < whole.scored == cut.scored
    assert cut.keys == [item.candidate.key for item in good] + list(range(cut.scored, 40))
    assert [item.rank for item in cut] == list(range(1, len(cut) + 1))
    assert cut.scores == sorted(cut.scores, reverse=True)


def test_scores_below_stay_on_the_scale() -> None:
    """Probabilities above 0, logits finite, all of them falling."""
    for scale, lowest in (("probability", 0.0), ("logit", -math.inf)):
        with Clock() as clock:
            reranker = Reranker(SlowScorer(clock, 0.010), scale=scale, deadline_ms=100)
            scores = reranker.rerank(QUERY, PASSAGES).scores
        assert all(lowest < score < math.inf for score in scores)
        assert all(a > b for a, b in pairwise(scores[20:]))


def test_a_context_holds_no_unscored_passage_to_a_minimum() -> None:
    """Its score stands for a place."""
    with Clock() as clock:
        ranking = Reranker(SlowScorer(clock, 0.010), deadline_ms=100).rerank(QUERY, PASSAGES)
    passages = context_passages(ranking)
    assert [passage.score is None for passage in passages] == [
        item.source == "first_stage" for item in ranking
    ]


def test_a_failure_under_a_deadline_is_a_failure() -> None:
    """Half a ranking is not enough: the whole list keeps its order, and says why."""
    with Clock() as clock:

        class Failing(SlowScorer):
            def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
                if self.calls:
                    raise RuntimeError("out of memory")
                return super().score(pairs, options)

        kept = Reranker(Failing(clock, 0.01), deadline_ms=300, on_error="first_stage").rerank(
            QUERY, PASSAGES
        )
        assert kept.keys == list(range(40))
        assert (kept.scored, kept.scale) == (0, "first_stage")
        assert kept.error == "RuntimeError: out of memory"
        with pytest.raises(RuntimeError, match="out of memory"):
            Reranker(Failing(clock, 0.01), deadline_ms=300).rerank(QUERY, PASSAGES)


def test_scores_of_a_chunk_are_counted_and_checked() -> None:
    """A scorer that answers wrongly is found out in every chunk."""
    with Clock() as clock:

        class Wrong(SlowScorer):
            def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
                found = super().score(pairs, options)
                return (
                    found if len(self.calls) < 2 else PairScores(found.logits[:-1], found.truncated)
                )

        with pytest.raises(Exception, match="one score per pair"):
            Reranker(Wrong(clock, 0.01), deadline_ms=300).rerank(QUERY, PASSAGES)


# Many queries, and beside the event loop.


def test_of_many_queries_the_first_passages_are_scored_first() -> None:
    """All share the time; none takes it all."""
    with Clock() as clock:
        scorer = SlowScorer(clock, 0.010)
        reranker = Reranker(scorer, deadline_ms=200)
        many = reranker.rerank_many([QUERY, "museum", "open"], [PASSAGES, PASSAGES[:2], PASSAGES])
    scored = [ranking.scored for ranking in many]
    assert scored[1] == 2
    assert abs(scored[0] - scored[2]) <= 1
    assert sum(scored) == scorer.pairs_seen
    assert [len(ranking) for ranking in many] == [40, 2, 40]
    for ranking in many:
        assert sorted(ranking.keys) == list(range(len(ranking)))


async def test_arerank_keeps_to_it_and_counts_the_wait_for_a_thread() -> None:
    """The clock starts when it is called, not when a thread is free."""
    release = threading.Event()

    class Waiting(OverlapScorer):
        def score(self, pairs: Any, options: ScoreOptions) -> PairScores:
            assert release.wait(timeout=30)
            return super().score(pairs, options)

    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=200)
        assert 10 <= (await reranker.arerank(QUERY, PASSAGES)).scored < 40
        # More than there are threads, so that the last one has to wait.
        held = [asyncio.create_task(Reranker(Waiting()).arerank("q", ["a"])) for _ in range(64)]
        last = asyncio.create_task(reranker.arerank(QUERY, PASSAGES))
        await asyncio.sleep(0)
        clock.seconds += 60
        release.set()
        assert (await last).scored == 0
        await asyncio.gather(*held)


def test_a_deadline_of_a_call_stands_in_for_the_reranker_s_own() -> None:
    """Infinity means no limit."""
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=100)
        assert reranker.rerank(QUERY, PASSAGES).scored < 11
        assert reranker.rerank(QUERY, PASSAGES, deadline_ms=1000).scored == 40
        assert reranker.rerank(QUERY, PASSAGES, deadline_ms=math.inf).scored == 40
        assert reranker.rerank(QUERY, PASSAGES).scored < 11
    assert Reranker(OverlapScorer(), deadline_ms=math.inf).deadline_ms is None


@pytest.mark.parametrize("bad", [0, -5, math.nan, -math.inf, True, "100", [100]])
def test_a_bad_deadline_is_refused_in_both_places(bad: Any) -> None:
    """The rule and the value are in the message."""
    with pytest.raises(InvalidInputError, match="deadline_ms must be"):
        Reranker(OverlapScorer(), deadline_ms=bad)
    with pytest.raises(InvalidInputError, match="deadline_ms must be"):
        Reranker(OverlapScorer()).rerank(QUERY, PASSAGES, deadline_ms=bad)


# Whatever the list, the pace and the time.


@st.composite
def lists(draw: st.DrawFn) -> list[Candidate]:
    """Candidates with repeated texts, keys and scores."""
    texts = draw(st.lists(st.text("ab ", max_size=6), max_size=15))
    return [
        Candidate(draw(st.integers(0, 5)), text, draw(st.floats(-9, 9)), draw(st.integers(1, 9)))
        for text in texts
    ]


@given(
    st.lists(lists(), min_size=1, max_size=4),
    st.tuples(st.floats(0.0001, 3.0), st.floats(0, 0.1), st.floats(1, 2000)),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
)
def test_nothing_is_lost_or_doubled(
    many: list[list[Candidate]],
    times: tuple[float, float, float],
    deduplicate: bool,
    weight: float,
) -> None:
    """The head as it would be alone, then the rest as it came, call after call."""
    seconds, overhead, milliseconds = times
    with Clock() as clock:
        scorer = SlowScorer(clock, lambda pair: seconds / 10 * len(pair[1]), overhead=overhead)
        options = {"deduplicate": deduplicate, "first_stage_weight": weight, "scale": "logit"}
        reranker = Reranker(scorer, deadline_ms=milliseconds, **options)
        for _ in range(2):
            rankings = reranker.rerank_many(["a b"] * len(many), many)
            for candidates, ranking in zip(many, rankings, strict=True):
                texts = [candidate.text for candidate in candidates]
                kept = [
                    candidate
                    for at, candidate in enumerate(candidates)
                    if not deduplicate or texts.index(candidate.text) == at
                ]
                head, rest = kept[: ranking.scored], kept[ranking.scored :]
                alone = Reranker(OverlapScorer(), **options).rerank("a b", head)
                if ranking.scored:
                    assert ranking[: ranking.scored].to_dicts() == alone.to_dicts()
                assert [item.candidate for item in ranking[ranking.scored :]] == rest
                assert np.isfinite(ranking.scores).all()


@given(lists(), st.none() | st.integers(0, 20))
def test_an_endless_deadline_is_none(candidates: list[Candidate], top_n: int | None) -> None:
    """Every field of every ranking, but for the time it took."""
    table = TableScorer({candidate.text: len(candidate.text) for candidate in candidates})
    plain = Reranker(table, top_n=top_n).rerank("q", candidates)
    for deadline in (math.inf, 1e12):
        timed = Reranker(table, top_n=top_n, deadline_ms=deadline).rerank("q", candidates)
        told = timed.to_dict() | {"scoring_seconds": plain.scoring_seconds}
        assert told == plain.to_dict()


def test_a_real_model_under_a_generous_deadline_ranks_as_without(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Chunks are batches like any others."""
    from texts import ALL_PASSAGES, QUESTIONS

    folder = tiny_checkpoints["rstar"]
    plain = load_reranker(folder, device="cpu").rerank(QUESTIONS["en"], ALL_PASSAGES)
    timed = load_reranker(folder, device="cpu", deadline_ms=1e6).rerank(
        QUESTIONS["en"], ALL_PASSAGES
    )
    assert timed.scored == plain.scored
    assert timed.scores == pytest.approx(plain.scores, abs=1e-4)
