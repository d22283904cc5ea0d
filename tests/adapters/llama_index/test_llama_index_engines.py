"""Inside LlamaIndex's own engines: query, chat, citations, tools, other postprocessors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers_llama_index import QUERY, TEXTS, found, ids
from llama_index.core import Settings, SummaryIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from pydantic import PrivateAttr

from rerank_plugins import Reranker
from rerank_plugins.llama_index import (
    BM25Retriever,
    CrossEncoderPostprocessor,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.testing import OverlapScorer

STAMPS = ("relevance_sc", "retrieval_", "rerank_")


class Listening(MockLLM):
    """Answers with the prompt, as MockLLM does, and remembers every prompt."""

    _prompts: list[str] = PrivateAttr(default_factory=list)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Remembers the prompt."""
        self._prompts.append(prompt)
        return super().complete(prompt, formatted=formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Remembers the prompt."""
        self._prompts.append(prompt)
        return super().complete(prompt, formatted=formatted, **kwargs)


@pytest.fixture
def llm(monkeypatch) -> Listening:
    """The LLM of this test, and of everything that asks for the default one."""
    listening = Listening()
    monkeypatch.setattr(Settings, "_llm", listening)
    return listening


@pytest.fixture(params=["sync", "async"])
def way(request) -> str:
    """Every engine is run both ways."""
    return request.param


def nodes() -> list[TextNode]:
    """Nodes with a title that the LLM may read; BM25 finds four of them, out of order."""
    texts = [*TEXTS, "A museum shop, a museum garden, a museum bar.", "Open letters: open doors."]
    return [one.node for one in found(texts, title="Guide")]


def first_stage() -> BM25Retriever:
    """What finds the candidates."""
    return BM25Retriever(nodes(), similarity_top_k=5, language="en")


def postprocessor(top_n: int | None = 2) -> CrossEncoderPostprocessor:
    """What reranks them."""
    return CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()), top_n=top_n)


def best(query: str = QUERY, n: int = 2) -> list[str]:
    """What should be left: the fake's own order of what BM25 finds."""
    scorer = OverlapScorer()
    before = first_stage().retrieve(query)
    texts = {node.node_id: node.get_content(MetadataMode.EMBED) for node in before}
    return sorted(texts, key=lambda id_: -scorer._logit(query, texts[id_]))[:n]


def check_sources(sources, expected: list[str]) -> None:
    """Scores and metadata came through, best first."""
    assert ids(sources) == expected
    for rank, node in enumerate(sources, start=1):
        assert node.metadata["relevance_score"] == node.score
        assert node.metadata["rerank_rank"] == rank
        assert node.metadata["retrieval_rank"] >= 1


def check_prompts(llm: Listening) -> None:
    """The LLM read the passages and their titles, and not a word of ours."""
    assert any("The museum opens at nine" in prompt for prompt in llm._prompts)
    for prompt in llm._prompts:
        assert not any(stamp in prompt for stamp in STAMPS)


def query(engine, way: str, text: str = QUERY):
    """The engine's response, by the one way or the other."""
    return engine.query(text) if way == "sync" else asyncio.run(engine.aquery(text))


def test_inside_a_retriever_query_engine(way, llm):
    """Sources are the best two with their scores; the prompt has text and title only."""
    engine = RetrieverQueryEngine.from_args(
        first_stage(), llm=llm, node_postprocessors=[postprocessor()]
    )
    check_sources(query(engine, way).source_nodes, best())
    check_prompts(llm)
    assert any("title: Guide" in prompt for prompt in llm._prompts)


def test_a_query_engine_sets_the_callback_manager(way, llm):
    """RetrieverQueryEngine overwrites it, and its handlers then see the rerank."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    engine = RetrieverQueryEngine(
        first_stage(),
        node_postprocessors=[postprocessor()],
        callback_manager=CallbackManager([handler]),
    )
    query(engine, way)
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1


def test_a_reranking_retriever_inside_a_query_engine(way, llm):
    """The same sources without a postprocessor."""
    retriever = RerankingRetriever(first_stage(), reranker=Reranker(OverlapScorer()))
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    check_sources(query(engine, way).source_nodes, best())
    check_prompts(llm)


def test_from_an_index(way, llm):
    """as_query_engine(node_postprocessors=...) is how most people will use it."""
    index = SummaryIndex(nodes())
    engine = index.as_query_engine(llm=llm, node_postprocessors=[postprocessor()])
    sources = query(engine, way).source_nodes
    assert ids(sources)[0] == best()[0]
    assert all("retrieval_score" not in node.metadata for node in sources)  # it gave none
    check_prompts(llm)


def test_inside_a_condense_plus_context_chat_engine(way, llm):
    """Two turns of a conversation, each with its sources."""
    engine = CondensePlusContextChatEngine.from_defaults(
        first_stage(),
        llm=llm,
        node_postprocessors=[postprocessor()],
        memory=ChatMemoryBuffer.from_defaults(token_limit=3000),
    )
    for _ in range(2):
        response = engine.chat(QUERY) if way == "sync" else asyncio.run(engine.achat(QUERY))
        assert len(response.source_nodes) == 2
        for node in response.source_nodes:
            assert node.metadata["relevance_score"] == node.score
    assert ids(response.source_nodes)
    check_prompts(llm)


def test_inside_a_citation_query_engine(way, llm):
    """Each source chunk inherits score and metadata, and the prompt numbers clean text."""
    engine = CitationQueryEngine.from_args(
        SummaryIndex([]),
        retriever=first_stage(),
        llm=llm,
        node_postprocessors=[postprocessor()],
        metadata_mode=MetadataMode.LLM,
    )
    sources = query(engine, way).source_nodes
    texts = {node.node_id: node.text for node in first_stage().retrieve(QUERY)}
    assert [texts[id_] in node.text for id_, node in zip(best(), sources, strict=True)] == [
        True
    ] * 2
    for node in sources:
        assert node.text.startswith("Source ")
        assert node.metadata["relevance_score"] == node.score
    check_prompts(llm)


def test_inside_a_retriever_tool(way):
    """The model sees the question, not "input is ..."; the output has no metadata of ours."""
    seen = []

    class Hearing(OverlapScorer):
        def score(self, pairs, options):
            seen.extend(question for question, _ in pairs)
            return super().score(pairs, options)

    tool = RetrieverTool.from_defaults(
        first_stage(),
        node_postprocessors=[CrossEncoderPostprocessor(reranker=Reranker(Hearing()), top_n=2)],
        description="museum",
    )
    output = tool.call(input=QUERY) if way == "sync" else asyncio.run(tool.acall(input=QUERY))
    check_sources(output.raw_output, best())
    assert set(seen) == {QUERY}
    assert "The museum opens at nine" in output.content
    assert not any(stamp in output.content for stamp in STAMPS)


def test_inside_a_query_engine_tool(way, llm):
    """The tool's raw output is the response, sources and all."""
    engine = RetrieverQueryEngine.from_args(
        first_stage(), llm=llm, node_postprocessors=[postprocessor()]
    )
    tool = QueryEngineTool.from_defaults(engine, name="museum", description="museum")
    output = tool.call(input=QUERY) if way == "sync" else asyncio.run(tool.acall(input=QUERY))
    check_sources(output.raw_output.source_nodes, best())


def test_before_other_postprocessors(way, llm):
    """SimilarityPostprocessor and LongContextReorder read the scores that we gave."""
    engine = RetrieverQueryEngine.from_args(
        first_stage(),
        llm=llm,
        node_postprocessors=[
            postprocessor(None),
            SimilarityPostprocessor(similarity_cutoff=0.1),
            LongContextReorder(),
        ],
    )
    before = first_stage().retrieve(QUERY)
    everything = postprocessor(None).postprocess_nodes(before, query_str=QUERY)
    above = [node.node_id for node in everything if node.score >= 0.1]
    assert 1 < len(above) < len(everything)
    sources = query(engine, way).source_nodes
    assert set(ids(sources)) == set(above)
    # The best two stand at the two ends.
    assert {sources[0].node_id, sources[-1].node_id} == set(above[:2])


def test_two_rerankers_in_a_row(way, llm):
    """The second sees the first's score as the first stage's, and nothing else of it."""
    engine = RetrieverQueryEngine.from_args(
        first_stage(), llm=llm, node_postprocessors=[postprocessor(3), postprocessor(2)]
    )
    sources = query(engine, way).source_nodes
    check_sources(sources, best())
    assert [n.metadata["retrieval_score"] for n in sources] == [n.score for n in sources]
    check_prompts(llm)


@pytest.mark.parametrize("mode", ["simple", "reciprocal_rerank", "relative_score"])
def test_under_a_query_fusion_retriever(mode, way, llm):
    """It finds duplicates by hash: our first stages do not change it, so each node comes once."""
    fusion = QueryFusionRetriever(
        [first_stage(), HybridRetriever([first_stage()], similarity_top_k=5)],
        llm=MockLLM(max_tokens=4),
        mode=mode,
        num_queries=3,
        similarity_top_k=10,
        use_async=False,
    )
    retriever = RerankingRetriever(fusion, reranker=Reranker(OverlapScorer()))
    got = retriever.retrieve(QUERY) if way == "sync" else asyncio.run(retriever.aretrieve(QUERY))
    check_sources(got, best())
    once = fusion.retrieve(QUERY)
    assert len({node.node_id for node in once}) == len(once)


def test_reranked_lists_under_a_query_fusion_retriever(way, llm):
    """Without details a reranked node keeps its hash, so that the fusion adds up its scores."""
    reranking = RerankingRetriever(first_stage(), reranker=Reranker(OverlapScorer()), details=())
    fusion = QueryFusionRetriever(
        [first_stage(), reranking],
        llm=llm,
        mode="reciprocal_rerank",
        num_queries=1,
        similarity_top_k=10,
        use_async=False,
    )
    got = fusion.retrieve(QUERY) if way == "sync" else asyncio.run(fusion.aretrieve(QUERY))
    ranks = [ids(first_stage().retrieve(QUERY)), ids(reranking.retrieve(QUERY))]
    want = {
        id_: sum(1 / (60 + some.index(id_)) for some in ranks if id_ in some)
        for id_ in {*ranks[0], *ranks[1]}
    }
    assert {node.node_id: node.score for node in got} == pytest.approx(want)


def test_no_default_model_of_llama_index_is_asked(llm):
    """Retrieving and reranking need neither Settings.llm nor Settings.embed_model."""
    HybridRetriever([first_stage()]).retrieve(QUERY)
    postprocessor().postprocess_nodes(found(), query_str=QUERY)
    assert llm._prompts == []
    assert Settings._embed_model is None
