"""The first stages as LlamaIndex retrievers, and the retriever that reranks what they find."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from helpers_llama_index import QUERY, TEXTS, found, ids
from llama_index.core import SummaryIndex, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import (
    IndexNode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    SimpleVectorStore,
)

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25
from rerank_plugins.first_stage._hybrid_view import HybridView
from rerank_plugins.llama_index import (
    BM25Retriever,
    CrossEncoderPostprocessor,
    FaissRetriever,
    HybridNodeWithScore,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.testing import OverlapScorer

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class LetterEmbedding(BaseEmbedding):
    """Counts letters: vectors that anyone can compute again."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) for letter in LETTERS]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def nodes(texts: tuple[str, ...] | list[str] = TEXTS, **metadata: Any) -> list[TextNode]:
    """A corpus with ids, metadata and relationships."""
    return [one.node for one in found(texts, **metadata)]


MAKERS = {
    "bm25": BM25Retriever,
    "faiss": lambda given, **more: FaissRetriever(given, embed_model=LetterEmbedding(), **more),
    "hybrid": lambda given, **more: HybridRetriever.from_nodes(given, LetterEmbedding(), **more),
}


@pytest.fixture(params=sorted(MAKERS))
def make(request):
    """Each first stage in turn, made from nodes and options."""
    return MAKERS[request.param]


# --- every first stage ------------------------------------------------------------------------


def test_a_retriever_finds_what_it_should_in_falling_order(make):
    """The passage that is the query comes first, scores fall, and are native floats."""
    got = make(nodes(), similarity_top_k=5).retrieve(TEXTS[3])
    assert got[0].node_id == "id-3"
    scores = [node.score for node in got]
    assert scores == sorted(scores, reverse=True)
    assert {type(score) for score in scores} == {float}


def test_similarity_top_k_is_the_most_that_comes_back(make):
    """Fewer, none, or more than there are; the framework's default is two."""
    for k, most in ((0, 0), (1, 1), (100, len(TEXTS))):
        assert len(make(nodes(), similarity_top_k=k).retrieve("the museum opens")) <= most
    assert len(make(nodes()).retrieve("the museum opens")) == 2
    later = make(nodes(), similarity_top_k=1)
    later.similarity_top_k = 2
    assert len(later.retrieve("the museum opens")) == 2


async def test_the_async_way_gives_the_same(make):
    """Both agree, and no embedding model is asked on the event loop."""
    retriever = make(nodes(), similarity_top_k=5)
    sync = retriever.retrieve("the museum opens")
    apart = await retriever.aretrieve("the museum opens")
    assert [n.model_dump() for n in sync] == [n.model_dump() for n in apart]


async def test_the_event_loop_is_left_free(make, monkeypatch):
    """The search itself runs in another thread than the loop's."""
    threads = []
    retriever = make(nodes())
    if isinstance(retriever, HybridRetriever):
        kind, name = HybridView, "search"
    else:
        # The async way embeds first, and searches by the vector.
        kind = type(retriever.stage)
        name = "search" if kind is BM25 else "search_by_vector"
    search = getattr(kind, name)

    def listening(self, *args, **more):
        threads.append(threading.current_thread())
        return search(self, *args, **more)

    monkeypatch.setattr(kind, name, listening)
    await retriever.aretrieve(QUERY)
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_what_comes_back_are_copies_of_what_went_in(make):
    """Ids, metadata and relationships are those given; changing them changes no index."""
    given = nodes()
    retriever = make(given, similarity_top_k=5)
    for node in given:
        node.metadata["later"] = "not in the index"
    first = retriever.retrieve("the museum opens")
    for one in first:
        assert one.node.ref_doc_id == "book"
        assert one.metadata == {"number": int(one.node_id[3:]), "nested": {"list": [1]}}
        one.node.metadata["mine"] = 1
        one.node.excluded_llm_metadata_keys.append("mine")
        one.node.relationships.clear()
        one.score = -5.0
    again = retriever.retrieve("the museum opens")
    assert all("mine" not in n.metadata and n.node.ref_doc_id == "book" for n in again)
    assert ids(again) == ids(first)


@pytest.mark.parametrize("make", [MAKERS["bm25"], MAKERS["faiss"]], ids=["bm25", "faiss"])
def test_nodes_come_from_a_list_a_docstore_or_an_index(make):
    """One of the three; a generator is read once and wholly."""
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes())
    index = SummaryIndex(nodes())
    vectors = VectorStoreIndex(nodes(), embed_model=LetterEmbedding())
    by_list = ids(make((node for node in nodes()), similarity_top_k=5).retrieve(QUERY))
    assert by_list
    for source in ({"docstore": docstore}, {"index": index}, {"index": vectors}):
        assert ids(make(None, similarity_top_k=5, **source).retrieve(QUERY)) == by_list


def test_one_source_of_nodes_is_needed():
    """None or two are errors that say so."""
    with pytest.raises(InvalidInputError, match="got none"):
        BM25Retriever()
    with pytest.raises(InvalidInputError, match="nodes and docstore"):
        BM25Retriever(nodes(), docstore=SimpleDocumentStore())


def test_an_index_whose_store_keeps_the_text_is_refused():
    """Its docstore is empty, and a retriever that finds nothing would not help."""

    class TextStore(SimpleVectorStore):
        stores_text: bool = True

    index = VectorStoreIndex.from_vector_store(TextStore(), embed_model=LetterEmbedding())
    with pytest.raises(InvalidInputError, match=r"TextStore.*nodes="):
        BM25Retriever(index=index)


def test_an_empty_corpus_finds_nothing(make):
    """No nodes are valid input."""
    assert make([]).retrieve(QUERY) == []


def test_a_tool_call_is_read_as_its_query(make):
    """The word "input" of RetrieverTool's wrapping is not searched for."""
    texts = ["The input is missing.", "The museum opens."]
    retriever = make(nodes(texts), similarity_top_k=2)
    plain = retriever.retrieve("museum")
    wrapped = retriever.retrieve("\ninput is museum\n")
    assert [(n.node_id, n.score) for n in wrapped] == [(n.node_id, n.score) for n in plain]


@pytest.mark.parametrize("query", ["", "  \n"])
async def test_a_blank_query_finds_nothing(make, query):
    """Agents call their tools with empty queries; an error would end the run."""
    retriever = make(nodes())
    assert retriever.retrieve(query) == await retriever.aretrieve(query) == []


def test_wrong_input_is_refused_by_position():
    """Elements that are not nodes, and bad options, are named."""
    with pytest.raises(InvalidInputError, match="number 1 is str"):
        BM25Retriever([nodes()[0], "text"])
    with pytest.raises(InvalidInputError, match="similarity_top_k"):
        BM25Retriever(nodes(), similarity_top_k=-1)
    with pytest.raises(InvalidInputError, match="embed_model"):
        FaissRetriever(nodes(), embed_model=len)
    with pytest.raises(InvalidInputError, match="filters"):
        BM25Retriever(nodes(), filters={"a": 1}).retrieve(QUERY)


def test_duplicate_ids_come_back_once(make):
    """LlamaIndex itself keeps the first of several nodes with one id; nothing fails."""
    twins = [TextNode(text="The museum opens.", id_="twin") for _ in range(3)]
    assert ids(make(twins, similarity_top_k=5).retrieve("museum")) == ["twin"]


def test_metadata_are_searched_as_embedders_read_them(make):
    """A title counts, an excluded field does not."""
    given = nodes(["zzz", "yyy"])
    given[1].metadata["title"] = "museum"
    given[0].metadata["nested"] = "museum museum"  # excluded from embedding
    assert ids(make(given, similarity_top_k=1).retrieve("museum")) == ["id-1"]


# --- filters ----------------------------------------------------------------------------------


def where(key: str, value: Any, operator: str = "==") -> MetadataFilter:
    """One filter."""
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


FILTERS = {
    "equal": MetadataFilters(filters=[where("colour", "red")]),
    "greater": MetadataFilters(filters=[where("year", 1950, ">")]),
    "in": MetadataFilters(filters=[where("colour", ["red", "blue"], "in")]),
    "none of": MetadataFilters(filters=[where("colour", ["red"], "nin")]),
    "empty": MetadataFilters(filters=[where("colour", None, "is_empty")]),
    "both": MetadataFilters(filters=[where("colour", "red"), where("year", 1950, ">")]),
    "either": MetadataFilters(
        filters=[where("colour", "red"), where("year", 1950, ">")], condition=FilterCondition.OR
    ),
    "neither": MetadataFilters(
        filters=[where("colour", "red"), where("year", 1950, ">")], condition=FilterCondition.NOT
    ),
    "source": MetadataFilters(filters=[where("doc_id", "doc-1")]),
    "nothing": MetadataFilters(filters=[]),
    "nobody": MetadataFilters(filters=[where("colour", "mauve")]),
}


def coloured() -> list[TextNode]:
    """Thirty nodes that all match the query, of varied metadata."""
    return [
        TextNode(
            text=f"The museum opens. Note {number}.",
            id_=f"id-{number}",
            metadata={
                key: value
                for key, value in {
                    "colour": ("red", "green", "blue", None)[number % 4],
                    "year": 1900 + 7 * number,
                }.items()
                if value is not None
            },
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{number % 3}")},
        )
        for number in range(30)
    ]


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_filters_mean_what_they_mean_in_llama_indexs_own_store(make, name):
    """The nodes that pass are exactly those that SimpleVectorStore lets through."""
    oracle = VectorStoreIndex(coloured(), embed_model=LetterEmbedding()).as_retriever(
        similarity_top_k=30, filters=FILTERS[name], embed_model=LetterEmbedding()
    )
    ours = make(coloured(), similarity_top_k=30, filters=FILTERS[name])
    assert set(ids(ours.retrieve("museum opens"))) == set(ids(oracle.retrieve("museum opens")))


def test_no_node_leaks_when_few_pass(make):
    """With k far above what passes, only what passes comes back."""
    one = MetadataFilters(filters=[where("year", 1900)])
    assert ids(make(coloured(), similarity_top_k=30, filters=one).retrieve("museum")) == ["id-0"]


def test_filters_may_stand_inside_filters(make):
    """LlamaIndex's own in-memory test refuses that; here it is what it says."""
    old_or_blue = MetadataFilters(
        filters=[where("colour", "blue"), where("year", 1910, "<")], condition=FilterCondition.OR
    )
    not_green = MetadataFilters(filters=[where("colour", "green")], condition=FilterCondition.NOT)
    both = MetadataFilters(filters=[old_or_blue, not_green, where("doc_id", "doc-0")])
    got = set(ids(make(coloured(), similarity_top_k=30, filters=both).retrieve("museum")))
    want = {
        node.node_id
        for number, node in enumerate(coloured())
        if (node.metadata.get("colour") == "blue" or node.metadata["year"] < 1910)
        and node.metadata.get("colour") != "green"
        and number % 3 == 0
    }
    assert got == want
    assert want


def test_a_filter_that_cannot_be_compared_names_the_node(make):
    """A year that is text in one node is an error, not a leak and not a silent loss."""
    given = coloured()
    given[4].metadata["year"] = "unknown"
    later = MetadataFilters(filters=[where("year", 1950, ">")])
    with pytest.raises(InvalidInputError, match="'id-4'"):
        make(given, filters=later).retrieve("museum")


# --- BM25 -------------------------------------------------------------------------------------


def test_bm25_brings_only_what_shares_a_word():
    """No passage without a common word fills up the list, with or without filters."""
    retriever = BM25Retriever(nodes(), similarity_top_k=5)
    assert ids(retriever.retrieve("river")) == ["id-0"]
    assert retriever.retrieve("zebra") == []


@pytest.mark.parametrize("engine", ["rank-bm25", "bm25s"])
def test_bm25_scores_are_the_cores(engine):
    """The adapter adds nothing to the score and nothing to the order."""
    retriever = BM25Retriever(nodes(), similarity_top_k=5, engine=engine, language="en")
    core = BM25(TEXTS, engine=engine, language="en").search(QUERY, 5)
    assert [(n.node_id, n.score) for n in retriever.retrieve(QUERY)] == [
        (f"id-{one.key}", one.score) for one in core
    ]


def test_bm25_reads_vowelled_arabic():
    """Vowel signs and the article differ between question and passage; they match."""
    given = [TextNode(text="يَفْتَحُ المُتْحَفُ أَبْوَابَهُ", id_="vowelled"), TextNode(text="كتاب جديد")]
    assert ids(BM25Retriever(given, language="ar").retrieve("متحف")) == ["vowelled"]


# --- FAISS ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_faiss_scores_are_those_of_numpy_and_higher_is_nearer(metric):
    """Every metric agrees with brute force, with the sign turned where it must be."""
    embed = LetterEmbedding()
    vectors = np.array([embed.get_text_embedding(text) for text in TEXTS[:4]])
    query = np.array(embed.get_query_embedding(QUERY))
    want = {
        "cosine": vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
        "inner_product": vectors @ query,
        "l2": -((vectors - query) ** 2).sum(axis=1),
    }[metric]
    plain = [TextNode(text=text, id_=str(key)) for key, text in enumerate(TEXTS[:4])]
    got = FaissRetriever(plain, embed_model=embed, metric=metric, similarity_top_k=4).retrieve(
        QUERY
    )
    assert ids(got) == [str(key) for key in np.argsort(-want, kind="stable")]
    np.testing.assert_allclose([n.score for n in got], np.sort(want)[::-1], rtol=1e-5)


def test_a_query_that_brings_its_vector_is_not_embedded():
    """QueryBundle.embedding is used as it is."""

    class Refusing(LetterEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            raise AssertionError("embedded for nothing")

    retriever = FaissRetriever(nodes(), embed_model=Refusing(), similarity_top_k=1)
    vector = LetterEmbedding().get_query_embedding(TEXTS[2])
    assert ids(retriever.retrieve(QueryBundle("?", embedding=vector))) == ["id-2"]


def test_a_query_may_have_other_words_for_embedding():
    """custom_embedding_strs (of HyDE, for one) stand in for the query, their vectors averaged."""
    retriever = FaissRetriever(nodes(), embed_model=LetterEmbedding(), similarity_top_k=2)
    query = QueryBundle(QUERY, custom_embedding_strs=[TEXTS[0], TEXTS[2]])
    mean = LetterEmbedding().get_agg_embedding_from_queries([TEXTS[0], TEXTS[2]])
    by_vector = retriever.retrieve(QueryBundle(QUERY, embedding=mean))
    got = retriever.retrieve(query)
    assert [(n.node_id, n.score) for n in got] == [(n.node_id, n.score) for n in by_vector]
    assert set(ids(got)) == {"id-0", "id-2"}


# --- hybrid -----------------------------------------------------------------------------------


def test_hybrid_sums_reciprocal_ranks_and_keeps_both_scores():
    """Weighted 1 / (60 + rank), computed here again from what the two retrievers give."""
    words = BM25Retriever(nodes(), similarity_top_k=5)
    vectors = FaissRetriever(nodes(), embed_model=LetterEmbedding(), similarity_top_k=5)
    hybrid = HybridRetriever(
        [words, vectors], weights=[2.0, 1.0], fusion="ranks", similarity_top_k=5
    )
    lists = [words.retrieve(QUERY), vectors.retrieve(QUERY)]
    want: dict[str, float] = {}
    for weight, some in zip((2.0, 1.0), lists, strict=True):
        for rank, node in enumerate(some, start=1):
            want[node.node_id] = want.get(node.node_id, 0.0) + weight / (60 + rank)
    got = hybrid.retrieve(QUERY)
    assert {n.node_id: n.score for n in got} == pytest.approx(want)
    for node in got:
        assert isinstance(node, HybridNodeWithScore)
        assert node.stage_scores == tuple(
            next((n.score for n in some if n.node_id == node.node_id), None) for some in lists
        )
        assert node.stage_ranks == tuple(
            ids(some).index(node.node_id) + 1 if node.node_id in ids(some) else None
            for some in lists
        )


class Listed(BaseRetriever):
    """A retriever of somebody else's that brings its first ``similarity_top_k``."""

    def __init__(self, texts: list[str], similarity_top_k: int) -> None:
        self.texts = texts
        self.similarity_top_k = similarity_top_k
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        texts = self.texts[: self.similarity_top_k]
        return [NodeWithScore(node=TextNode(text=text, id_=text), score=1.0) for text in texts]


def test_hybrid_asks_for_more_than_it_returns_and_changes_no_retriever():
    """A node that is second in both lists wins, so both are asked for ``candidates``."""
    stages = [Listed(["a", "b"], 1), Listed(["c", "b"], 1)]
    hybrid = HybridRetriever(stages, similarity_top_k=1, candidates=2)
    assert ids(hybrid.retrieve(QUERY)) == ["b"]
    assert ids(asyncio.run(hybrid.aretrieve(QUERY))) == ["b"]
    assert [stage.similarity_top_k for stage in stages] == [1, 1]
    assert ids(HybridRetriever(stages, similarity_top_k=3, candidates=1).retrieve(QUERY)) == [
        "b",
        "a",
        "c",
    ]


# The cosine of a zero vector (Arabic has none of the letters) is NaN in LlamaIndex's own store.
zero_vectors = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@zero_vectors
def test_hybrid_takes_any_retriever():
    """LlamaIndex's own vector index beside our BM25."""
    index = VectorStoreIndex(nodes(), embed_model=LetterEmbedding())
    theirs = index.as_retriever(similarity_top_k=5)
    hybrid = HybridRetriever([BM25Retriever(nodes()), theirs], similarity_top_k=5)
    got = hybrid.retrieve(QUERY)
    assert set(ids(got)) == {f"id-{number}" for number in range(5)}
    assert all(len(node.stage_ranks) == 2 for node in got)


def test_stage_scores_survive_reranking():
    """What the two retrievers thought is still there after the cross-encoder."""
    hybrid = HybridRetriever.from_nodes(nodes(), LetterEmbedding())
    reranked = RerankingRetriever(hybrid, reranker=Reranker(OverlapScorer())).retrieve(QUERY)
    assert all(len(node.stage_scores) == 2 for node in reranked)


@pytest.mark.parametrize(
    "options",
    [
        {"retrievers": []},
        {"retrievers": ["bm25"]},
        {"weights": [1.0, 2.0]},
        {"weights": [0.0]},
        {"rank_constant": -1},
        {"candidates": 0},
        {"similarity_top_k": -1},
    ],
)
def test_bad_options_of_a_hybrid_are_refused_at_once(options):
    """Nothing waits for the first query."""
    with pytest.raises(InvalidInputError):
        HybridRetriever(**{"retrievers": [BM25Retriever(nodes())], **options})


# --- reranking --------------------------------------------------------------------------------


def test_reranking_gives_the_best_of_many_candidates(make):
    """The result is what the postprocessor makes of all that the first stage can bring."""
    reranker = Reranker(OverlapScorer())
    first = make(nodes(), similarity_top_k=1)
    got = RerankingRetriever(first, reranker=reranker, similarity_top_k=3).retrieve(QUERY)
    candidates = make(nodes(), similarity_top_k=5).retrieve(QUERY)
    want = CrossEncoderPostprocessor(reranker=reranker, top_n=3).postprocess_nodes(
        candidates, query_str=QUERY
    )
    assert [n.model_dump() for n in got] == [n.model_dump() for n in want]
    assert first.similarity_top_k == 1


async def test_reranking_async_gives_the_same(make):
    """The results of aretrieve and retrieve agree."""
    retriever = RerankingRetriever(make(nodes()), reranker=Reranker(OverlapScorer()))
    assert [n.model_dump() for n in await retriever.aretrieve(QUERY)] == [
        n.model_dump() for n in retriever.retrieve(QUERY)
    ]


def test_the_number_of_candidates_is_what_is_scored():
    """``candidates`` bounds the pairs; None leaves the first stage its own number."""
    for candidates, scored in ((3, 3), (1, 2), (None, 4)):
        scorer = OverlapScorer()
        first = FaissRetriever(nodes(), embed_model=LetterEmbedding(), similarity_top_k=4)
        RerankingRetriever(
            first, reranker=Reranker(scorer), similarity_top_k=2, candidates=candidates
        ).retrieve(QUERY)
        assert scorer.pairs_seen == scored


@zero_vectors
def test_the_vector_index_of_llama_index_is_a_first_stage():
    """Its retriever is asked for the candidates through its own similarity_top_k."""
    index = VectorStoreIndex(nodes(), embed_model=LetterEmbedding())
    theirs = index.as_retriever(similarity_top_k=1)
    scorer = OverlapScorer()
    got = RerankingRetriever(theirs, reranker=Reranker(scorer)).retrieve(QUERY)
    assert (scorer.pairs_seen, len(got), theirs.similarity_top_k) == (5, 2, 1)


class Fixed(BaseRetriever):
    """A retriever of somebody else's, with no similarity_top_k."""

    def __init__(self, brings: list[NodeWithScore], **fields: Any) -> None:
        self.brings = brings
        super().__init__(**fields)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(self.brings)


def test_any_retriever_is_a_first_stage():
    """One without a similarity_top_k brings what it brings, and its nodes stay as they are."""
    brings = found()
    before = [node.model_dump() for node in brings]
    got = RerankingRetriever(Fixed(brings), reranker=Reranker(OverlapScorer())).retrieve(QUERY)
    assert ids(got) == ids(
        CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()), top_n=2).postprocess_nodes(
            found(), query_str=QUERY
        )
    )
    assert [node.model_dump() for node in brings] == before


def test_a_ready_postprocessor_reranks():
    """Its settings are used; how many come back is the retriever's own."""
    ready = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()), details=(), top_n=1)
    got = RerankingRetriever(BM25Retriever(nodes()), postprocessor=ready).retrieve(QUERY)
    assert len(got) == 2
    assert all("rerank_rank" not in node.metadata for node in got)


@pytest.mark.parametrize(
    "options",
    [
        {"first_stage": "bm25"},
        {"top_n": 3, "similarity_top_k": 2},
        {"similarity_top_k": "2"},
        {"candidates": -1},
        {"device": "cpu"},
        {"postprocessor": CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()))},
    ],
)
def test_bad_options_of_reranking_are_refused_at_once(options):
    """Unknown, doubled and impossible options are named when the retriever is made."""
    given = {"first_stage": Fixed([]), "reranker": Reranker(OverlapScorer()), **options}
    with pytest.raises(InvalidInputError):
        RerankingRetriever(**given)


# --- nodes that stand for something else ------------------------------------------------------


class ZeroEmbedding(LetterEmbedding):
    """Texts about rivers are at a right angle to everything."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [0.0, 1.0] if "river" in text else [1.0, 0.0]


def test_a_score_of_zero_does_not_become_the_best():
    """LlamaIndex reads a 0.0 as missing and makes it 1.0 when it goes on to an object."""
    behind = TextNode(text="The river is long.", id_="behind")
    given = [
        IndexNode(text="The river.", index_id="i", obj=behind, id_="stands for"),
        TextNode(text="The museum.", id_="museum"),
    ]
    retriever = FaissRetriever(given, embed_model=ZeroEmbedding(), similarity_top_k=2)
    got = {node.node_id: node.score for node in retriever.retrieve("museum")}
    assert got["museum"] == 1.0
    assert 0.0 < got["behind"] < 1e-300


def test_index_nodes_lead_on_to_their_objects(make):
    """A retriever behind an IndexNode is asked, in both ways, and then reranked."""
    behind = Fixed([NodeWithScore(node=TextNode(text="The museum opens.", id_="deep"), score=0.3)])
    given = [IndexNode(text="museum", index_id="i", obj=behind), *nodes(["A river."])]
    first = make(given, similarity_top_k=2)
    assert "deep" in ids(first.retrieve("museum"))
    assert "deep" in ids(asyncio.run(first.aretrieve("museum")))
    reranked = RerankingRetriever(first, reranker=Reranker(OverlapScorer())).retrieve(
        "museum opens"
    )
    assert reranked[0].node_id == "deep"


def test_objects_can_be_given_beside_the_nodes():
    """object_map is that of any retriever: an index drops objects from the nodes it stores."""
    behind = TextNode(text="The museum opens.", id_="deep")
    given = [IndexNode(text="museum", index_id="i")]
    retriever = BM25Retriever(given, object_map={"i": behind})
    assert ids(retriever.retrieve("museum")) == ["deep"]


async def test_sixty_four_coroutines_share_one_retriever(make):
    """Searches at the same time do not disturb one another."""
    retriever = RerankingRetriever(make(nodes()), reranker=Reranker(OverlapScorer()))
    queries = [TEXTS[number % 4] for number in range(64)]
    together = await asyncio.gather(*(retriever.aretrieve(query) for query in queries))
    alone = {query: retriever.retrieve(query) for query in set(queries)}
    for query, got in zip(queries, together, strict=True):
        assert [(n.node_id, n.score) for n in got] == [(n.node_id, n.score) for n in alone[query]]
