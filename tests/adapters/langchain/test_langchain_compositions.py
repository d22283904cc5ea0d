"""Ours inside LangChain's own retrievers, chains, tools, agents and checkpoints."""

from __future__ import annotations

import json
import warnings

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import create_retriever_tool

from rerank_plugins.langchain import (
    BM25Retriever,
    CrossEncoderCompressor,
    FaissVectorStore,
    HybridRetriever,
    RerankingRetriever,
    format_context,
)

EMBEDDING = DeterministicFakeEmbedding(size=8)
DOCUMENT_PROMPT = PromptTemplate.from_template("{relevance_score:.2f} {page_content}")


@pytest.fixture
def retriever(documents, reranker):
    """BM25, then reranking."""
    return RerankingRetriever(
        first_stage=BM25Retriever.from_documents(documents), reranker=reranker, k=2
    )


class TestClassic:
    """langchain-classic's retrievers."""

    @pytest.fixture
    def classic(self):
        """The module, where it is installed."""
        return pytest.importorskip("langchain_classic.retrievers")

    async def test_contextual_compression(self, classic, documents, reranker, query):
        """Scores arrive; a k for one call goes through to the first stage."""
        retriever = classic.ContextualCompressionRetriever(
            base_compressor=CrossEncoderCompressor(reranker=reranker, top_n=2),
            base_retriever=BM25Retriever.from_documents(documents),
        )
        found = retriever.invoke(query)
        assert [one.id for one in found] == ["id-3", "id-1"]
        assert all(type(one.metadata["relevance_score"]) is float for one in found)
        assert found == await retriever.ainvoke(query)
        assert len(retriever.invoke(query, k=1)) == 1

    async def test_pipeline(self, documents, reranker, query):
        """Before and after other steps, callbacks included."""
        compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
        transformers = pytest.importorskip("langchain_community.document_transformers")
        pipeline = compressors.DocumentCompressorPipeline(
            transformers=[
                transformers.EmbeddingsRedundantFilter(embeddings=EMBEDDING),
                CrossEncoderCompressor(reranker=reranker, top_n=3),
                transformers.LongContextReorder(),
            ]
        )
        kept = pipeline.compress_documents(documents, query)
        # The filter of langchain-community loses the ids.
        assert {one.metadata["number"] for one in kept} == {1, 2, 3}
        assert kept == await pipeline.acompress_documents(documents, query)

    async def test_ensemble(self, classic, documents, reranker, query):
        """Our first stages in it, our compressor after it."""
        ensemble = classic.EnsembleRetriever(
            retrievers=[
                BM25Retriever.from_documents(documents),
                FaissVectorStore.from_documents(documents, EMBEDDING).as_retriever(k=6),
            ]
        )
        retriever = RerankingRetriever(first_stage=ensemble, reranker=reranker, k=3)
        found = retriever.invoke(query)
        assert [one.id for one in found] == ["id-3", "id-1", "id-2"]
        assert found == await retriever.ainvoke(query)
        inside = classic.EnsembleRetriever(retrievers=[retriever, retriever]).invoke(query)
        assert [one.id for one in inside] == ["id-3", "id-1", "id-2"]

    def test_reranking_over_contextual_compression(self, classic, documents, reranker, query):
        """A cascade: the second stage reranks what the first left."""
        inner = classic.ContextualCompressionRetriever(
            base_compressor=CrossEncoderCompressor(reranker=reranker, top_n=3),
            base_retriever=BM25Retriever.from_documents(documents),
        )
        outer = RerankingRetriever(first_stage=inner, reranker=reranker, k=1)
        assert outer.invoke(query)[0].id == "id-3"


class TestChains:
    def _chain(self, retriever):
        prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
        context = retriever | format_context(max_tokens=100, count_tokens=len)
        inputs = RunnableParallel(context=context, question=RunnablePassthrough())
        return inputs | prompt

    async def test_a_chain_answers_from_the_reranked_context(self, retriever, query):
        """Sync, async, batch and stream."""
        prompt = self._chain(retriever)
        text = prompt.invoke(query).to_messages()[0].content
        assert text.startswith("[1]\nWhen the museum does open")
        assert text.endswith(f"Question: {query}")
        chain = prompt | FakeListChatModel(responses=["At nine."]) | StrOutputParser()
        assert chain.invoke(query) == "At nine."
        assert await chain.ainvoke(query) == "At nine."
        assert chain.batch([query, query]) == ["At nine.", "At nine."]
        assert "".join(chain.stream(query)) == "At nine."
        assert "".join([part async for part in chain.astream(query)]) == "At nine."

    def test_a_compressor_is_a_step_of_a_chain(self, documents, reranker, query):
        """It is not a runnable, so it stands in a lambda, as LangChain advises."""
        compressor = CrossEncoderCompressor(reranker=reranker, top_n=1)
        step = RunnableLambda(
            lambda given: compressor.compress_documents(given["documents"], given["query"])
        )
        assert step.invoke({"documents": documents, "query": query})[0].id == "id-3"

    def test_fallbacks_bindings_and_configs_wrap_a_retriever(self, retriever, query):
        """The usual methods of a runnable."""
        assert len(retriever.bind(k=1).invoke(query)) == 1
        assert retriever.with_config(tags=["x"]).invoke(query) == retriever.invoke(query)
        assert retriever.with_retry().invoke(query) == retriever.invoke(query)
        broken = RunnableLambda(lambda _: 1 / 0)
        assert broken.with_fallbacks([retriever]).invoke(query) == retriever.invoke(query)

    async def test_events_show_the_rerank_step(self, retriever, query):
        """What a web server streams to a front end."""
        events = [event async for event in retriever.astream_events(query, version="v2")]
        steps = [(event["event"], event["name"]) for event in events]
        assert ("on_chain_start", "rerank") in steps
        assert ("on_chain_end", "rerank") in steps
        assert ("on_retriever_end", "BM25Retriever") in steps


class TestTools:
    async def test_a_document_prompt_may_use_the_relevance_score(self, retriever, query):
        """The content shows it, the artifact carries it."""
        tool = create_retriever_tool(
            retriever,
            "search",
            "Searches.",
            document_prompt=DOCUMENT_PROMPT,
            response_format="content_and_artifact",
        )
        call = {"type": "tool_call", "name": "search", "id": "1", "args": {"query": query}}
        message = tool.invoke(call)
        assert message.content.startswith("0.98 When the museum")
        assert [one.id for one in message.artifact] == ["id-3", "id-1"]
        assert (await tool.ainvoke(call)).content == message.content

    def test_also_when_scoring_failed(self, documents, failing, query):
        """Every document is stamped, so that the prompt finds its variable."""
        retriever = RerankingRetriever(
            first_stage=BM25Retriever.from_documents(documents), reranker=failing, k=2
        )
        tool = create_retriever_tool(
            retriever, "search", "Searches.", document_prompt=DOCUMENT_PROMPT
        )
        assert tool.invoke({"query": query}).startswith("1.00 ")


class ToolCallingModel(GenericFakeChatModel):
    """Says what it is told to say, and lets tools be bound."""

    def bind_tools(self, tools, **kwargs):
        """Itself."""
        return self


class TestAgents:
    @pytest.fixture
    def agent(self, retriever, query):
        """Searches once, then answers, with a checkpoint after every step."""
        agents = pytest.importorskip("langchain.agents")
        memory = pytest.importorskip("langgraph.checkpoint.memory")
        tool = create_retriever_tool(
            retriever,
            "search",
            "Searches.",
            document_prompt=DOCUMENT_PROMPT,
            response_format="content_and_artifact",
        )
        call = {"name": "search", "args": {"query": query}, "id": "call-1"}
        answers = [AIMessage("", tool_calls=[call]), AIMessage("At nine.")]
        model = ToolCallingModel(messages=iter(answers))
        return agents.create_agent(model, [tool], checkpointer=memory.InMemorySaver())

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_an_agent_searches_and_its_checkpoint_keeps_the_scores(
        self, agent, retriever, query, is_async
    ):
        """LangGraph saves the documents of an artifact as dicts, with all that was in them."""
        config = {"configurable": {"thread_id": "1"}}
        asked = {"messages": [("user", query)]}
        state = await agent.ainvoke(asked, config) if is_async else agent.invoke(asked, config)
        assert state["messages"][-1].content == "At nine."
        saved = agent.get_state(config).values["messages"]
        (message,) = [one for one in saved if isinstance(one, ToolMessage)]
        assert message.status == "success"
        assert message.content.startswith("0.98 When the museum")
        assert message.artifact == [one.model_dump() for one in retriever.invoke(query)]


class TestSerialisation:
    def _found(self, documents, reranker, query):
        hybrid = HybridRetriever.from_documents(documents, EMBEDDING)
        return RerankingRetriever(first_stage=hybrid, reranker=reranker, k=6).invoke(query)

    def test_documents_survive_a_langgraph_checkpoint(self, documents, reranker, query):
        """Its msgpack gives back equal documents of native types."""
        serde = pytest.importorskip("langgraph.checkpoint.serde.jsonplus")
        found = self._found(documents, reranker, query)
        serializer = serde.JsonPlusSerializer()
        again = serializer.loads_typed(serializer.dumps_typed(found))
        assert again == found
        assert all(isinstance(one, Document) for one in again)
        assert type(again[0].metadata["relevance_score"]) is float

    def test_documents_survive_json(self, documents, reranker, query):
        """Plain JSON of the metadata, and LangChain's own of the documents."""
        found = self._found(documents, reranker, query)
        assert json.loads(json.dumps([one.metadata for one in found])) == [
            one.metadata for one in found
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # loads() is in beta
            again = loads(dumps(found), allowed_objects="core")
        assert again == found
