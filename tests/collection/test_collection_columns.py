"""A metadata field as numpy sees it: which values are numbers, and which are exact as floats."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from rerank_plugins.collection.columns import Column

EXACT = 2**53


@pytest.mark.parametrize("largest", [3, 2.5, EXACT, -EXACT, True])
def test_numbers_that_floats_hold_are_compared_at_once(largest: float) -> None:
    """None and missing values are NaN, which no comparison finds."""
    column = Column("n", [{"n": largest}, {"n": None}, {}, None, {"n": 0}])
    assert column.numbers is not None
    np.testing.assert_array_equal(column.numbers, [np.nan, largest, np.nan, 0])
    found = column.compared(operator.eq, largest)
    assert found is not None
    assert found.tolist() == [True, False, False, False, False]


def test_a_wanted_number_that_floats_hold_is_compared_at_once() -> None:
    """Up to 2^53, itself included."""
    column = Column("n", [{"n": 1}, {"n": 2}])
    for wanted in (EXACT, -EXACT):
        found = column.compared(operator.lt, wanted)
        assert found is not None
        assert found.tolist() == [wanted > 0] * 2
    assert column.compared(operator.lt, EXACT + 1) is None


@pytest.mark.parametrize("other", [EXACT + 1, -EXACT - 1, "3", [1]])
def test_other_values_are_compared_one_by_one(other: object) -> None:
    """Beside any number."""
    column = Column("n", [{"n": 1}, {"n": other}])
    assert column.numbers is None
    assert column.compared(operator.lt, 5) is None
