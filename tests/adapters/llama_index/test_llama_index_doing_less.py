"""A cascade, a deadline and a cache, reached through LlamaIndex's postprocessor."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_index.core")

from clocks import Clock, SlowScorer
from helpers_llama_index import QUERY, TEXTS, found, ids

from rerank_plugins import Cascade, Reranker
from rerank_plugins.context import ContextBuilder
from rerank_plugins.llama_index import CrossEncoderPostprocessor
from rerank_plugins.llama_index.context import pack_context
from rerank_plugins.scoring.cache import CachedScorer
from rerank_plugins.testing import OverlapScorer


@pytest.fixture
def cascade() -> Cascade:
    """Two nodes for the big model."""
    return Cascade(Reranker(OverlapScorer("small")), Reranker(OverlapScorer("big")), head=2)


async def test_a_cascade_is_a_reranker_to_the_postprocessor(cascade: Cascade) -> None:
    """Sync and async: the core's order, and which nodes the big model never saw."""
    postprocessor = CrossEncoderPostprocessor(reranker=cascade, metadata_mode="none")
    expected = cascade.rerank(QUERY, TEXTS)
    for nodes in (
        postprocessor.postprocess_nodes(found(), query_str=QUERY),
        await postprocessor.apostprocess_nodes(found(), query_str=QUERY),
    ):
        assert ids(nodes) == [f"id-{key}" for key in expected.keys]
        scales = [node.metadata["relevance_scale"] for node in nodes]
        assert scales == ["probability"] * 2 + ["small_model"] * 3
        scores = [node.score for node in nodes]
        assert scores == sorted(scores, reverse=True)


def test_a_deadline_is_an_option_of_the_postprocessor() -> None:
    """It travels in the dict; what it left out is marked and keeps its order."""
    by_name = CrossEncoderPostprocessor(deadline_ms=250)
    assert by_name._reranker.deadline_ms == 250
    again = CrossEncoderPostprocessor.from_dict(by_name.to_dict())
    assert again._reranker.deadline_ms == 250
    with Clock() as clock:
        reranker = Reranker(SlowScorer(clock, 0.010), deadline_ms=35)
        nodes = CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes(
            found(), query_str=QUERY
        )
    scales = [node.metadata["relevance_scale"] for node in nodes]
    scored = scales.count("probability")
    assert 1 <= scored <= 3
    assert scales == ["probability"] * scored + ["first_stage"] * (5 - scored)
    assert ids(nodes)[scored:] == [f"id-{number}" for number in range(scored, 5)]


def test_a_context_holds_what_was_not_scored_to_no_minimum(cascade: Cascade) -> None:
    """Only the head can be too bad for it."""
    nodes = CrossEncoderPostprocessor(reranker=cascade).postprocess_nodes(found(), query_str=QUERY)
    context = pack_context(nodes, builder=ContextBuilder(min_score=1.0))
    assert [omitted.reason for omitted in context.omitted] == ["score"] * 2
    assert len(context.passages) == 3


def test_a_cache_is_an_option_of_the_postprocessor(tmp_path) -> None:
    """A number or a file's path, both of which the dict can hold."""
    for cache in (1000, str(tmp_path / "scores.sqlite")):
        postprocessor = CrossEncoderPostprocessor(cache=cache)
        assert isinstance(postprocessor._reranker.scorer, CachedScorer)
        again = CrossEncoderPostprocessor.from_dict(postprocessor.to_dict())
        assert again == postprocessor
