"""What traces show of reranking, seen by LangChain's own tracer."""

from __future__ import annotations

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from rerank_plugins.langchain import (
    BM25Retriever,
    CrossEncoderCompressor,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

classic = pytest.importorskip("langchain_classic.retrievers")


@pytest.fixture
def tracer():
    """Collects finished runs with their children."""
    return RunCollectorCallbackHandler()


def _child(run, name):
    (found,) = [child for child in run.child_runs if child.name == name]
    return found


def _assert_describes_reranking(run, documents, kept, query):
    assert run.run_type == "chain"
    assert run.error is None
    assert run.inputs["query"] == query
    assert [one.id for one in run.inputs["documents"]] == [one.id for one in documents]
    assert run.extra["metadata"]["rerank_model"] == "overlap"
    assert run.extra["metadata"]["rerank_candidates"] == len(documents)
    assert run.outputs["output"] == kept
    assert run.end_time is not None


class TestCompressor:
    def test_reranking_is_a_run_with_name_model_and_candidate_count(
        self, tracer, reranker, documents, query
    ):
        """A compressor called by hand reports to the callbacks it is given."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        kept = compressor.compress_documents(documents, query, callbacks=[tracer])
        (run,) = tracer.traced_runs
        assert run.name == "rerank"
        _assert_describes_reranking(run, documents, kept, query)

    async def test_so_it_is_in_the_event_loop(self, tracer, reranker, documents, query):
        """One run, not two, and the same to see."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        kept = await compressor.acompress_documents(documents, query, callbacks=[tracer])
        (run,) = tracer.traced_runs
        assert run.name == "rerank"
        _assert_describes_reranking(run, documents, kept, query)

    def test_inside_a_runnable_the_run_finds_its_parent_by_itself(
        self, tracer, reranker, documents, query
    ):
        """Callbacks that nobody passes on are found in the context."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        step = RunnableLambda(lambda given: compressor.compress_documents(documents, given))
        step.invoke(query, {"callbacks": [tracer], "run_name": "mine"})
        (run,) = tracer.traced_runs
        assert run.name == "mine"
        assert _child(run, "rerank").parent_run_id == run.id

    async def test_errors_are_traced(self, tracer, documents, query):
        """A failing model ends the run with its error, sync and async."""
        failing = CrossEncoderCompressor(
            reranker=Reranker(OverlapScorer(error=RuntimeError("out of memory")))
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            failing.compress_documents(documents, query, callbacks=[tracer])
        with pytest.raises(RuntimeError, match="out of memory"):
            await failing.acompress_documents(documents, query, callbacks=[tracer])
        assert len(tracer.traced_runs) == 2
        for run in tracer.traced_runs:
            assert "out of memory" in run.error
            assert run.end_time is not None


class TestInsideRetrievers:
    def _assert_tree(self, run, stages, documents, k):
        assert run.run_type == "retriever"
        assert [child.name for child in run.child_runs] == [*stages, "rerank"]
        rerank = run.child_runs[-1]
        assert rerank.parent_run_id == run.id
        assert rerank.extra["metadata"]["rerank_candidates"] == documents
        assert len(rerank.outputs["output"]) == len(run.outputs["documents"]) == k

    def test_classic_contextual_compression_shows_the_step(
        self, tracer, reranker, documents, query
    ):
        """Retriever above, first stage and reranking below."""
        retriever = classic.ContextualCompressionRetriever(
            base_compressor=CrossEncoderCompressor(reranker=reranker, top_n=2),
            base_retriever=BM25Retriever.from_documents(documents, k=3),
        )
        retriever.invoke(query, {"callbacks": [tracer]})
        self._assert_tree(tracer.traced_runs[0], ["BM25Retriever"], 3, 2)

    async def test_a_classic_pipeline_passes_its_callbacks_on(
        self, tracer, reranker, documents, query
    ):
        """It looks for a parameter of that name; sync and async."""
        compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
        pipeline = compressors.DocumentCompressorPipeline(
            transformers=[CrossEncoderCompressor(reranker=reranker)]
        )
        pipeline.compress_documents(documents, query, callbacks=[tracer])
        await pipeline.acompress_documents(documents, query, callbacks=[tracer])
        assert [run.name for run in tracer.traced_runs] == ["rerank", "rerank"]

    async def test_classic_contextual_compression_shows_the_async_step(
        self, tracer, reranker, documents, query
    ):
        """The same in the event loop."""
        retriever = classic.ContextualCompressionRetriever(
            base_compressor=CrossEncoderCompressor(reranker=reranker, top_n=2),
            base_retriever=BM25Retriever.from_documents(documents, k=3),
        )
        await retriever.ainvoke(query, {"callbacks": [tracer]})
        self._assert_tree(tracer.traced_runs[0], ["BM25Retriever"], 3, 2)

    def test_a_reranking_retriever_shows_both_stages(self, tracer, reranker, documents, query):
        """In the order in which they run, with the number that this call kept."""
        retriever = RerankingRetriever(
            first_stage=BM25Retriever.from_documents(documents), reranker=reranker, k=2
        )
        retriever.invoke(query, {"callbacks": [tracer]}, k=1)
        run = tracer.traced_runs[0]
        self._assert_tree(run, ["BM25Retriever"], 3, 1)
        assert run.child_runs[-1].inputs["top_n"] == 1

    async def test_an_async_reranking_retriever_shows_both_stages(
        self, tracer, reranker, documents, query
    ):
        """The same in the event loop."""
        retriever = RerankingRetriever(
            first_stage=BM25Retriever.from_documents(documents), reranker=reranker, k=2
        )
        await retriever.ainvoke(query, {"callbacks": [tracer]})
        self._assert_tree(tracer.traced_runs[0], ["BM25Retriever"], 3, 2)

    async def test_a_hybrid_retriever_shows_every_stage(self, tracer, documents, query):
        """Each inner retriever is a child run, sync and async."""
        retriever = HybridRetriever(
            retrievers=[
                BM25Retriever.from_documents(documents, name="one"),
                BM25Retriever.from_documents(documents, name="two"),
            ]
        )
        retriever.invoke(query, {"callbacks": [tracer]})
        await retriever.ainvoke(query, {"callbacks": [tracer]})
        for run in tracer.traced_runs:
            assert sorted(child.name for child in run.child_runs) == ["one", "two"]

    def test_tags_and_metadata_of_the_caller_reach_the_step(
        self, tracer, reranker, documents, query
    ):
        """What a caller marks a call with is found on the reranking too."""
        retriever = RerankingRetriever(
            first_stage=BM25Retriever.from_documents(documents), reranker=reranker
        )
        retriever.invoke(
            query, {"callbacks": [tracer], "metadata": {"user": "u1"}, "tags": ["night"]}
        )
        rerank = _child(tracer.traced_runs[0], "rerank")
        assert rerank.extra["metadata"]["user"] == "u1"
        assert "night" in rerank.tags
