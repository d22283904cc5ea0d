"""Documents, a reranker that needs no model, and one that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document

from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

TEXTS = (
    "A bridge crosses the river at the north gate.",
    "The museum does not open on Mondays.",
    "The museum opens at nine in the morning.",
    "When the museum does open, the bell rings.",
    "Bread keeps longer in a cotton cloth.",
    "The last tram leaves at midnight.",
)


@pytest.fixture
def query() -> str:
    """A question that the fourth document answers best."""
    return "When does the museum open?"


@pytest.fixture
def make_documents() -> Callable[[], list[Document]]:
    """Gives fresh documents at each call."""
    return lambda: [
        Document(id=f"id-{number}", page_content=text, metadata={"number": number})
        for number, text in enumerate(TEXTS)
    ]


@pytest.fixture
def documents(make_documents) -> list[Document]:
    """Six documents on museums and other things."""
    return make_documents()


@pytest.fixture
def reranker() -> Reranker:
    """Scores by the share of the query's words."""
    return Reranker(OverlapScorer())


@pytest.fixture
def failing() -> Reranker:
    """Keeps the first-stage order, because its scorer fails."""
    return Reranker(OverlapScorer(error=RuntimeError("out of memory")), on_error="first_stage")
