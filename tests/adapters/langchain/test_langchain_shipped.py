"""The defaults, with no option and no network: what ships retrieves, reranks and assembles."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from rerank_plugins.bundled import StaticEncoder
from rerank_plugins.langchain import (
    BM25Retriever,
    BundledEmbeddings,
    FaissVectorStore,
    HybridRetriever,
    RerankingRetriever,
    format_context,
)
from rerank_plugins.models.catalog import bundled_folder
from rerank_plugins.samples import load_passages, load_questions

unit = pytest.importorskip("langchain_tests.unit_tests")

needs_encoder = pytest.mark.skipif(
    not (StaticEncoder.default().folder / "model.safetensors").is_file(),
    reason="the encoder that ships is not trained yet",
)
needs_reranker = pytest.mark.skipif(
    not (bundled_folder() / "config.json").is_file(),
    reason="the reranker that ships is not trained yet",
)


@needs_encoder
class TestStandard(unit.EmbeddingsUnitTests):
    """LangChain's own tests of embeddings, over the encoder that ships."""

    embeddings_class = BundledEmbeddings


def _documents(language):
    return [
        Document(id=one.id, page_content=one.text, metadata={"source": one.title})
        for one in load_passages(language)
    ]


@pytest.mark.parametrize("language", ["ar", "fr", "pl", "en"])
@needs_encoder
def test_vectors_and_words_together_find_the_answer(language):
    """In each language the first question's answer is among the first ten."""
    question = load_questions(language)[0]
    documents = _documents(language)
    for retriever in (
        FaissVectorStore.from_documents(documents).as_retriever(k=10),
        HybridRetriever.from_documents(documents, k=10),
    ):
        assert {one.id for one in retriever.invoke(question.text)} & set(question.relevant)


@pytest.mark.parametrize("language", ["ar", "fr", "pl", "en"])
@needs_reranker
async def test_the_main_job_in_three_lines(language):
    """Retrieve, rerank, assemble: the answer first and in the context, scores in bounds."""
    question = load_questions(language)[0]
    retriever = RerankingRetriever(
        first_stage=BM25Retriever.from_documents(_documents(language)), k=3
    )
    chain = retriever | format_context(max_tokens=1000)
    assert [one.id for one in retriever.invoke(question.text, k=1)] == list(question.relevant)
    found = retriever.invoke(question.text)
    assert all(0.0 <= one.metadata["relevance_score"] <= 1.0 for one in found)
    assert {one.metadata["rerank_model"] for one in found} == {"bundled"}
    text = await chain.ainvoke(question.text)
    assert text.startswith("[1] ")
    assert found[0].page_content in text
