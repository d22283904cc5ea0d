"""A cascade, a deadline and a cache, reached through LangChain's compressor and retriever."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core")

from clocks import Clock, SlowScorer

from rerank_plugins import Cascade, Reranker
from rerank_plugins.context import ContextBuilder
from rerank_plugins.langchain import BM25Retriever, CrossEncoderCompressor, RerankingRetriever
from rerank_plugins.langchain.context import pack_context
from rerank_plugins.scoring.cache import CachedScorer
from rerank_plugins.testing import OverlapScorer


@pytest.fixture
def cascade() -> Cascade:
    """Two documents for the big model."""
    return Cascade(Reranker(OverlapScorer("small")), Reranker(OverlapScorer("big")), head=2)


async def test_a_cascade_is_a_reranker_to_the_compressor(cascade, documents, query) -> None:
    """Sync and async: the core's order, and which documents the big model never saw."""
    compressor = CrossEncoderCompressor(reranker=cascade)
    expected = cascade.rerank(query, [document.page_content for document in documents])
    for found in (
        compressor.compress_documents(documents, query),
        await compressor.acompress_documents(documents, query),
    ):
        assert [document.page_content for document in found] == expected.texts
        assert [document.metadata["relevance_scale"] for document in found] == [
            "probability"
        ] * 2 + ["small_model"] * 4
        scores = [document.metadata["relevance_score"] for document in found]
        assert scores == sorted(scores, reverse=True)
        assert {document.metadata["rerank_model"] for document in found} == {"big"}


async def test_a_cascade_works_in_a_retriever(cascade, documents, query) -> None:
    """First stage, small model, big model: one retriever."""
    retriever = RerankingRetriever(
        first_stage=BM25Retriever.from_documents(documents), k=3, reranker=cascade
    )
    found = retriever.invoke(query)
    assert found[0].id == "id-3"
    assert [one.id for one in await retriever.ainvoke(query)] == [one.id for one in found]


def test_a_deadline_is_an_option_of_the_compressor(documents, query) -> None:
    """By a model's name; or with a reranker that has one, and what it left out is marked."""
    assert CrossEncoderCompressor(deadline_ms=250).reranker.deadline_ms == 250
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=35)
        compressor = CrossEncoderCompressor(reranker=reranker)
        found = compressor.compress_documents(documents, query)
    assert len(found) == len(documents)
    scales = [document.metadata["relevance_scale"] for document in found]
    scored = scales.count("probability")
    assert 1 <= scored <= 3
    assert scales == ["probability"] * scored + ["first_stage"] * (6 - scored)
    assert [document.id for document in found[scored:]] == [
        f"id-{number}" for number in range(scored, 6)
    ]


def test_a_context_holds_what_was_not_scored_to_no_minimum(cascade, documents, query) -> None:
    """Only the head can be too bad for it."""
    found = CrossEncoderCompressor(reranker=cascade).compress_documents(documents, query)
    context = pack_context(found, builder=ContextBuilder(min_score=1.0))
    assert [omitted.reason for omitted in context.omitted] == ["score"] * 2
    assert len(context.passages) == 4


def test_a_cache_is_an_option_of_the_compressor(tmp_path) -> None:
    """In memory or in a file."""
    for cache in (1000, tmp_path / "scores.sqlite"):
        compressor = CrossEncoderCompressor(cache=cache)
        assert isinstance(compressor.reranker.scorer, CachedScorer)
