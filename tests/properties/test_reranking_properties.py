"""What holds of every reranking, whatever the passages and the scores."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import TableScorer
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Candidate, Ranking, Reranker, load_reranker
from rerank_plugins.ordering import descending
from rerank_plugins.testing import OverlapScorer

# Few distinct values, so that ties and duplicates are common.
LOGITS = st.floats(min_value=-30, max_value=30) | st.sampled_from([-1.0, 0.0, 1.0])
WORDS = st.sampled_from(["museum", "opens", "nine", "متحف", "muzeum", "musée", "monday"])
SENTENCES = st.lists(WORDS, max_size=6).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, float], list[Candidate]]:
    """Passages with logits, and candidates drawn from them: repeated, scored, in any order."""
    logits = draw(st.dictionaries(st.text(max_size=4), LOGITS, min_size=1, max_size=12))
    texts = draw(st.lists(st.sampled_from(sorted(logits)), max_size=20))
    scores = draw(
        st.none()
        | st.lists(
            st.floats(min_value=-100, max_value=100), min_size=len(texts), max_size=len(texts)
        )
    )
    return logits, [
        Candidate(key, text, None if scores is None else scores[key], key + 1)
        for key, text in enumerate(texts)
    ]


def order(ranking: Ranking) -> list[int]:
    """Keys, best first."""
    return ranking.keys


@given(tables(), st.booleans(), st.none() | st.integers(0, 25), st.none() | LOGITS)
def test_the_output_is_a_subset_permutation_of_the_input(
    table: tuple[dict[str, float], list[Candidate]],
    deduplicate: bool,
    top_n: int | None,
    threshold: float | None,
) -> None:
    """Every candidate at most once, none made up, best first, as many as the rules leave."""
    logits, candidates = table
    reranker = Reranker(TableScorer(logits), scale="logit", deduplicate=deduplicate)
    ranking = reranker.rerank("q", candidates, top_n=top_n, score_threshold=threshold)
    given_by_key = {candidate.key: candidate for candidate in candidates}
    assert len(set(ranking.keys)) == len(ranking)
    assert all(given_by_key[item.candidate.key] is item.candidate for item in ranking)
    assert [item.rank for item in ranking] == list(range(1, len(ranking) + 1))
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    texts = [candidate.text for candidate in candidates]
    left = sorted(set(texts), key=texts.index) if deduplicate else texts
    if threshold is not None:
        left = [text for text in left if logits[text] >= threshold]
    assert len(ranking) == (len(left) if top_n is None else min(top_n, len(left)))


@given(tables(), st.integers(0, 25), st.sampled_from([0.0, 0.3]))
def test_top_n_is_a_prefix_of_the_full_ranking(
    table: tuple[dict[str, float], list[Candidate]], top_n: int, weight: float
) -> None:
    """Asking for fewer never changes which come first, or their scores."""
    logits, candidates = table
    reranker = Reranker(TableScorer(logits), first_stage_weight=weight)
    whole = reranker.rerank("q", candidates)
    assert reranker.rerank("q", candidates, top_n=top_n).to_dicts() == whole[:top_n].to_dicts()


INCREASING = {
    "shifted": lambda x: x + 7.0,
    "stretched": lambda x: 3.0 * x - 1.0,
    "cubed": lambda x: x**3 + x,
    "exponential": lambda x: float(np.exp(x / 4)),
    "squashed": lambda x: float(np.arctan(x)),
}


@pytest.mark.parametrize("name", INCREASING)
@given(table=tables())
def test_a_strictly_increasing_map_of_the_scores_changes_no_order(
    name: str, table: tuple[dict[str, float], list[Candidate]]
) -> None:
    """Only the order of the logits orders; ranks of ties included."""
    logits, candidates = table
    mapped = {text: INCREASING[name](logit) for text, logit in logits.items()}
    # Rounding may join two scores that were a hair apart; then the map was not strict.
    if len(set(mapped.values())) == len(set(logits.values())):
        before = Reranker(TableScorer(logits)).rerank("q", candidates)
        after = Reranker(TableScorer(mapped)).rerank("q", candidates)
        assert order(before) == order(after)


@given(tables(), st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_order_of_the_input(
    table: tuple[dict[str, float], list[Candidate]], random: object
) -> None:
    """A shuffled first stage: each passage keeps its score, and untied ones their place."""
    logits, candidates = table
    shuffled = list(candidates)
    random.shuffle(shuffled)
    reranker = Reranker(TableScorer(logits), deduplicate=False)
    before, after = reranker.rerank("q", candidates), reranker.rerank("q", shuffled)
    assert before.scores == after.scores
    assert {item.candidate.key: item.score for item in before} == {
        item.candidate.key: item.score for item in after
    }


@given(st.lists(SENTENCES, max_size=10), SENTENCES.filter(bool))
def test_inputs_are_never_mutated(passages: list[str], query: str) -> None:
    """Neither the list nor the candidates in it."""
    candidates = [Candidate(key, text, float(key)) for key, text in enumerate(passages)]
    before = copy.deepcopy((passages, candidates))
    reranker = Reranker(OverlapScorer(), top_n=2, first_stage_weight=0.5)
    reranker.rerank(query, passages)
    reranker.rerank(query, candidates)
    reranker.rerank_many([query, query], [passages, candidates])
    assert (passages, candidates) == before


@given(st.lists(tables(), max_size=4))
def test_many_queries_at_once_give_what_each_gives_alone(
    several: list[tuple[dict[str, float], list[Candidate]]],
) -> None:
    """Sharing batches between queries changes nothing."""
    logits = {text: logit for table, _ in several for text, logit in table.items()}
    reranker = Reranker(TableScorer(logits), top_n=5)
    lists = [candidates for _, candidates in several]
    queries = [f"q{number}" for number in range(len(lists))]
    many = reranker.rerank_many(queries, lists)
    alone = [reranker.rerank(*job) for job in zip(queries, lists, strict=True)]
    assert [one.to_dicts() for one in many] == [one.to_dicts() for one in alone]


@given(st.lists(LOGITS, max_size=60), st.none() | st.integers(0, 70))
def test_descending_is_a_stable_sort_then_a_cut(scores: list[float], k: int | None) -> None:
    """Python's own stable sort is the oracle, for every k."""
    expected = sorted(range(len(scores)), key=lambda position: -scores[position])[:k]
    assert descending(scores, k).tolist() == expected


@settings(max_examples=15)
@given(
    budget=st.integers(1, 2000),
    subset=st.lists(st.sampled_from(ALL_PASSAGES), min_size=1, max_size=12, unique=True),
)
def test_a_real_model_s_scores_do_not_depend_on_batch_or_company(
    tiny_checkpoints: Mapping[str, Path], budget: int, subset: list[str]
) -> None:
    """Any batch budget, any other passages beside it: the score of each stays."""
    folder = tiny_checkpoints["camembert"]
    alone = load_reranker(folder, device="cpu", scale="logit", batch_tokens=1)
    together = load_reranker(folder, device="cpu", scale="logit", batch_tokens=budget)
    expected = {text: alone.rerank(QUESTIONS["fr"], [text])[0].score for text in subset}
    for item in together.rerank(QUESTIONS["fr"], subset):
        assert item.score == pytest.approx(expected[item.text], abs=1e-4)
