"""The only sort and the only cut."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_plugins._validation import check_count, check_finite
from rerank_plugins.errors import InvalidInputError, NonFiniteScoreError
from rerank_plugins.ordering import descending


def test_best_first_and_ties_in_order() -> None:
    """Equal scores keep the order they came in."""
    assert descending([0.1, 0.9, 0.5, 0.9, 0.1]).tolist() == [1, 3, 2, 0, 4]


def test_a_cut_through_a_tie_keeps_the_first_of_it() -> None:
    """Of equal scores at the edge, those that came first stay."""
    assert descending([1.0, 2.0, 1.0, 1.0], k=2).tolist() == [1, 0]
    assert descending([1.0, 1.0, 1.0, 2.0], k=3).tolist() == [3, 0, 1]


@pytest.mark.parametrize(("k", "length"), [(None, 3), (0, 0), (1, 1), (3, 3), (99, 3)])
def test_k_bounds_the_length(k: int | None, length: int) -> None:
    """None means all, 0 means nothing, more than available means all."""
    assert len(descending([3.0, 1.0, 2.0], k=k)) == length


def test_nothing_to_sort_is_fine() -> None:
    """No scores, no positions."""
    assert descending([]).tolist() == []
    assert descending([], k=3).tolist() == []


def test_minus_zero_ties_with_zero() -> None:
    """Signed zeros are equal, so order decides."""
    assert descending([-0.0, 0.0, -0.0]).tolist() == [0, 1, 2]


def test_the_largest_and_smallest_floats_sort() -> None:
    """No overflow turns the order round."""
    top = np.finfo(np.float64).max
    assert descending([-top, top, 0.0, 5e-324]).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_an_error_with_its_place(bad: float) -> None:
    """One NaN would make any order meaningless."""
    with pytest.raises(NonFiniteScoreError, match=r"number 1 is .*\(1 of 3"):
        descending([0.0, bad, 1.0])
    with pytest.raises(NonFiniteScoreError):
        descending([0.0, bad, 1.0], k=0)


def test_scores_come_back_as_float64() -> None:
    """Half-precision scores are widened before anything compares them."""
    assert check_finite(np.asarray([1, 2], dtype=np.float16)).dtype == np.float64


@pytest.mark.parametrize("value", [0, 5, np.int64(3), np.uint8(3)])
def test_whole_numbers_are_counts(value: object) -> None:
    """Python's and numpy's integers; what comes back is Python's."""
    counted = check_count("k", value)
    assert type(counted) is int
    assert counted == value


@pytest.mark.parametrize("value", [-1, 1.0, True, False, "3", None, np.bool_(1), np.float64(2)])
def test_everything_else_is_no_count(value: object) -> None:
    """The message gives the option's name, the rule and the value."""
    with pytest.raises(
        InvalidInputError, match=r"k must be a whole number of at least 0"
    ) as raised:
        check_count("k", value)
    assert repr(value) in str(raised.value)


def test_the_least_count_is_part_of_the_rule() -> None:
    """Where none makes no sense, 0 is refused."""
    with pytest.raises(InvalidInputError, match="at least 1, but got 0"):
        check_count("k", 0, minimum=1)
