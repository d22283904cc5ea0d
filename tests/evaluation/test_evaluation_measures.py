"""Measures: against trec_eval called directly, against the textbook, in bounded memory."""

from __future__ import annotations

import math
import random
import sys
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError, MissingDependencyError
from rerank_plugins.evaluation import evaluate_rankings, parse_measures
from rerank_plugins.ordering import descending

MEASURES = (
    "nDCG@5",
    "nDCG@10",
    "MRR",
    "MRR@3",
    "MAP",
    "Recall@5",
    "Recall@100",
    "P@5",
    "Success@1",
    "Success@5",
)
TREC_NAMES = {
    "nDCG@5": "ndcg_cut_5",
    "nDCG@10": "ndcg_cut_10",
    "MRR": "recip_rank",
    "MAP": "map",
    "Recall@5": "recall_5",
    "Recall@100": "recall_100",
    "P@5": "P_5",
    "Success@1": "success_1",
    "Success@5": "success_5",
}

Grades = Mapping[str, int]


def textbook(measure: str, grades: Grades, ids: Sequence[str]) -> float:
    """The measure's definition, written down plainly and apart from any library."""
    name, _, cutoff = measure.partition("@")
    k = int(cutoff) if cutoff else len(ids)
    right = [max(0, grades.get(passage, 0)) for passage in ids]
    relevant = sum(grade > 0 for grade in grades.values())
    hits = [place for place, grade in enumerate(right[:k], start=1) if grade > 0]
    if name == "nDCG":
        ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)
        worth = sum(grade / math.log2(place + 1) for place, grade in enumerate(right[:k], start=1))
        best = sum(grade / math.log2(place + 1) for place, grade in enumerate(ideal[:k], start=1))
        return worth / best if best else 0.0
    if name == "MRR":
        return 1 / hits[0] if hits else 0.0
    if name == "MAP":
        precisions = [number / place for number, place in enumerate(hits, start=1)]
        return sum(precisions) / relevant if relevant else 0.0
    if name == "Recall":
        return len(hits) / relevant if relevant else 0.0
    if name == "P":
        return len(hits) / k
    return float(bool(hits))


def random_set(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    """Judgements and rankings of all awkward kinds: ties, empty, absent, unjudged."""
    chance = random.Random(seed)
    qrels: dict[str, dict[str, int]] = {}
    rankings: dict[str, list[str]] = {}
    for number in range(30):
        query = f"q{number}"
        pool = [f"d{at}" for at in range(chance.choice([3, 20, 150]))]
        judged = chance.sample(pool, chance.randint(1, len(pool)))
        qrels[query] = {passage: chance.choice([-1, 0, 0, 1, 1, 2, 3]) for passage in judged}
        if chance.random() < 0.1:
            continue
        found = chance.sample(pool, chance.randint(0, len(pool)))
        # Few distinct scores: most of them tie.
        scores = [chance.randint(0, 4) for _ in found]
        rankings[query] = [found[at] for at in descending(scores)]
    rankings["not judged"] = ["d0"]
    return qrels, rankings


@pytest.mark.parametrize("seed", range(20))
def test_values_are_the_textbook_s(seed):
    """Every measure of every query to 1e-6, ties, empty and absent rankings included."""
    qrels, rankings = random_set(seed)
    values = evaluate_rankings(qrels, rankings.items(), MEASURES)
    assert values.query_ids == tuple(qrels)
    for measure in MEASURES:
        expected = [textbook(measure, qrels[q], rankings.get(q, ())) for q in qrels]
        np.testing.assert_allclose(values.by_measure[measure], expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_values_are_those_of_pytrec_eval_called_directly(seed):
    """The judgements as they are go to trec_eval itself, beside our way through ir-measures."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, rankings = random_set(seed)
    values = evaluate_rankings(qrels, rankings.items(), tuple(TREC_NAMES))
    run = {q: {p: 1000.0 - at for at, p in enumerate(ids)} for q, ids in rankings.items() if ids}
    known = {q: {p: max(0, grade) for p, grade in of.items()} for q, of in qrels.items()}
    found = pytrec_eval.RelevanceEvaluator(known, set(TREC_NAMES.values())).evaluate(run)
    for measure, name in TREC_NAMES.items():
        expected = [found.get(query, {}).get(name, 0.0) for query in qrels]
        np.testing.assert_allclose(values.by_measure[measure], expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_ranx_where_it_is_installed(seed):
    """A third implementation, compiled by numba; too heavy to be asked of every machine."""
    ranx = pytest.importorskip("ranx", reason="pip install ranx to compare with it")
    names = {
        "nDCG@10": "ndcg@10",
        "MRR": "mrr",
        "MRR@3": "mrr@3",
        "MAP": "map",
        "Recall@5": "recall@5",
        "P@5": "precision@5",
        "Success@5": "hit_rate@5",
    }
    qrels, rankings = random_set(seed)
    kept = [q for q in qrels if rankings.get(q) and max(qrels[q].values()) > 0]
    values = evaluate_rankings({q: qrels[q] for q in kept}, rankings.items(), tuple(names))
    run = {q: {p: 1000.0 - at for at, p in enumerate(rankings[q])} for q in kept}
    known = {q: {p: grade for p, grade in qrels[q].items() if grade > 0} for q in kept}
    found = ranx.Run(run)
    ranx.evaluate(ranx.Qrels(known), found, list(names.values()), make_comparable=True)
    for measure, name in names.items():
        expected = [found.scores[name][query] for query in kept]
        np.testing.assert_allclose(values.by_measure[measure], expected, atol=1e-6)


@given(
    ids=st.permutations([f"d{at}" for at in range(12)]),
    relevant=st.sets(st.integers(0, 11), min_size=1),
    at_a_time=st.integers(1, 4),
)
def test_the_order_given_is_the_order_measured(ids, relevant, at_a_time):
    """No tie rule, no rounding to single precision and no chunk changes a rank."""
    qrels = {f"q{n}": {f"d{at}": 1 for at in relevant} for n in range(5)}
    rankings = [(query, ids) for query in qrels]
    values = evaluate_rankings(qrels, rankings, ("MRR",), queries_at_a_time=at_a_time)
    first = next(place for place, one in enumerate(ids, start=1) if one in qrels["q0"])
    np.testing.assert_allclose(values.by_measure["MRR"], [1 / first] * 5)


def test_means_count_judged_queries_that_have_no_ranking():
    """As trec_eval -c does: silence is a zero, not a smaller set."""
    qrels = {"a": {"d": 1}, "b": {"d": 1}}
    assert evaluate_rankings(qrels, [("a", ["d"])], ("MRR",)).means() == {"MRR": 0.5}


@pytest.mark.parametrize(
    ("written", "own"),
    [
        ("nDCG@10", "nDCG@10"),
        ("ndcg@10", "nDCG@10"),
        ("MRR", "RR"),
        ("mrr@10", "RR@10"),
        ("MAP", "AP"),
        ("Recall@100", "R@100"),
        ("R@100", "R@100"),
        ("P@5", "P@5"),
        ("Success@1", "Success@1"),
        ("Rprec", "Rprec"),
    ],
)
def test_measures_go_by_the_names_people_use(written, own):
    """Each name stands for ir-measures' own measure."""
    measures = parse_measures([written])
    assert {name: str(measure) for name, measure in measures.items()} == {written: own}


@pytest.mark.parametrize(
    "names", [["nope@3"], ["Recall"], ["MRR@0"], ["MRR@-1"], [""], [], ["MRR", "mrr"], "MRR", [5]]
)
def test_a_wrong_measure_is_refused(names):
    """Unknown, without the cutoff it needs, twice, or not a list of names."""
    with pytest.raises(InvalidInputError):
        parse_measures(names)


@pytest.mark.parametrize(
    ("rankings", "grade", "message"),
    [
        ([("q", ["a"]), ("q", ["b"])], 1, "second one"),
        ([("q", ["a", "b", "a"])], 1, "twice"),
        ([("q", ["a"])], 0.5, "whole numbers"),
    ],
)
def test_rankings_that_mean_nothing_are_refused(rankings, grade, message):
    """A query or a passage twice, and grades between the whole numbers."""
    with pytest.raises(InvalidInputError, match=message):
        evaluate_rankings({"q": {"a": grade}}, rankings, ("MRR",))


def test_without_ir_measures_the_error_names_the_extra(monkeypatch):
    """What to type is in the message."""
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingDependencyError, match=r"rerank-plugins\[evaluation\]"):
        parse_measures(["MRR"])


def peak(queries: int) -> int:
    """Bytes at most while that many rankings of 100 passages are evaluated."""
    qrels = {f"q{n}": {"d3": 1} for n in range(queries)}

    def rankings() -> Iterator[tuple[str, list[str]]]:
        for n in range(queries):
            yield f"q{n}", [f"d{(at * 7 + n) % 100}" for at in range(100)]

    tracemalloc.start()
    evaluate_rankings(qrels, rankings(), ("nDCG@10",), queries_at_a_time=50)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest


def test_memory_does_not_grow_with_the_number_of_rankings():
    """Ten times the queries: the rankings alone would take ten times the memory."""
    few, many = peak(200), peak(2000)
    # What may grow is a place, a value and a mark a query: some hundred bytes, not 100 passages.
    assert many - few < 1800 * 400
