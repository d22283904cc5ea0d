"""Tests and intervals: against scipy, against all swaps, against the books."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation import bootstrap_interval, holm, randomization_test


def measured(n: int, seed: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two systems' values, with few distinct numbers as measures have."""
    chance = np.random.default_rng(seed)
    one = chance.integers(0, 11, n) / 10
    return one, np.clip(one + chance.integers(-3, 4, n) / 10 + gain, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_p_values_are_those_of_all_swaps(seed):
    """Ten queries have 1,024 swaps: the drawn p-value lies where the exact one is."""
    one, other = measured(10, seed, gain=0.05)
    difference = one - other
    sums = [abs(np.dot(difference, signs)) for signs in product((1, -1), repeat=10)]
    exact = np.mean(np.asarray(sums) >= abs(difference.sum()) - 1e-9)
    assert randomization_test(one, other, resamples=20_000) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("n", [12, 80, 400])
def test_p_values_and_intervals_are_scipy_s(n):
    """The same procedures there, drawn query by query: equal but for the draw."""
    stats = pytest.importorskip("scipy.stats")
    one, other = measured(n, 1, gain=0.02)
    expected = stats.permutation_test(
        (one, other),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2000,
        rng=np.random.default_rng(0),
    ).pvalue
    assert randomization_test(one, other) == pytest.approx(expected, abs=0.04)
    interval = stats.bootstrap(
        (one,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    width = interval.high - interval.low
    found = bootstrap_interval(one)
    assert found is not None
    assert found == pytest.approx((interval.low, interval.high), abs=0.06 * width)


def test_false_alarms_are_as_rare_as_the_level_says():
    """Of 300 comparisons of two equal systems about one in twenty is below 0.05."""
    chance = np.random.default_rng(3)
    low = 0
    for seed in range(300):
        both = chance.random((2, 40))
        low += randomization_test(both[0], both[1], resamples=199, seed=seed) < 0.05
    assert 3 <= low <= 30


def test_equal_systems_have_p_one_and_one_query_has_no_interval():
    """The edges that would divide by nothing."""
    assert randomization_test([0.5, 0.2], [0.5, 0.2]) == 1.0
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_values_of_other_queries_cannot_be_paired():
    """A paired test of two shapes is a mistake."""
    with pytest.raises(InvalidInputError, match="one value per query"):
        randomization_test([0.1, 0.2], [0.1])


def test_results_are_the_same_each_time():
    """Seeded draws."""
    one, other = measured(50, 2)
    assert randomization_test(one, other) == randomization_test(one, other)
    assert bootstrap_interval(one) == bootstrap_interval(one)


def test_holm_by_hand():
    """0.01, 0.04 and 0.03: the smallest times three, the next times two, then no smaller."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values):
    """Never below the raw value, never above one nor above Bonferroni, order kept."""
    corrected = holm(p_values)
    for raw, value in zip(p_values, corrected, strict=True):
        assert raw <= value <= min(1.0, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.asarray(corrected)[order]) >= 0).all()
