"""Filters: LlamaIndex's own meaning, for one query, through every retriever; changes; images."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from helpers_llama_index import ids
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    ImageNode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from rerank_plugins.collection import Collection, Record
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25
from rerank_plugins.llama_index import (
    BM25Retriever,
    FaissRetriever,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.llama_index._filters import read_filters
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer


class Letters(BaseEmbedding):
    """Counts letters, and its own calls."""

    texts: int = 0
    awaited: int = 0

    def _get_text_embedding(self, text):
        self.texts += 1
        return [float(text.count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    def _get_query_embedding(self, query):
        return [float(query.count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    async def _aget_query_embedding(self, query):
        self.awaited += 1
        return self._get_query_embedding(query)

    async def _aget_text_embedding(self, text):
        self.awaited += 1
        return self._get_text_embedding(text)


def node(name, text="the museum", owner="a", source="book", **more):
    """One with an owner and a source document."""
    relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)}
    metadata = {"owner": owner, **more}
    excluded = list(metadata)
    return TextNode(
        id_=name,
        text=text,
        metadata=metadata,
        relationships=relationships,
        excluded_embed_metadata_keys=excluded,
    )


NODES = [
    node(f"{owner}{number}", f"the museum {number} {owner}", owner, f"book-{number % 3}")
    for number in range(8)
    for owner in ("a", "b")
]


def owned_by(owner):
    """Only these."""
    return MetadataFilters(filters=[MetadataFilter(key="owner", value=owner)])


def _hybrid():
    return HybridRetriever.from_nodes(NODES, Letters(), similarity_top_k=16)


RETRIEVERS = {
    "bm25": lambda: BM25Retriever(NODES, similarity_top_k=16),
    "faiss": lambda: FaissRetriever(NODES, embed_model=Letters(), similarity_top_k=16),
    "hybrid": _hybrid,
    "hybrid of several": lambda: HybridRetriever(
        [BM25Retriever(NODES), FaissRetriever(NODES, embed_model=Letters()), _hybrid()],
        similarity_top_k=16,
    ),
    "hybrid over an index": lambda: HybridRetriever(
        [
            BM25Retriever(NODES),
            VectorStoreIndex(NODES, embed_model=Letters()).as_retriever(),
        ],
        similarity_top_k=16,
    ),
    "reranking": lambda: RerankingRetriever(
        _hybrid(), reranker=Reranker(OverlapScorer()), similarity_top_k=16
    ),
}


@pytest.fixture(params=RETRIEVERS)
def retriever(request):
    """One of each."""
    return RETRIEVERS[request.param]()


async def test_a_filter_holds_for_one_query(retriever):
    """By a keyword or on a copy; the retriever itself stays as it is."""
    for found in (
        retriever.retrieve("the museum", filters=owned_by("a")),
        await retriever.aretrieve("the museum", filters=owned_by("a")),
        retriever.with_filters(owned_by("a")).retrieve("the museum"),
    ):
        assert {one.metadata["owner"] for one in found} == {"a"}
        assert len(found) == 8
    assert len(retriever.retrieve("the museum")) == 16
    assert retriever.filters is None


def test_a_filter_that_is_set_holds(retriever):
    """It narrows what the query asks for, and is checked when it is set."""
    retriever.filters = owned_by("a")
    assert {one.metadata["owner"] for one in retriever.retrieve("the museum")} == {"a"}
    assert retriever.retrieve("the museum", filters=owned_by("b")) == []
    with pytest.raises(InvalidInputError, match="filters must be MetadataFilters"):
        retriever.filters = {"owner": "a"}


def test_filters_of_the_constructor_hold():
    """In hybrid and reranking retrievers, too."""
    for retriever in (
        HybridRetriever([BM25Retriever(NODES)], filters=owned_by("a")),
        HybridRetriever.from_nodes(NODES, Letters(), filters=owned_by("a")),
        RerankingRetriever(
            BM25Retriever(NODES), reranker=Reranker(OverlapScorer()), filters=owned_by("a")
        ),
    ):
        assert {one.metadata["owner"] for one in retriever.retrieve("the museum")} == {"a"}


class Plain(BaseRetriever):
    """Knows no filters."""

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=one, score=1.0) for one in NODES]


FUSION = QueryFusionRetriever([BM25Retriever(NODES)], num_queries=1, llm=MockLLM())


@pytest.mark.parametrize("stage", [Plain(), FUSION], ids=["plain", "fusion"])
async def test_a_retriever_that_takes_no_filters_is_an_error(stage):
    """Other tenants' nodes would come back."""
    for outer in (
        HybridRetriever([BM25Retriever(NODES), stage]),
        RerankingRetriever(stage, reranker=Reranker(OverlapScorer())),
    ):
        with pytest.raises(InvalidInputError, match=f"{type(stage).__name__} takes no filters"):
            outer.retrieve("the museum", filters=owned_by("a"))
        with pytest.raises(InvalidInputError, match="takes no filters"):
            await outer.aretrieve("the museum", filters=owned_by("a"))
        assert outer.retrieve("the museum")
    with pytest.raises(InvalidInputError, match="takes no filters"):
        HybridRetriever([stage], filters=owned_by("a"))
    with pytest.raises(InvalidInputError, match="takes no filters"):
        RerankingRetriever(stage, reranker=Reranker(OverlapScorer()), filters=owned_by("a"))


VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2),
    st.sampled_from(["", "a", "b", "Ab"]),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
)
FIELDS = st.sampled_from(["x", "y", "ref_doc_id"])
WANTED = st.one_of(
    st.integers(-2, 2),
    st.sampled_from(["", "a", "b", "book"]),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
    st.lists(st.integers(-1, 1), min_size=1, max_size=2),
    st.none(),
)


@settings(max_examples=400, deadline=None)
@given(
    metadata=st.lists(st.dictionaries(st.sampled_from(["x", "y"]), VALUES), min_size=1, max_size=5),
    parts=st.lists(st.tuples(FIELDS, st.sampled_from(FilterOperator), WANTED), max_size=3),
    condition=st.sampled_from(FilterCondition),
)
def test_filters_mean_what_they_mean_in_the_simple_store(metadata, parts, condition):
    """Every operator, value and condition; where that store raises, so do we, or nobody asks."""
    for _, operator, value in parts:
        # One that is not a list is an error here, whatever the records hold.
        assume(operator not in ("in", "nin") or isinstance(value, (str, list)))
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key=key, operator=operator, value=value)
            for key, operator, value in parts
        ],
        condition=condition,
    )
    whole = [
        {**one, "doc_id": "book", "document_id": "book", "ref_doc_id": "book"} for one in metadata
    ]
    records = [Record(str(at), "text", one) for at, one in enumerate(whole)]
    view = Collection([BM25(["text"] * len(records))], records).view
    passes = build_metadata_filter_fn(lambda name: whole[int(name)], filters)
    try:
        expected = [passes(str(at)) for at in range(len(whole))]
    except (TypeError, ValueError, AttributeError):
        expected = None
    try:
        found = view.mask(read_filters(filters))
    except InvalidInputError:
        assert expected is None
    else:
        if expected is not None:
            assert (np.ones(len(whole), bool) if found is None else found).tolist() == expected


def test_filters_stand_inside_filters():
    """Which the simple store does not know."""
    inner = MetadataFilters(
        filters=[
            MetadataFilter(key="owner", value="a"),
            MetadataFilter(key="doc_id", value="book-0"),
        ],
        condition=FilterCondition.AND,
    )
    outer = MetadataFilters(
        filters=[inner, MetadataFilter(key="owner", value="b")], condition=FilterCondition.OR
    )
    found = BM25Retriever(NODES, similarity_top_k=16).retrieve("the museum", filters=outer)
    assert sorted(ids(found)) == sorted(
        one.node_id for one in NODES if one.metadata["owner"] == "b" or one.ref_doc_id == "book-0"
    )


def test_a_source_document_is_deleted_whole(retriever):
    """By the id that LlamaIndex knows it by."""
    if isinstance(retriever, RerankingRetriever) or len(getattr(retriever, "retrievers", ())) == 3:
        pytest.skip("it has no nodes, or shares them with others")
    if any(not hasattr(one, "nodes") for one in getattr(retriever, "retrievers", ())):
        pytest.skip("an index of LlamaIndex's own is in it")
    retriever.delete_ref_doc("book-1")
    left = {one.node_id for one in NODES if one.ref_doc_id != "book-1"}
    assert {one.node_id for one in retriever.nodes} == left
    assert set(ids(retriever.retrieve("the museum"))) == left
    retriever.delete_ref_doc("unknown")
    assert len(retriever.nodes) == len(left)


@pytest.mark.parametrize("name", ["bm25", "faiss", "hybrid"])
def test_nested_metadata_are_nobody_elses(name):
    """Writing to a result changes neither the index, nor filters, nor the caller's nodes."""
    mine = node("x", readers=["ann"])
    make = {
        "bm25": BM25Retriever,
        "faiss": lambda nodes: FaissRetriever(nodes, embed_model=Letters()),
        "hybrid": lambda nodes: HybridRetriever.from_nodes(nodes, Letters()),
    }[name]
    retriever = make([mine])
    (found,) = retriever.retrieve("the museum")
    found.node.metadata["readers"].append("eve")
    found.node.relationships[NodeRelationship.SOURCE].metadata["x"] = 1
    retriever.nodes[0].metadata["readers"].append("eve")
    mine.metadata["readers"].append("eve")
    wanted = MetadataFilters(
        filters=[MetadataFilter(key="readers", operator=FilterOperator.CONTAINS, value="eve")]
    )
    assert retriever.retrieve("the museum", filters=wanted) == []
    (again,) = retriever.retrieve("the museum")
    assert again.node.metadata["readers"] == ["ann"]
    assert again.node.relationships[NodeRelationship.SOURCE].metadata == {}


@pytest.mark.parametrize("name", ["bm25", "faiss", "hybrid"])
def test_images_without_text_stop_nothing(name):
    """They are kept and listed, never found by words, and gone with their document."""
    image = ImageNode(id_="image", image_url="https://x.org/a.png")
    nodes = [node("x"), image]
    retriever = {
        "bm25": lambda: BM25Retriever(nodes),
        "faiss": lambda: FaissRetriever(nodes, embed_model=Letters()),
        "hybrid": lambda: HybridRetriever.from_nodes(nodes, Letters()),
    }[name]()
    assert ids(retriever.retrieve("the museum")) == ["x"]
    retriever.insert_nodes([node("y"), ImageNode(id_="other", image_url="https://x.org/b.png")])
    assert sorted(ids(retriever.retrieve("the museum"))) == ["x", "y"]
    assert [one.node_id for one in retriever.nodes] == ["x", "image", "y", "other"]
    retriever.delete_nodes(["image", "x"])
    assert [one.node_id for one in retriever.nodes] == ["y", "other"]
    reranking = RerankingRetriever(retriever, reranker=Reranker(OverlapScorer()))
    assert ids(reranking.retrieve("the museum")) == ["y"]


async def test_async_embedding_is_awaited():
    """Of queries and of nodes that are added."""
    model = Letters()
    retriever = FaissRetriever(NODES[:2], embed_model=model)
    assert ids(await retriever.aretrieve("the museum")) == ids(retriever.retrieve("the museum"))
    assert model.awaited == 1
    await retriever.ainsert_nodes([node("new")])
    assert model.awaited == 2
    assert "new" in ids(retriever.retrieve("the museum"))


def test_node_ids_may_be_whole_numbers_and_are_checked():
    """As text they are what LlamaIndex has; half of a surrogate pair is refused."""
    retriever = BM25Retriever([node("7"), node("8")])
    retriever.delete_nodes([7])
    assert [one.node_id for one in retriever.nodes] == ["8"]
    with pytest.raises(InvalidInputError, match="UTF-8"):
        BM25Retriever([node("\ud800")])
    with pytest.raises(InvalidInputError, match="one string"):
        retriever.delete_nodes("8")


def test_names_of_llama_indexs_own_retriever_work(tmp_path):
    """from_defaults, persist and from_persist_dir."""
    retriever = BM25Retriever.from_defaults(nodes=NODES, similarity_top_k=3)
    retriever.persist(tmp_path / "kept")
    again = BM25Retriever.from_persist_dir(tmp_path / "kept")
    assert ids(again.retrieve("the museum")) == ids(retriever.retrieve("the museum"))
    assert again.similarity_top_k == 3


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_retrievers_are_copied_and_pickled(retriever, way):
    """They work on the other side, and go their own ways from there."""
    if any(not hasattr(one, "nodes") for one in getattr(retriever, "retrievers", ())):
        pytest.skip("an index of LlamaIndex's own is in it, which cannot be pickled")
    retriever.filters = owned_by("a")
    other = way(retriever)
    found = retriever.retrieve("the museum")
    again = other.retrieve("the museum")
    assert ids(again) == ids(found)
    assert [one.score for one in again] == [one.score for one in found]
    for one, stays in ((other, retriever), (retriever, other)):
        changed = getattr(one, "first_stage", one)
        changed.delete_nodes([found[0].node_id])
        assert (found[0].node_id in ids(stays.retrieve("the museum"))) is (stays is retriever)


def test_embeddings_that_nodes_bring_are_used():
    """And are not made again; nodes without one are embedded beside them."""
    model = Letters()
    near = [float("museum".count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]
    brought = node("brought", "zzz")
    brought.embedding = near
    image = ImageNode(id_="image", image_url="https://x.org/a.png", embedding=near)
    retriever = FaissRetriever(
        [node("own", "yyy"), brought, image], embed_model=model, similarity_top_k=3
    )
    assert model.texts == 1
    found = retriever.retrieve("museum")
    assert ids(found) == ["brought", "image", "own"]
    assert found[0].score == pytest.approx(1.0)
    retriever.insert_nodes([brought])
    assert model.texts == 1
    wrong = node("wrong")
    wrong.embedding = [1.0, 2.0]
    with pytest.raises(InvalidInputError, match="dimension"):
        retriever.insert_nodes([wrong])
    assert len(retriever.nodes) == 3
