"""First-stage scores in metadata: written for one list, believed for that list alone."""

from __future__ import annotations

import pytest

from rerank_plugins._stamps import believed, finite, stamps

FOUND = [("a", 3.0), ("b", 2.0), ("c", None)]


def test_stamps_are_believed_for_their_own_query() -> None:
    """White space around the query does not make it another."""
    written = stamps(FOUND, "opening hours", "bm25")
    assert believed(written, " opening hours\n") == [(3.0, 1), (2.0, 2), (None, 3)]
    assert {one["retrieval_method"] for one in written} == {"bm25"}


def test_part_of_a_list_in_another_order_keeps_its_scores_and_ranks() -> None:
    """Filters and routers between the stages drop and move documents."""
    written = stamps(FOUND, "hours", "bm25")
    assert believed([written[1], written[0]], "hours") == [(2.0, 2), (3.0, 1)]


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        (stamps(FOUND, "another", "bm25"), "another query"),
        (stamps(FOUND[:2], "q", "bm25") + stamps(FOUND[2:], "q", "bm25"), "two lists"),
        (stamps(FOUND[:2], "q", "bm25") + stamps(FOUND[:2], "q", "faiss"), "two methods"),
        ([*stamps(FOUND, "q", "bm25"), {}], "a document of no list"),
        ([{"retrieval_score": 1.0}, {"retrieval_score": 2.0}], "scores that rise"),
        ([{"retrieval_rank": 1}, {"retrieval_rank": 1}], "one rank twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stamps_of_anything_else_are_not_believed(
    documents: list[dict[str, object]], reason: str
) -> None:
    """Then the position is the rank, and there is no score."""
    assert reason
    assert believed(documents, "q") == [(None, rank) for rank in range(1, len(documents) + 1)]


def test_scores_of_others_that_fall_are_believed_without_a_mark() -> None:
    """Other integrations write ``retrieval_score`` too."""
    documents = [{"retrieval_score": 2}, {"retrieval_score": 0.5}, {}]
    assert believed(documents, "q") == [(2.0, 1), (0.5, 2), (None, 3)]


@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), 10**400, [1]])
def test_what_is_not_a_finite_number_is_no_score(value: object) -> None:
    """Metadata may hold anything."""
    assert finite(value) is None
