"""LlamaIndex's retrievers, saved and loaded: nodes, settings, additions, removals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers_llama_index import QUERY, found, ids
from llama_index.core import MockEmbedding
from llama_index.core.schema import Document, ImageNode, IndexNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.llama_index import BM25Retriever, FaissRetriever, HybridRetriever

KINDS = ["bm25", "bm25s", "faiss", "hybrid"]


def nodes() -> list[Any]:
    """Nodes of several kinds, with metadata, exclusions and relationships."""
    return [
        *(one.node for one in found()),
        Document(text="A whole document about a museum", id_="document", metadata={"number": 7}),
        ImageNode(text="Picture of a museum", image_url="http://127.0.0.1/x.png", id_="image"),
        IndexNode(text="See the museum's page", index_id="page", id_="link"),
    ]


def made(kind: str, given: list[Any], **options: Any) -> Any:
    """A retriever of that kind."""
    options = {"similarity_top_k": 6, **options}
    if kind == "bm25":
        return BM25Retriever(given, language="en", **options)
    if kind == "bm25s":
        return BM25Retriever(given, language="en", engine="bm25s", **options)
    if kind == "faiss":
        return FaissRetriever(given, **options)
    return HybridRetriever.from_nodes(given, language="en", **options)


def loaded(kind: str, path: Path, **options: Any) -> Any:
    """The retriever of that kind that was saved."""
    classes = {"faiss": FaissRetriever, "hybrid": HybridRetriever}
    return classes.get(kind, BM25Retriever).load(path, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_retriever_finds_what_the_saved_one_did(kind: str, tmp_path: Path) -> None:
    """Nodes of each class, whole, with their scores."""
    retriever = made(kind, nodes())
    retriever.save(tmp_path / "index")
    again = loaded(kind, tmp_path / "index")
    answers = again.retrieve(QUERY)
    assert answers == retriever.retrieve(QUERY)
    assert len(answers) >= 3
    originals = {node.node_id: node for node in nodes()}
    for one in answers:
        assert type(one.node) is type(originals[one.node_id])
        assert one.node == originals[one.node_id]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_retriever_takes_additions_and_removals(kind: str, tmp_path: Path) -> None:
    """A new node is found, one under an old id replaces it, a deleted one is gone; and stored."""
    made(kind, nodes()).save(tmp_path / "index")
    retriever = loaded(kind, tmp_path / "index", similarity_top_k=20)
    retriever.insert_nodes(
        [
            TextNode(text="A glass hive of bees", id_="new"),
            TextNode(text="Bread and honey from the hive", id_="id-2"),
        ]
    )
    retriever.delete_nodes(["id-0", "not there"])
    retriever.save(tmp_path / "index")
    for one in (retriever, loaded(kind, tmp_path / "index")):
        answers = one.retrieve("glass hive of bees, bread, river")
        assert answers[0].node_id == "new"
        assert "id-0" not in ids(answers)
        texts = {answer.node_id: answer.node.get_content() for answer in answers}
        assert texts["id-2"] == "Bread and honey from the hive"


@pytest.mark.parametrize("kind", KINDS)
def test_filters_and_metadata_mode_come_back(kind: str, tmp_path: Path) -> None:
    """A stored filter still holds, also beside removed nodes; texts are made as they were."""
    filters = MetadataFilters(
        filters=[MetadataFilter(key="number", value=2, operator=FilterOperator.GT)]
    )
    options = {"filters": filters, "metadata_mode": MetadataMode.NONE}
    made(kind, [one.node for one in found()], **options).save(tmp_path / "index")
    again = loaded(kind, tmp_path / "index")
    again.delete_nodes(["id-1"])
    assert set(ids(again.retrieve(QUERY))) <= {"id-3", "id-4"}
    assert "id-3" in ids(again.retrieve(QUERY))


def test_another_embedding_is_refused(tmp_path: Path) -> None:
    """By its dimension."""
    made("faiss", nodes()).save(tmp_path / "index")
    with pytest.raises(IndexMismatchError, match="this encoder gives 5"):
        FaissRetriever.load(tmp_path / "index", embed_model=MockEmbedding(embed_dim=5))
    with pytest.raises(IndexMismatchError, match=r"llama_index\.BM25Retriever"):
        BM25Retriever.load(tmp_path / "index")


class Own(TextNode):
    """A node of a class of one's own."""


@pytest.mark.parametrize(
    "bad",
    [
        TextNode(text="x", metadata={"tags": {1, 2}}),
        TextNode(text="x", metadata={"pair": (1, 2)}),
        Own(text="x"),
        IndexNode(text="x", index_id="i", obj={"a": 1}),
    ],
)
def test_a_node_that_would_not_come_back_is_refused(bad: Any, tmp_path: Path) -> None:
    """Nothing is replaced then."""
    retriever = made("bm25", nodes())
    retriever.save(tmp_path / "index")
    with pytest.raises(InvalidInputError):
        made("bm25", [*nodes(), bad]).save(tmp_path / "index")
    assert loaded("bm25", tmp_path / "index").retrieve(QUERY) == retriever.retrieve(QUERY)


def test_a_hybrid_of_other_retrievers_says_so(tmp_path: Path) -> None:
    """What we cannot load again is not saved."""

    class OwnRetriever(BM25Retriever):
        pass

    with pytest.raises(InvalidInputError, match="but one is OwnRetriever"):
        HybridRetriever([OwnRetriever(nodes())]).save(tmp_path / "index")
