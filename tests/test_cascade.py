"""A cascade: the small model cuts, the big one orders, and their scores never meet."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from clocks import Clock, SlowScorer
from hypothesis import given
from hypothesis import strategies as st
from scorers import TableScorer

from rerank_plugins import Candidate, Cascade, Reranker
from rerank_plugins.context import context_passages
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.testing import OverlapScorer

# The small model's logits are all above the big one's: mixed, they would order wrongly.
SMALL = {"a": 105.0, "b": 104.0, "c": 103.0, "d": 102.0, "e": 101.0}
BIG = {"a": -5.0, "b": -1.0, "c": -3.0, "d": 9.0, "e": 8.0}
GIVEN = ["e", "c", "a", "d", "b"]


def cascade(head: int = 3, **options: Any) -> Cascade:
    """Of the two tables."""
    return Cascade(Reranker(TableScorer(SMALL)), Reranker(TableScorer(BIG), **options), head=head)


# What comes out.


def test_the_big_model_orders_the_small_one_s_head() -> None:
    """The rest stays below in the small model's order, marked, with no logit."""
    ranking = cascade(scale="logit").rerank("q", GIVEN)
    assert ranking.texts == ["b", "c", "a", "d", "e"]
    assert [item.logit for item in ranking] == [-1.0, -3.0, -5.0, None, None]
    assert [item.source for item in ranking] == ["model"] * 3 + ["small_model"] * 2
    assert [item.rank for item in ranking] == [1, 2, 3, 4, 5]
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert (ranking.scored, ranking.candidates, ranking.scale) == (3, 5, "logit")
    assert ranking.keys == [4, 1, 2, 3, 0]
    json.dumps(ranking.to_dict())


def test_the_big_model_is_asked_for_the_head_alone() -> None:
    """That is what is saved."""
    both = cascade()
    both.rerank("q", GIVEN)
    assert both.scorer.calls[0][0] == [("q", "a"), ("q", "b"), ("q", "c")]
    assert len(both.scorer.calls) == 1
    assert len(both.small.scorer.calls) == 1


@pytest.mark.parametrize("head", [5, 6, 99])
def test_a_short_list_goes_to_the_big_model_alone(head: int) -> None:
    """The small one is not even asked."""
    both = cascade(head)
    alone = Reranker(TableScorer(BIG)).rerank("q", GIVEN)
    assert both.rerank("q", GIVEN).to_dicts() == alone.to_dicts()
    assert both.small.scorer.calls == []


def test_top_n_cuts_what_the_cascade_ordered() -> None:
    """Beyond the head too."""
    assert cascade(top_n=2).rerank("q", GIVEN).texts == ["b", "c"]
    assert cascade().rerank("q", GIVEN, top_n=4).texts == ["b", "c", "a", "d"]


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 0.99])
@pytest.mark.parametrize("top_n", range(8))
def test_a_cut_is_the_beginning_of_the_whole(top_n: int, threshold: float | None) -> None:
    """Wherever it falls: in the head, between, in what the small model ordered."""
    whole = cascade(score_threshold=threshold).rerank("q", GIVEN)
    cut = cascade(score_threshold=threshold).rerank("q", GIVEN, top_n=top_n)
    assert cut.to_dicts() == whole[:top_n].to_dicts()


def test_a_threshold_is_the_big_model_s_and_drops_what_it_did_not_score() -> None:
    """Nothing can reach it that was not scored on its scale."""
    ranking = cascade(scale="logit", score_threshold=-4.0).rerank("q", GIVEN)
    assert ranking.texts == ["b", "c"]
    assert [item.rank for item in ranking] == [1, 2]
    assert cascade(scale="logit").rerank("q", GIVEN, score_threshold=0.0).texts == []


def test_duplicates_are_the_big_model_s_business() -> None:
    """Dropped before the small model sees them, or kept through both."""
    given = ["e", "a", "e", "a", "b", "c"]
    ranking = cascade(2, deduplicate=True).rerank("q", given)
    assert ranking.keys == [4, 1, 5, 0]
    assert ranking.deduplicated == 2
    assert cascade(3).rerank("q", given).keys == [4, 1, 3, 5, 0, 2]


def test_the_big_model_blends_with_the_small_one_s_opinion() -> None:
    """Which has the first stage's in it, by the small one's own weight; over the head alone."""
    candidates = [Candidate(key, text, 10.0 * key) for key, text in enumerate(GIVEN)]
    small = Reranker(TableScorer(SMALL), first_stage_weight=0.9, scale="logit")
    big = Reranker(TableScorer(BIG), first_stage_weight=0.5, scale="logit")
    opinion = {item.candidate.key: item.score for item in small.rerank("q", candidates)}
    head = sorted(small.rerank("q", candidates).keys[:3])
    alone = big.rerank("q", [replace(candidates[at], score=opinion[at]) for at in head])
    ranking = Cascade(small, big, head=3).rerank("q", candidates)
    assert ranking.keys[:3] == alone.keys
    assert ranking.scores[:3] == pytest.approx(alone.scores)
    assert ranking.keys[3:] == small.rerank("q", candidates).keys[3:]
    assert [item.candidate for item in ranking] == [candidates[key] for key in ranking.keys]


def test_many_queries_share_the_batches_of_both_models() -> None:
    """Long lists and short ones, each as it would be alone."""
    both = cascade(2)
    lists = [GIVEN, ["d", "a"], [], ["e", "d", "c"]]
    many = both.rerank_many(["q", "r", "s", "t"], lists)
    assert (len(both.scorer.calls), len(both.small.scorer.calls)) == (1, 1)
    assert {query for query, _ in both.small.scorer.calls[0][0]} == {"q", "t"}
    alone = [cascade(2).rerank(*one) for one in zip(["q", "r", "s", "t"], lists, strict=True)]
    assert [one.to_dicts() for one in many] == [one.to_dicts() for one in alone]


async def test_arerank_gives_what_rerank_gives() -> None:
    """Beside the event loop."""
    there = await cascade().arerank("q", GIVEN)
    assert there.to_dicts() == cascade().rerank("q", GIVEN).to_dicts()


def test_three_models_are_a_cascade_of_a_cascade() -> None:
    """The middle one's tail stays below its head for the biggest."""
    middle = Reranker(TableScorer({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}))
    both = Cascade(Reranker(TableScorer(SMALL)), middle, head=4)  # d c b a, then e
    ranking = Cascade(both, Reranker(TableScorer(BIG)), head=2).rerank("q", GIVEN)
    assert ranking.texts == ["d", "c", "b", "a", "e"]
    assert ranking.scored == 2


@pytest.mark.parametrize("failing", ["small", "big"])
def test_either_model_s_failure_leaves_the_first_stage_order(failing: str) -> None:
    """When that was asked for; otherwise the error comes out."""
    broken = OverlapScorer(error=RuntimeError("down"))
    small = Reranker(broken if failing == "small" else TableScorer(SMALL))
    big = broken if failing == "big" else TableScorer(BIG)
    ranking = Cascade(small, Reranker(big, on_error="first_stage"), head=2).rerank("q", GIVEN)
    assert ranking.texts == GIVEN
    assert (ranking.scale, ranking.scored) == ("first_stage", 0)
    assert {item.source for item in ranking} == {"first_stage"}
    with pytest.raises(RuntimeError, match="down"):
        Cascade(small, Reranker(big), head=2).rerank("q", GIVEN)


def test_under_a_deadline_the_head_is_scored_in_the_small_model_s_order() -> None:
    """The small one has half of the time; what the big one had none for stays where it was put."""
    passages = [f"{'museum ' * (1 + number % 7)}{number:03}".ljust(60) for number in range(30)]
    with Clock() as clock:
        small = Reranker(SlowScorer(clock, 0.001))
        scorer = SlowScorer(clock, 0.050)
        both = Cascade(small, Reranker(scorer, deadline_ms=400), head=20)
        ranking = both.rerank("museum", passages)
        order = small.rerank("museum", passages).texts
        late = Cascade(
            Reranker(SlowScorer(clock, 0.5)), Reranker(scorer, deadline_ms=400), head=20
        ).rerank("museum", passages)
    assert 2 <= ranking.scored <= 7
    assert [text for call in scorer.calls for _, text in call] == order[: ranking.scored]
    assert ranking.texts[ranking.scored :] == order[ranking.scored :]
    assert {item.source for item in ranking[ranking.scored :]} == {"small_model"}
    assert (late.scored, late.scale, late.texts) == (0, "first_stage", passages)


def test_the_cascade_tells_of_both_models() -> None:
    """Rankings name the big one, whose scores they carry."""
    both = Cascade(Reranker(OverlapScorer("small")), Reranker(OverlapScorer("big")), head=7)
    assert both.rerank("q", ["a"]).model == both.model == "big"
    told = both.describe()
    assert (told["model"], told["head"], told["small"]["model"]) == ("big", 7, "small")
    json.dumps(told)


def test_a_cache_behind_either_model_is_used() -> None:
    """A second time, nobody is asked."""
    small, big = TableScorer(SMALL), TableScorer(BIG)
    both = Cascade(Reranker(small, cache=100), Reranker(big, cache=100), head=2)
    first = both.rerank("q", GIVEN)
    assert both.rerank("q", GIVEN).to_dicts() == first.to_dicts()
    assert (len(small.calls), len(big.calls)) == (1, 1)


def test_a_context_holds_the_rest_to_no_minimum() -> None:
    """Its scores stand for places."""
    passages = context_passages(cascade().rerank("q", GIVEN))
    assert [passage.score is None for passage in passages] == [False] * 3 + [True] * 2


# Rules.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": 0}, "head must be a whole number of at least 1"),
        ({"head": 2.5}, "head must be a whole number"),
        ({"small": "bundled"}, "small must be a Reranker, .* but got str"),
        ({"big": OverlapScorer()}, "big must be a Reranker, .* but got OverlapScorer"),
        ({"big": cascade()}, "big must not be a cascade"),
        ({"small": Reranker(OverlapScorer(), top_n=5)}, "small must keep every passage.*'top_n'"),
        ({"small": Reranker(OverlapScorer(), score_threshold=0.5)}, "score_threshold"),
        ({"small": Reranker(OverlapScorer(), deadline_ms=10)}, "deadline_ms"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """When the cascade is made; the value is in the message."""
    given = {"small": Reranker(OverlapScorer()), "big": Reranker(OverlapScorer())} | options
    with pytest.raises(InvalidInputError, match=message):
        Cascade(given.pop("small"), given.pop("big"), **given)


# Whatever the list and the two models.


LOGITS = st.floats(-30, 30) | st.sampled_from([-1.0, 0.0, 1.0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float], list[Candidate]]:
    """Two models' logits, and candidates with repeated texts and keys."""
    texts = draw(st.lists(st.text(max_size=2), min_size=1, max_size=8, unique=True))
    tables = [
        {text: draw(LOGITS) for text in texts},
        {text: draw(LOGITS) for text in texts},
    ]
    scores = draw(st.booleans())
    candidates = [
        Candidate(draw(st.integers(0, 4)), text, draw(st.floats(-9, 9)) if scores else None)
        for text in draw(st.lists(st.sampled_from(texts), max_size=15))
    ]
    return tables[0], tables[1], candidates


@given(cases(), st.integers(1, 16), st.booleans(), st.sampled_from([0.0, 0.4]))
def test_nothing_is_lost_or_doubled_and_the_border_holds(
    case: tuple[dict[str, float], dict[str, float], list[Candidate]],
    head: int,
    deduplicate: bool,
    weight: float,
) -> None:
    """Head: what the big model makes of the small one's first; tail: the small one's rest."""
    small_table, big_table, candidates = case
    options = {"deduplicate": deduplicate, "first_stage_weight": weight}
    small = Reranker(TableScorer(small_table), scale="logit", **options)
    big = Reranker(TableScorer(big_table), scale="logit", **options)
    ranking = Cascade(small, big, head=head).rerank("q", candidates)
    alone = big.rerank("q", candidates)
    if head >= len(alone):
        assert ranking.to_dicts() == alone.to_dicts()
        return
    # Positions stand in for keys, which may repeat.
    texts = [candidate.text for candidate in candidates]
    kept = [
        Candidate(at, one.text, one.score)
        for at, one in enumerate(candidates)
        if not deduplicate or texts.index(one.text) == at
    ]
    ordered = small.rerank("q", kept)
    order, opinion = ordered.keys, dict(zip(ordered.keys, ordered.scores, strict=True))
    best = big.rerank(
        "q", [replace(one, score=opinion[one.key]) for one in kept if one.key in order[:head]]
    )
    expected = [candidates[at] for at in best.keys + order[head:]]
    assert [item.candidate for item in ranking] == expected
    assert ranking.scores[:head] == best.scores
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert all(math.isfinite(score) for score in ranking.scores)
