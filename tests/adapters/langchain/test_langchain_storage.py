"""LangChain's retrievers and store, saved and loaded: documents, settings, additions, removals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.langchain import (
    BM25Retriever,
    FaissRetriever,
    FaissVectorStore,
    HybridRetriever,
)

METADATA = {"page": 3, "nested": {"list": [1, None, "ا"], "real": 0.1}, "half": "\ud83d"}


@pytest.fixture
def documents(make_documents: Any) -> list[Document]:
    """The shared documents, with metadata of every JSON kind."""
    return [
        one.model_copy(update={"metadata": {**one.metadata, **METADATA}})
        for one in make_documents()
    ]


EMBEDDING = DeterministicFakeEmbedding(size=16)


def made(kind: str, documents: list[Document]) -> Any:
    """A retriever of that kind over the documents."""
    if kind == "bm25":
        return BM25Retriever(documents=documents, k=5, language="en")
    if kind == "bm25s":
        return BM25Retriever(documents=documents, k=5, language="en", engine="bm25s")
    if kind == "faiss":
        return FaissVectorStore.from_documents(documents, EMBEDDING).as_retriever(k=5)
    return HybridRetriever.from_documents(documents, EMBEDDING, k=5, language="en")


def loaded(kind: str, path: Path, **options: Any) -> Any:
    """The retriever of that kind that was saved."""
    if kind.startswith("bm25"):
        return BM25Retriever.load(path, **options)
    if kind == "faiss":
        return FaissRetriever.load(path, EMBEDDING, **options)
    return HybridRetriever.load(path, EMBEDDING, **options)


@pytest.mark.parametrize("kind", ["bm25", "bm25s", "faiss", "hybrid"])
def test_a_loaded_retriever_finds_what_the_saved_one_did(
    kind: str, documents: list[Document], query: str, tmp_path: Path
) -> None:
    """Documents with ids and metadata, scores, and k; by sync and async."""
    retriever = made(kind, documents)
    retriever.save(tmp_path / "index")
    again = loaded(kind, tmp_path / "index")
    found = again.invoke(query)
    assert found == retriever.invoke(query)
    assert 2 <= len(found) <= 5
    assert {one.id for one in found} <= {one.id for one in documents}
    for one in found:
        assert {name: one.metadata[name] for name in METADATA} == METADATA


@pytest.mark.parametrize("kind", ["bm25", "bm25s", "faiss", "hybrid"])
def test_a_loaded_retriever_takes_additions_and_removals(
    kind: str, documents: list[Document], tmp_path: Path
) -> None:
    """A new one is found, one under an old id replaces it, a deleted one is gone; and stored."""
    made(kind, documents).save(tmp_path / "index")
    retriever = loaded(kind, tmp_path / "index")
    new = Document(id="new", page_content="A hive of glass bees", metadata={"n": 1})
    replacing = Document(id="id-4", page_content="Bread and honey from the hive", metadata={})
    retriever.add_documents([new, replacing])
    retriever.delete(["id-0", "not there"])
    retriever.save(tmp_path / "index")
    for one in (retriever, loaded(kind, tmp_path / "index")):
        assert one.invoke("A hive of glass bees", k=1)[0].id == "new"
        found = one.invoke("the hive bridge bread", k=20)
        texts = {document.id: document.page_content for document in found}
        assert "id-0" not in texts
        assert texts["id-4"] == "Bread and honey from the hive"


def test_a_loaded_store_is_the_saved_one(documents: list[Document], tmp_path: Path) -> None:
    """Search, ids, relevance and MMR, without a retriever around it."""
    store = FaissVectorStore.from_documents(documents, EMBEDDING, metric="l2", index_kind="hnsw")
    store.delete(["id-1"])
    store.save(tmp_path / "index")
    again = FaissVectorStore.load(tmp_path / "index", EMBEDDING)
    assert len(again) == len(documents) - 1
    ids = ["id-5", "id-1", "id-0"]
    assert again.get_by_ids(ids) == store.get_by_ids(ids)
    for search in ("similarity_search_with_score", "similarity_search_with_relevance_scores"):
        assert getattr(again, search)("tram") == getattr(store, search)("tram")
    mmr = again.max_marginal_relevance_search("tram", k=3)
    assert mmr == store.max_marginal_relevance_search("tram", k=3)
    with pytest.raises(IndexMismatchError, match="encoder"):
        FaissVectorStore.load(tmp_path / "index", DeterministicFakeEmbedding(size=8))


@pytest.mark.parametrize("kind", ["bm25", "faiss"])
def test_a_filter_is_never_lost(
    kind: str, documents: list[Document], query: str, tmp_path: Path
) -> None:
    """Values are stored; a function must be given again, or loading is an error."""
    values = {"number": 2}
    for keep in (values, lambda document: document.metadata["number"] == 2):
        if kind == "bm25":
            retriever: Any = BM25Retriever(documents=documents, filter=keep)
        else:
            store = FaissVectorStore.from_documents(documents, EMBEDDING)
            retriever = store.as_retriever(search_kwargs={"filter": keep})
        retriever.save(tmp_path / "index")
        if keep is not values:
            with pytest.raises(IndexMismatchError, match="give it again as filter="):
                loaded(kind, tmp_path / "index")
        again = loaded(kind, tmp_path / "index", **({} if keep is values else {"filter": keep}))
        assert [one.id for one in again.invoke(query)] == ["id-2"]


@pytest.mark.parametrize("kind", ["bm25", "faiss", "hybrid"])
def test_what_is_no_json_is_refused_before_anything_is_replaced(
    kind: str, documents: list[Document], query: str, tmp_path: Path
) -> None:
    """A set in the metadata, or a document of another class: the old index stays."""

    class Own(Document):
        extra: int = 1

    retriever = made(kind, documents)
    retriever.save(tmp_path / "index")
    for bad in (Document(page_content="x", metadata={"tags": {1, 2}}), Own(page_content="x")):
        with pytest.raises(InvalidInputError):
            made(kind, [*documents, bad]).save(tmp_path / "index")
    assert loaded(kind, tmp_path / "index").invoke(query) == retriever.invoke(query)


def test_a_hybrid_of_other_retrievers_says_so(documents: list[Document], tmp_path: Path) -> None:
    """What we cannot load again is not saved."""

    class Own(BM25Retriever):
        pass

    with pytest.raises(InvalidInputError, match="but one is Own"):
        HybridRetriever(retrievers=[Own(documents=documents)]).save(tmp_path / "index")


def test_options_given_at_loading_go_before_stored_ones(
    documents: list[Document], query: str, tmp_path: Path
) -> None:
    """Such as k; the fusion's settings come back by themselves."""
    retriever = HybridRetriever.from_documents(
        documents, EMBEDDING, k=5, weights=[1, 2], fusion="ranks", rank_constant=3, candidates=7
    )
    retriever.save(tmp_path / "index")
    again = HybridRetriever.load(tmp_path / "index", EMBEDDING, k=2)
    assert len(again.invoke(query)) == 2
    assert (again.weights, again.fusion, again.rank_constant) == ([1, 2], "ranks", 3)
    assert again.candidates == 7
