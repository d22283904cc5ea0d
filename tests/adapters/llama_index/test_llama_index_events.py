"""What LlamaIndex's instrumentation and its older callbacks see of a rerank."""

from __future__ import annotations

import asyncio

import pytest
from helpers_llama_index import QUERY, TEXTS, found, ids
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
)

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError, ScoringError
from rerank_plugins.llama_index import BM25Retriever, CrossEncoderPostprocessor, RerankingRetriever
from rerank_plugins.testing import OverlapScorer

START, END = "ReRankStartEvent", "ReRankEndEvent"


def run(way: str, postprocessor: CrossEncoderPostprocessor, nodes, query=QUERY):
    """Reranks by the synchronous or the asynchronous way."""
    if way == "sync":
        return postprocessor.postprocess_nodes(nodes, query_str=query)
    return asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=query))


@pytest.fixture(params=["sync", "async"])
def way(request):
    """Both ways must report alike."""
    return request.param


def test_a_rerank_starts_and_ends_once(way, reranker, recorded):
    """The start event has what came in, as it came in; the end event what went out."""
    nodes = found()
    reranked = run(way, CrossEncoderPostprocessor(reranker=reranker, top_n=2), nodes)
    assert recorded.names(START, END) == [START, END]
    start, end = (event for event in recorded.events if event.class_name() in (START, END))
    assert (start.query, start.top_n, start.model_name) == (QUERY, 2, "overlap")
    assert [n.score for n in start.nodes] == [1.0, 0.9, 0.8, 0.7, 0.6]
    assert all("relevance_score" not in n.metadata for n in start.nodes)
    assert [(n.node_id, n.score) for n in end.nodes] == [(n.node_id, n.score) for n in reranked]


def test_without_a_top_n_the_start_event_counts_the_nodes(way, recorded):
    """The event's top_n is a number always: the reranker's, or that of all nodes."""
    run(way, CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer())), found())
    run(way, CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer(), top_n=4)), found())
    starts = [event for event in recorded.events if event.class_name() == START]
    assert [event.top_n for event in starts] == [len(TEXTS), 4]


def test_no_nodes_are_a_rerank_too(way, reranker, recorded):
    """An empty list gives an empty list, and a pair of events."""
    assert run(way, CrossEncoderPostprocessor(reranker=reranker), []) == []
    assert recorded.names(START, END) == [START, END]


@pytest.mark.parametrize("cause", ["model", "query"])
def test_what_started_ends_also_when_it_fails(way, cause, recorded):
    """A failing model, and a blank query leave no start without an end."""
    error = ScoringError("down") if cause == "model" else None
    nodes = found()
    failing = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer(error=error)))
    with pytest.raises((ScoringError, InvalidInputError)):
        run(way, failing, nodes, " " if cause == "query" else QUERY)
    assert recorded.names(START, END) == [START, END]
    assert recorded.events[-1].class_name() == "SpanDropEvent"
    end = next(event for event in recorded.events if event.class_name() == END)
    assert end.nodes == []


def test_what_never_started_does_not_end(reranker, recorded):
    """Without a query, or with nodes of a wrong kind, there are no events at all."""
    postprocessor = CrossEncoderPostprocessor(reranker=reranker)
    with pytest.raises(InvalidInputError):
        postprocessor.postprocess_nodes(found())
    with pytest.raises(InvalidInputError):
        postprocessor.postprocess_nodes(["text"], query_str=QUERY)
    assert recorded.names(START, END) == []


def test_both_ways_have_a_span(way, reranker, recorded):
    """The events of a rerank lie inside its span."""
    run(way, CrossEncoderPostprocessor(reranker=reranker), found())
    name = "_postprocess_nodes" if way == "sync" else "_apostprocess_nodes"
    assert f"CrossEncoderPostprocessor.{name}" in recorded.spans
    spans = {e.span_id for e in recorded.events if e.class_name() in (START, END)}
    assert len(spans) == 1
    assert spans.pop().startswith(f"CrossEncoderPostprocessor.{name}")


def test_a_failing_rerank_drops_its_span(way, recorded):
    """Traces show the failure where it happened."""
    failing = Reranker(OverlapScorer(error=ScoringError("down")))
    with pytest.raises(ScoringError):
        run(way, CrossEncoderPostprocessor(reranker=failing), found())
    assert any("postprocess_nodes" in name for name in recorded.dropped)


async def test_a_cancelled_rerank_ends(recorded):
    """Cancellation, too, is a way to end."""
    scoring, finish = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Waiting(OverlapScorer):
        def score(self, pairs, options):
            loop.call_soon_threadsafe(scoring.set)
            asyncio.run_coroutine_threadsafe(finish.wait(), loop).result(timeout=30)
            return super().score(pairs, options)

    postprocessor = CrossEncoderPostprocessor(reranker=Reranker(Waiting()))
    task = asyncio.create_task(postprocessor.apostprocess_nodes(found(), query_str=QUERY))
    await scoring.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    finish.set()
    assert recorded.names(START, END) == [START, END]


def test_older_callbacks_see_a_rerank(way, reranker):
    """CBEventType.RERANKING starts with nodes, model, query and top_k, and ends with nodes."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = CrossEncoderPostprocessor(
        reranker=reranker, top_n=2, callback_manager=CallbackManager([handler])
    )
    nodes = found()
    reranked = run(way, postprocessor, nodes)
    ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert start.payload == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "overlap",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert ids(end.payload[EventPayload.NODES]) == ids(reranked)


def test_older_callbacks_see_a_failure(way):
    """The end event of a rerank that failed has the exception."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    error = ScoringError("down")
    postprocessor = CrossEncoderPostprocessor(
        reranker=Reranker(OverlapScorer(error=error)), callback_manager=CallbackManager([handler])
    )
    with pytest.raises(ScoringError):
        run(way, postprocessor, found())
    ((_, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert end.payload == {EventPayload.EXCEPTION: error}


def test_a_reranking_retriever_shows_its_stages(way, reranker, recorded):
    """Two retrievals nest, the rerank is inside the outer one, and callbacks go to its manager."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    retriever = RerankingRetriever(
        BM25Retriever([n.node for n in found()]),
        reranker=reranker,
        callback_manager=CallbackManager([handler]),
    )
    if way == "sync":
        retriever.retrieve(QUERY)
    else:
        asyncio.run(retriever.aretrieve(QUERY))
    names = recorded.names("RetrievalStartEvent", "RetrievalEndEvent", START, END)
    assert names == [
        "RetrievalStartEvent",
        "RetrievalStartEvent",
        "RetrievalEndEvent",
        START,
        END,
        "RetrievalEndEvent",
    ]
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1
