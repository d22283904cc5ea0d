"""Mistakes that LangChain's users make, and where the messages lead them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import (
    BM25Retriever,
    BundledEmbeddings,
    CrossEncoderCompressor,
    FaissVectorStore,
    HybridRetriever,
    RerankingRetriever,
    format_context,
)
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

DOCUMENT = Document("The museum opens at nine.", metadata={"source": "hours.pdf"})
QUESTION = "When does the museum open?"


def words() -> BM25Retriever:
    """One document."""
    return BM25Retriever.from_documents([DOCUMENT])


def reranking() -> RerankingRetriever:
    """Reranking of it, without a model."""
    return RerankingRetriever(words(), reranker=Reranker(OverlapScorer()))


@pytest.mark.parametrize(
    "call",
    [
        lambda: BM25Retriever.from_documents(DOCUMENT),
        lambda: words().add_documents(DOCUMENT),
        lambda: CrossEncoderCompressor().compress_documents(DOCUMENT, QUESTION),
        lambda: HybridRetriever(words()),
    ],
)
def test_one_object_in_place_of_a_list(call: Callable[[], object]) -> None:
    """Pydantic's objects are iterable: their fields would be taken for elements."""
    with pytest.raises(InvalidInputError, match=r"must be a list, but got one \w+: put it in"):
        call()


@pytest.mark.parametrize("retriever", [words, reranking])
@pytest.mark.parametrize(
    ("name", "said"), [("top_n", "'k'"), ("filters", "'filter'"), ("color", "takes k and filter")]
)
def test_an_option_that_a_call_does_not_take(
    retriever: Callable[[], RerankingRetriever | BM25Retriever], name: str, said: str
) -> None:
    """The message has the name that was meant, and what the call takes."""
    with pytest.raises(InvalidInputError, match=f"unknown option: {name}.*{said}"):
        retriever().invoke(QUESTION, **{name: 1})


@pytest.mark.parametrize("given", [None, "text", {"documents": [DOCUMENT]}, DOCUMENT, ["text"]])
def test_a_first_stage_that_gives_something_else_than_documents(given: object) -> None:
    """One Document too: it is iterable, and its fields would be taken for documents."""
    retriever = RerankingRetriever(
        RunnableLambda(lambda _: given), reranker=Reranker(OverlapScorer())
    )
    with pytest.raises(InvalidInputError, match=r"Documents, but .*(gave|is) \w+$"):
        retriever.invoke(QUESTION)


def test_a_function_in_place_of_a_first_stage() -> None:
    """A runnable around it is one."""
    with pytest.raises(InvalidInputError, match="but got function: wrap it in a RunnableLambda"):
        RerankingRetriever(lambda _: [DOCUMENT], reranker=Reranker(OverlapScorer()))


@pytest.mark.parametrize("model", ["bundled-encoder", "bundled-static"])
def test_embeddings_of_something_else_than_texts(model: str) -> None:
    """One text is not a list of characters, each with its vector."""
    embeddings = BundledEmbeddings(model)
    with pytest.raises(InvalidInputError, match="must be a list, but got one str"):
        embeddings.embed_documents("museum")
    for call in (lambda: embeddings.embed_documents([None]), lambda: embeddings.embed_query(5)):
        with pytest.raises(InvalidInputError, match="number 0 is"):
            call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metadatas": {"team": "a"}}, "metadatas must be a list, but got a dict"),
        ({"metadatas": ["a"]}, "metadatas must be dicts, but number 0 is str"),
    ],
)
def test_metadatas_that_are_no_list_of_dicts(options: dict[str, Any], said: str) -> None:
    """Not an error from within; None is a text without metadata."""
    for call in (BM25Retriever.from_texts, words().add_texts):
        with pytest.raises(InvalidInputError, match=said):
            call(["museum"], **options)
    assert BM25Retriever.from_texts(["museum"], [None]).documents[0].metadata == {}


async def test_a_store_answers_a_blank_query_as_other_stores_do() -> None:
    """A self-query whose language model wrote a filter alone asks for " "."""
    texts, teams = ["museum", "bus", "tram"], [{"team": "a"}, {"team": "b"}, {"team": "a"}]
    store = FaissVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=8), teams)
    mine = {"filter": {"team": "a"}}
    for found in (
        store.similarity_search(" ", **mine),
        await store.asimilarity_search(" ", **mine),
        store.search(" ", "mmr", **mine),
        await store.asearch(" ", "mmr", **mine),
    ):
        assert {one.page_content for one in found} == {"museum", "tram"}
    assert store.as_retriever().invoke(" ") == []  # an agent's: nothing is looked for
    for search in (store.similarity_search, store.max_marginal_relevance_search):
        with pytest.raises(InvalidInputError, match="query must be text, but got NoneType"):
            search(None)


def test_a_dict_without_documents_into_a_context() -> None:
    """A state of a graph, say: the message has the key that is read, and those that are there."""
    with pytest.raises(InvalidInputError, match=r"under 'documents', but has \['docs'\]"):
        format_context().invoke({"docs": [DOCUMENT]})


def test_a_misspelt_option_of_a_context() -> None:
    """As everywhere else."""
    with pytest.raises(InvalidInputError, match=r"'max_token'.*did you mean 'max_tokens'"):
        format_context(max_token=5)


async def test_a_chain_with_a_context_pickles_and_copies() -> None:
    """Pools of processes and caches do that to chains."""
    chain = reranking() | format_context(max_tokens=50)
    expected = chain.invoke(QUESTION)
    assert "hours.pdf" in expected
    for other in (pickle.loads(pickle.dumps(chain)), deepcopy(chain)):
        assert other.invoke(QUESTION) == expected
        assert await other.ainvoke(QUESTION) == expected
