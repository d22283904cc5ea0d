"""Fusion by scores and by ranks, against their formulas."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from first_stage_tools import embed_words
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25, Dense, Hybrid, HybridCandidate


class Fixed:
    """A stage that answers every query with the same keys."""

    def __init__(self, size: int, keys: list[int]) -> None:
        self.size, self.keys, self.asked = size, keys, 0

    def __len__(self) -> int:
        return self.size

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """The first k of the keys that the mask allows."""
        self.asked = k
        allowed = [key for key in self.keys if mask is None or mask[key]]
        return [Candidate(key, str(key), 100.0 - r, r) for r, key in enumerate(allowed[:k], 1)]


class Scored:
    """A stage that answers every query with the same keys and scores, as they stand."""

    def __init__(self, found: dict[int, float | None]) -> None:
        self.found = found

    def __len__(self) -> int:
        return 10

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """All of them."""
        return [Candidate(key, str(key), s, r) for r, (key, s) in enumerate(self.found.items(), 1)]


ORDERS = st.lists(st.integers(0, 9), unique=True)


@given(
    orders=st.lists(ORDERS, min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    constant=st.integers(0, 100),
    k=st.integers(0, 12),
)
def test_by_ranks_scores_are_those_of_the_formula(
    orders: list[list[int]], weights: list[int], constant: int, k: int
) -> None:
    """The score is the weighted sum of 1 / (constant + rank), and equals keep the order of keys."""
    weights = weights[: len(orders)]
    hybrid = Hybrid(
        [Fixed(10, o) for o in orders], weights=weights, fusion="ranks", rank_constant=constant
    )
    exact: dict[int, Fraction] = {}
    for weight, order in zip(weights, orders, strict=True):
        for rank, key in enumerate(order, 1):
            exact[key] = exact.get(key, Fraction(0)) + Fraction(weight, constant + rank)
    found = hybrid.search("query", k)
    assert len(found) == min(k, len(exact))
    for candidate in found:
        assert candidate.score == pytest.approx(float(exact[candidate.key]))
    best = sorted(exact, key=lambda key: (-exact[key], key))[:k]
    assert [exact[c.key] for c in found] == pytest.approx([exact[key] for key in best])


def scores_of(*stages: Scored, **options: Any) -> dict[int, float]:
    """What a hybrid of these stages gives each key, best first."""
    return {c.key: c.score or 0.0 for c in Hybrid(stages, **options).search("query", 10)}


def standardized(values: Any) -> NDArray[np.float64]:
    """Mean 0, deviation 1."""
    values = np.asarray(values, dtype=np.float64)
    return (values - values.mean()) / values.std()


@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join), min_size=1, max_size=12
    ),
    query=st.lists(st.sampled_from("abcxyz"), min_size=1, max_size=4).map(" ".join),
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    removed=st.sets(st.integers(0, 11)),
    masked=st.lists(st.booleans(), min_size=12, max_size=12),
    candidates=st.integers(1, 12),
)
def test_by_scores_every_passage_counts(  # noqa: PLR0917
    texts: list[str],
    query: str,
    weights: tuple[int, int],
    removed: set[int],
    masked: list[bool],
    candidates: int,
) -> None:
    """The formula written out: each stage's scores of all passages, standardized, and their mean.

    What a stage did not put among its candidates has its own score there all the same, and the
    mask changes no score.
    """
    stages = [BM25(texts, analyzer=str.split), Dense(texts, embed=embed_words)]
    hybrid = Hybrid(stages, weights=weights, candidates=candidates)
    gone = [key for key in removed if key < len(texts) - 1]
    hybrid.remove(gone)
    kept = [key for key in range(len(texts)) if key not in gone]
    wanted = np.zeros(len(kept))
    for stage, weight in zip(stages, weights, strict=True):
        found = {c.key: c.score for c in stage.search(query, len(texts))}
        scores = np.asarray([found.get(key, 0.0) for key in kept])
        if scores.std() > 1e-12:
            wanted += weight * standardized(scores) / sum(weights)
    mask = np.asarray(masked[: len(texts)])
    near = {c.key for s in stages for c in s.search(query, candidates, mask=mask)}
    result = hybrid.search(query, candidates, mask=mask)
    expected = {key: wanted[at] for at, key in enumerate(kept) if key in near}
    assert len(result) == min(candidates, len(expected))
    for candidate in result:
        assert candidate.score == pytest.approx(expected[candidate.key], abs=1e-5)
    assert [c.score for c in result] == pytest.approx(
        sorted(expected.values(), reverse=True)[: len(result)], abs=1e-5
    )


def test_by_scores_a_graph_estimates_the_spread() -> None:
    """Its fused scores are near those over an exact index."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(3000, 16))
    texts = [str(number) for number in range(3000)]
    answers = []
    for kind in ("exact", "hnsw"):
        dense = Dense(texts, embed=lambda asked: rows[[int(one) for one in asked]], index=kind)
        found = Hybrid([BM25(texts), dense]).search("7", 10)
        answers.append({one.key: one.score for one in found})
    assert list(answers[0]) == list(answers[1])
    for key, score in answers[0].items():
        assert answers[1][key] == pytest.approx(score, rel=0.1)


def test_by_scores_lists_of_other_stages_are_standardized_over_all_candidates() -> None:
    """What a list lacks is put below its last, by the mean distance between its neighbours."""
    words, vectors = Scored({1: 8.0, 2: 6.0, 3: 2.0}), Scored({3: 0.5, 4: 0.4, 1: 0.1})
    found = scores_of(words, vectors, weights=[3, 1])
    # The last of each is a passage that nobody found.
    parts = standardized([8, 6, 2, -1, -1]), standardized([0.1, -0.1, 0.5, 0.4, -0.1])
    want = dict(enumerate(((3 * parts[0] + parts[1]) / 4)[:4], start=1))
    assert found == pytest.approx(want)
    assert list(found) == sorted(want, key=lambda key: -want[key])


@pytest.mark.parametrize(
    "found", [{1: 0.9, 2: None, 3: 0.1}, {1: 0.1, 2: 0.5, 3: 0.9}], ids=["missing", "distances"]
)
def test_by_scores_a_stage_without_usable_scores_counts_by_its_ranks(
    found: dict[int, float | None],
) -> None:
    """One score missing, or scores that rise where ranks do: reciprocal ranks stand in."""
    below = 1 / 63 - (1 / 61 - 1 / 63) / 2
    ranks = standardized([1 / 61, 1 / 62, 1 / 63, below])[:3]
    assert scores_of(Scored(found)) == pytest.approx(dict(enumerate(ranks, start=1)))


@pytest.mark.parametrize("score", [0.0, 3.0, -3.0])
def test_by_scores_equal_scores_are_equal(score: float) -> None:
    """All of a list alike: the order of keys stays, and what it lacks comes after."""
    assert list(scores_of(Scored({1: score, 2: score}))) == [1, 2]
    assert len(set(scores_of(Scored({1: score, 2: score})).values())) == 1
    stages = Scored({1: score, 2: score}), Scored({0: 1.0, 1: 0.5, 2: 0.5})
    found = scores_of(*stages, weights=[2, 1])
    assert found[1] == found[2] > found[0]


def test_an_unknown_fusion_is_refused() -> None:
    """The error names what there is."""
    with pytest.raises(InvalidInputError, match="fusion must be one of"):
        Hybrid([Scored({})], fusion="best")  # type: ignore[arg-type]


@given(order=ORDERS)
def test_one_stage_keeps_its_order(order: list[int]) -> None:
    """Fusing a stage with itself, or alone, changes nothing but the score."""
    for stages in ([Fixed(10, order)], [Fixed(10, order), Fixed(10, order)]):
        assert [c.key for c in Hybrid(stages).search("query", 10)] == order


def test_each_stages_score_and_rank_are_kept() -> None:
    """A candidate tells what each stage gave it, and None where a stage did not find it."""
    found = Hybrid([Fixed(5, [3, 1]), Fixed(5, [1])]).search("query", 5)
    assert [type(c) for c in found] == [HybridCandidate, HybridCandidate]
    assert [c.key for c in found] == [1, 3]
    assert found[0].stage_scores == (98.0, 99.0)
    assert found[0].stage_ranks == (2, 1)
    assert found[1].stage_scores == (99.0, None)
    assert found[1].stage_ranks == (1, None)


def test_stages_are_asked_for_more_than_k() -> None:
    """A passage that is fifth in both beats one that is first in one, when it is asked for."""
    stages = [Fixed(50, list(range(50))), Fixed(50, list(range(50)))]
    hybrid = Hybrid(stages, candidates=20)
    hybrid.search("query", 3)
    assert [stage.asked for stage in stages] == [20, 20]
    hybrid.search("query", 30)
    assert [stage.asked for stage in stages] == [30, 30]
    hybrid.search("query", 0)
    assert [stage.asked for stage in stages] == [0, 0]


def test_words_and_meanings_are_fused() -> None:
    """BM25 and dense stages over one corpus give candidates that carry both scores."""
    texts = ["bees dance", "flowers grow", "bees and flowers", "rain falls", "snow falls"]
    hybrid = Hybrid([BM25(texts), Dense(texts, embed=embed_words)])
    best = hybrid.search("bees and flowers", 2)[0]
    assert best.key == 2
    assert isinstance(best, HybridCandidate)
    bm25_score, dense_score = best.stage_scores
    assert bm25_score is not None
    assert dense_score == pytest.approx(1, abs=1e-6)
    assert best.stage_ranks == (1, 1)


def test_a_hybrid_is_a_first_stage_for_another() -> None:
    """Fusions nest."""
    inner = Hybrid([Fixed(4, [0, 1]), Fixed(4, [1, 2])])
    assert [c.key for c in Hybrid([inner, Fixed(4, [2, 1])]).search("query", 4)] == [1, 2, 0]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"stages": []}, "at least one"),
        ({"weights": [1.0]}, "one for each of the 2 stages, but got 1"),
        ({"weights": [1.0, 0.0]}, "finite and above 0, but got 0.0"),
        ({"weights": [1.0, float("nan")]}, "finite and above 0, but got nan"),
        ({"rank_constant": -1}, "at least 0, but got -1"),
        ({"candidates": 0}, "candidates must be a whole number of at least 1"),
        ({"stages": [Fixed(3, []), Fixed(4, [])]}, "same texts, but they hold 3, 4"),
    ],
)
def test_a_bad_option_is_named_with_its_rule(options: dict[str, object], rule: str) -> None:
    """Errors state the rule and the value."""
    with pytest.raises(InvalidInputError, match=rule):
        Hybrid(**{"stages": [Fixed(3, []), Fixed(3, [])], **options})


def test_stages_over_different_texts_are_found_out() -> None:
    """The same key with another text, or a stage that grew alone, is an error, not a mix-up."""
    hybrid = Hybrid([BM25(["bees", "rain"]), BM25(["rain", "bees"])])
    with pytest.raises(InvalidInputError, match="text of key"):
        hybrid.search("bees or rain", 2)
    dense = Dense(["bees", "rain"], embed=embed_words)
    hybrid = Hybrid([BM25(["bees", "rain"]), dense])
    dense.add(["snow"])
    with pytest.raises(InvalidInputError, match="same texts"):
        hybrid.search("bees", 2)
