"""Batches by token budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.scoring.batching import token_budget_batches


@given(
    lengths=st.lists(st.integers(min_value=1, max_value=600), max_size=80),
    budget=st.integers(min_value=1, max_value=3000),
)
def test_every_row_comes_once_and_no_batch_breaks_the_budget(
    lengths: list[int], budget: int
) -> None:
    """Rows times longest row stays within it, but for a row that alone is longer."""
    batches = list(token_budget_batches(np.asarray(lengths, dtype=np.int64), budget))
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= budget or len(batch) == 1


def test_the_longest_come_first_and_equals_in_order() -> None:
    """The largest batch first, so that what does not fit fails at once."""
    batches = token_budget_batches(np.asarray([2, 5, 5, 1, 2]), 10)
    assert [batch.tolist() for batch in batches] == [[1, 2], [0, 4, 3]]


def test_no_rows_give_no_batch() -> None:
    """Nothing in, nothing out."""
    assert list(token_budget_batches(np.empty(0, dtype=np.int64), 10)) == []


@pytest.mark.parametrize("budget", [1, 64, 512, 8192])
def test_padding_is_small(budget: int) -> None:
    """Neighbours in length share a batch: at most a tenth is padding on lengths of all sizes."""
    lengths = np.random.default_rng(0).integers(10, 500, size=2000)
    batches = list(token_budget_batches(lengths, budget))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded <= 1.1 * lengths.sum()
