"""RerankingRetriever over retrievers of every kind."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import (
    BM25Retriever,
    CrossEncoderCompressor,
    FaissVectorStore,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

standard = pytest.importorskip("langchain_tests.integration_tests")

EMBEDDING = DeterministicFakeEmbedding(size=8)


class Plain(BaseRetriever):
    """Takes no k, gives all that it has."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


class TakesK(Plain):
    """Remembers what it was asked for."""

    asked: list

    def _get_relevant_documents(self, query, *, run_manager, k=None):
        self.asked.append(k)
        return self.documents[:k]


class TestStandard(standard.RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    retriever_constructor = RerankingRetriever
    retriever_query_example = "museum"

    @property
    def retriever_constructor_params(self):
        """Over BM25."""
        texts = ["museum one", "the museum two", "museum three", "a museum", "bread"]
        return {
            "first_stage": BM25Retriever.from_texts(texts),
            "reranker": Reranker(OverlapScorer()),
        }


def test_returns_the_best_of_what_the_first_stage_brings(documents, reranker, query):
    """Both scores and both ranks on every document."""
    first_stage = BM25Retriever.from_documents(documents)
    found = RerankingRetriever(first_stage=first_stage, reranker=reranker, k=2).invoke(query)
    assert [one.id for one in found] == ["id-3", "id-1"]
    brought = {one.id: one.metadata for one in first_stage.invoke(query)}
    for rank, document in enumerate(found, start=1):
        assert document.metadata["rerank_rank"] == rank
        assert document.metadata["rerank_model"] == "overlap"
        for name in ("retrieval_score", "retrieval_rank", "retrieval_method"):
            assert document.metadata[name] == brought[document.id][name]


@pytest.mark.parametrize("kind", ["plain", "memory", "faiss", "hybrid", "bm25", "runnable"])
async def test_works_over_any_retriever(documents, reranker, query, kind):
    """Sync equals async, and the model decides, not the first stage's order."""
    first_stage = {
        "plain": lambda: Plain(documents=documents),
        "memory": lambda: InMemoryVectorStore.from_documents(documents, EMBEDDING).as_retriever(),
        "faiss": lambda: FaissVectorStore.from_documents(documents, EMBEDDING).as_retriever(),
        "hybrid": lambda: HybridRetriever.from_documents(documents, EMBEDDING),
        "bm25": lambda: BM25Retriever.from_documents(documents),
        "runnable": lambda: RunnableLambda(lambda _: documents),
    }[kind]()
    retriever = RerankingRetriever(first_stage=first_stage, reranker=reranker, k=3)
    found = retriever.invoke(query)
    assert [one.id for one in found] == ["id-3", "id-1", "id-2"]
    assert found == await retriever.ainvoke(query)


class TestCandidates:
    def test_are_passed_down_as_k_where_the_first_stage_takes_one(self, documents, reranker, query):
        """Never fewer than the number of documents to return."""
        first_stage = TakesK(documents=documents, asked=[])
        retriever = RerankingRetriever(
            first_stage=first_stage, reranker=reranker, k=2, candidates=4
        )
        assert len(retriever.invoke(query)) == 2
        assert len(retriever.invoke(query, k=5)) == 5
        assert retriever.invoke(query, k=0) == []
        assert first_stage.asked == [4, 5, 4]

    def test_are_fetched_from_vector_stores_of_others(self, documents, reranker, query):
        """Their retrievers take any argument, k among them."""
        first_stage = InMemoryVectorStore.from_documents(documents, EMBEDDING).as_retriever()
        assert len(first_stage.invoke(query)) == 4
        retriever = RerankingRetriever(first_stage=first_stage, reranker=reranker, k=6)
        assert len(retriever.invoke(query)) == 6

    def test_none_leaves_the_number_to_the_first_stage(self, documents, reranker, query):
        """The first stage's own k holds."""
        first_stage = TakesK(documents=documents, asked=[])
        RerankingRetriever(first_stage=first_stage, reranker=reranker, candidates=None).invoke(
            query
        )
        assert first_stage.asked == [None]


class TestOptions:
    def test_a_filter_reaches_the_first_stage(self, documents, reranker, query):
        """And nothing else comes out."""
        retriever = RerankingRetriever(
            first_stage=BM25Retriever.from_documents(documents), reranker=reranker
        )
        assert [one.id for one in retriever.invoke(query, filter={"number": 1})] == ["id-1"]

    def test_a_filter_that_would_be_dropped_is_an_error(self, documents, reranker, query):
        """LangChain passes over what a retriever does not declare; documents would leak."""
        retriever = RerankingRetriever(first_stage=Plain(documents=documents), reranker=reranker)
        with pytest.raises(InvalidInputError, match="Plain takes no filter"):
            retriever.invoke(query, filter={"number": 1})

    def test_the_compressors_options_are_its_own(self, documents, query):
        """By name, as on CrossEncoderCompressor."""
        retriever = RerankingRetriever(
            first_stage=Plain(documents=documents),
            reranker=Reranker(OverlapScorer(), scale="logit"),
            score_threshold=0.0,
            details=("rerank_rank",),
            k=6,
            tags=["mine"],
        )
        found = retriever.invoke(query)
        assert 0 < len(found) < 6
        assert found[0].metadata.keys() == {"number", "relevance_score", "rerank_rank"}
        assert retriever.tags == ["mine"]

    def test_a_ready_compressor_is_taken_as_it_is(self, documents, reranker, query):
        """Its own top_n gives way to k."""
        compressor = CrossEncoderCompressor(reranker=reranker, top_n=1)
        retriever = RerankingRetriever(
            first_stage=Plain(documents=documents), compressor=compressor, k=3
        )
        assert retriever.compressor is compressor
        assert len(retriever.invoke(query)) == 3

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"top_n": 3, "k": 2}, "k and top_n mean the same"),
            ({"k": -1}, "k must be a whole number"),
            ({"candidates": "many"}, "candidates must be a whole number"),
            ({"score_threshold": "high"}, "score_threshold must be"),
            ({"candidate": 5}, "has no option 'candidate'"),
            ({"first_stage": 7}, "first_stage must be a retriever, but got int"),
            ({"first_stage": FaissVectorStore(EMBEDDING)}, "give its as_retriever"),
        ],
    )
    def test_a_wrong_option_is_an_error_at_once(self, documents, reranker, options, words):
        """Before any query."""
        with pytest.raises(InvalidInputError, match=words):
            RerankingRetriever(
                **({"first_stage": Plain(documents=documents), "reranker": reranker} | options)
            )

    def test_a_ready_compressor_and_options_contradict_each_other(self, documents, reranker):
        """The message says where the options belong."""
        with pytest.raises(InvalidInputError, match="must be a CrossEncoderCompressor"):
            RerankingRetriever(first_stage=Plain(documents=documents), compressor=reranker)
        with pytest.raises(InvalidInputError, match="give them to the compressor"):
            RerankingRetriever(
                first_stage=Plain(documents=documents),
                compressor=CrossEncoderCompressor(reranker=reranker),
                scale="logit",
            )

    def test_the_model_that_ships_is_the_default(self, documents):
        """Named, and not loaded before the first query."""
        retriever = RerankingRetriever(first_stage=Plain(documents=documents))
        assert retriever.compressor.reranker.model == "bundled"

    def test_fields_can_be_configured_at_run_time(self, documents, reranker, query):
        """The reranker is kept, not loaded anew."""
        retriever = RerankingRetriever(
            first_stage=Plain(documents=documents), reranker=reranker
        ).configurable_fields(k=ConfigurableField(id="k"))
        assert len(retriever.invoke(query, {"configurable": {"k": 1}})) == 1
        assert len(retriever.invoke(query)) == 4


def test_langsmith_params_carry_the_inner_provider(documents, reranker):
    """What stores and embeds is the first stage; the name is the retriever's own."""
    first_stage = FaissVectorStore.from_documents(documents, EMBEDDING).as_retriever()
    params = RerankingRetriever(first_stage=first_stage, reranker=reranker)._get_ls_params()
    assert params == {
        "ls_retriever_name": "reranking",
        "ls_vector_store_provider": "FaissVectorStore",
        "ls_embedding_provider": "DeterministicFakeEmbedding",
    }


def test_an_empty_first_stage_gives_nothing(reranker, query):
    """An empty list of documents is not an error."""
    assert (
        RerankingRetriever(first_stage=Plain(documents=[]), reranker=reranker).invoke(query) == []
    )


def test_a_failing_model_keeps_the_first_stage_order(documents, failing, query):
    """Cut to k, every document stamped and marked."""
    found = RerankingRetriever(
        first_stage=Plain(documents=documents), reranker=failing, k=2
    ).invoke(query)
    assert [one.id for one in found] == ["id-0", "id-1"]
    assert [one.metadata["relevance_scale"] for one in found] == ["first_stage"] * 2


def test_names_that_people_bring_work(documents, reranker, query):
    """The first stage as the first argument, and top_n beside k."""
    retriever = RerankingRetriever(BM25Retriever(documents), reranker=reranker, top_n=2)
    assert retriever.k == len(retriever.invoke(query)) == 2
    with pytest.raises(InvalidInputError, match="did you mean 'first_stage'"):
        RerankingRetriever(BM25Retriever(documents), retriever=1)
