"""format_context and pack_context."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.documents import Document

from rerank_plugins.context import ContextBuilder
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import CrossEncoderCompressor, format_context, pack_context


def _by_words(text):
    return len(text.split())


@pytest.fixture
def cited():
    """Three documents with different things to cite."""
    return [
        Document(page_content="يفتح المتحف في التاسعة.", metadata={"source": "museum.md"}),
        Document(page_content="It closes at six.", metadata={"title": "Hours", "page": 7}),
        Document(page_content="Closed on Mondays.", metadata={"source": Path("a/b.txt")}),
    ]


def test_labels_and_sources_stand_before_the_text(cited):
    """The metadata field ``source`` by default; other values are shown as text."""
    assert format_context(count_tokens=_by_words).invoke(cited) == (
        "[1] museum.md\nيفتح المتحف في التاسعة.\n\n"
        "[2]\nIt closes at six.\n\n"
        f"[3] {Path('a/b.txt')}\nClosed on Mondays."
    )


def test_the_source_is_any_field_or_function(cited):
    """One field by name, or whatever can be made of the document."""
    by_field = format_context(source="title", count_tokens=_by_words).invoke(cited)
    assert by_field.startswith("[1]\nيفتح")
    assert "[2] Hours\n" in by_field
    by_function = format_context(
        source=lambda one: f"p. {one.metadata['page']}" if "page" in one.metadata else None,
        count_tokens=_by_words,
    ).invoke(cited)
    assert "[2] p. 7\n" in by_function


def test_what_does_not_fit_the_budget_is_left_out_and_accounted_for(cited):
    """The text is the runnable's, the account is pack_context's."""
    builder = ContextBuilder(max_tokens=11, count_tokens=_by_words)
    packed = pack_context(cited, builder=builder)
    assert [(left.position, left.reason) for left in packed.omitted] == [(2, "budget")]
    assert packed.tokens <= 11
    assert format_context(builder=builder).invoke(cited) == packed.text


def test_a_minimum_score_is_held_against_the_relevance_score(documents, reranker, failing, query):
    """But not against 1 / rank, which stands for an order that was kept."""
    judged = CrossEncoderCompressor(reranker=reranker).compress_documents(documents, query)
    builder = ContextBuilder(min_score=0.5, count_tokens=_by_words)
    kept = pack_context(judged, builder=builder)
    assert [packed.position for packed in kept.passages] == [
        position
        for position, document in enumerate(judged)
        if document.metadata["relevance_score"] >= 0.5
    ]
    assert 0 < len(kept.passages) < len(documents)
    unjudged = CrossEncoderCompressor(reranker=failing).compress_documents(documents, query)
    assert len(pack_context(unjudged, builder=builder).passages) == len(documents)


async def test_async_and_batch_give_the_same(cited):
    """As any runnable."""
    step = format_context(count_tokens=_by_words)
    assert await step.ainvoke(cited) == step.invoke(cited)
    assert step.batch([cited, []]) == [step.invoke(cited), ""]
    assert step.get_name() == "format_context"


def test_wrong_use_is_an_error(cited):
    """At once where it can be."""
    with pytest.raises(InvalidInputError, match="max_tokens"):
        format_context(max_tokens=-1)
    with pytest.raises(InvalidInputError, match="give them to the builder"):
        format_context(builder=ContextBuilder(), max_tokens=10)
    with pytest.raises(InvalidInputError, match="number 1 is str"):
        format_context(count_tokens=_by_words).invoke([cited[0], "text"])
