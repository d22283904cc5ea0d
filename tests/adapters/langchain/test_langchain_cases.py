"""What outside use tried: indexing, stamps, copies, tools, schemas, async encoders."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.language_models import FakeListLLM
from langchain_core.runnables import RunnableParallel
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
)
from langchain_core.tools import create_retriever_tool

from rerank_plugins import Candidate, Ranked, Ranking
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import (
    BM25Retriever,
    CrossEncoderCompressor,
    FaissVectorStore,
    FilterTranslator,
    HybridRetriever,
    RerankingRetriever,
    format_context,
)
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

classic = pytest.importorskip("langchain_classic.retrievers")


class Letters(Embeddings):
    """Counts letters, and how often it is awaited."""

    def __init__(self):
        self.awaited = 0

    def embed_documents(self, texts):
        """Shape (texts, 26)."""
        return [[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts]

    def embed_query(self, text):
        """Shape (26,)."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts):
        """The same."""
        self.awaited += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text):
        """The same."""
        self.awaited += 1
        return self.embed_query(text)


def document(name, text="the museum", **metadata):
    """One with an id."""
    return Document(id=name, page_content=text, metadata=metadata)


DOCUMENTS = [
    document(str(n), f"the museum {n} {'opens ' * (n % 4)}{'at nine ' * (n % 3)}", n=n)
    for n in range(12)
]

MAKERS = {
    "bm25": lambda documents, **options: BM25Retriever(documents=documents, **options),
    "faiss": lambda documents, **options: FaissVectorStore.from_documents(
        documents, Letters()
    ).as_retriever(**options),
    "hybrid": lambda documents, **options: HybridRetriever.from_documents(
        documents, Letters(), **options
    ),
}


@pytest.fixture(params=MAKERS)
def make(request):
    """Each of the first stages."""
    return MAKERS[request.param]


class TestIndexing:
    @pytest.mark.parametrize("cleanup", [None, "incremental", "full", "scoped_full"])
    @pytest.mark.parametrize("way", ["sync", "async"])
    async def test_index_writes_skips_replaces_and_cleans_up(self, cleanup, way):
        """LangChain's record manager over the store, in all four modes of cleaning up."""
        store = FaissVectorStore(Letters())
        manager = InMemoryRecordManager("museum")
        manager.create_schema()

        async def write(*documents):
            options = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}
            if way == "sync":
                return index(list(documents), manager, store, batch_size=2, **options)
            return await aindex(list(documents), manager, store, batch_size=2, **options)

        def one(text, source):
            return Document(page_content=text, metadata={"source": source})

        first = await write(one("a1", "a"), one("a2", "a"), one("b1", "b"))
        assert first["num_added"] == len(store) == 3
        again = await write(one("a1", "a"), one("a2", "a"), one("b1", "b"))
        assert (again["num_added"], again["num_skipped"], len(store)) == (0, 3, 3)
        await write(one("a1", "a"), one("a3", "a"))
        left = {found.page_content for found in store.documents}
        assert (
            left
            == {
                None: {"a1", "a2", "a3", "b1"},
                "incremental": {"a1", "a3", "b1"},
                "full": {"a1", "a3"},
                "scoped_full": {"a1", "a3", "b1"},
            }[cleanup]
        )

    async def test_every_door_adds_gets_and_deletes(self, make):
        """By id and by metadata, sync and async, with ids that are whole numbers."""
        retriever = make(DOCUMENTS)
        assert retriever.add_documents([document(None, "the museum new")], ids=[77]) == ["77"]
        (name,) = await retriever.aadd_documents([document(None, "the museum newer", n=99)])
        assert [one.id for one in retriever.get_by_ids([77, "unknown", name])] == ["77", name]
        assert [one.id for one in await retriever.aget_by_ids(["77"])] == ["77"]
        assert name in {one.id for one in retriever.invoke("museum newer", k=50)}
        retriever.delete([77])
        await retriever.adelete(filter={"n": 99})
        assert retriever.get_by_ids(["77", name]) == []
        retriever.delete(filter={"n": {"$lt": 6}})
        assert {one.metadata["n"] for one in retriever.invoke("museum", k=50)} == set(range(6, 12))
        with pytest.raises(InvalidInputError, match="not by both"):
            retriever.delete(["1"], filter={"n": 1})
        with pytest.raises(InvalidInputError, match="unknown option: batch"):
            retriever.add_documents([], batch=3)
        retriever.delete()
        assert retriever.documents == []

    @pytest.mark.parametrize("bad", ["\ud800", "", "x" * 5000])
    def test_ids_are_checked_at_the_door(self, make, bad):
        """One half of a surrogate pair ends other people's processes later."""
        retriever = make(DOCUMENTS)
        with pytest.raises(InvalidInputError, match="every id must"):
            retriever.add_documents([document("x")], ids=[bad])


class TestStamps:
    def _scores(self, documents, query="museum opens 3"):
        compressor = CrossEncoderCompressor(
            reranker=Reranker(OverlapScorer(first_stage_weight=0.7))
        )
        return {
            one.id: one.metadata["relevance_score"]
            for one in compressor.compress_documents(documents, query)
        }

    def test_are_believed_for_their_own_query_and_list(self, make):
        """Blending needs first-stage scores, and has them there."""
        query = "museum opens 3"
        found = make(DOCUMENTS).invoke(query, k=5)
        plain = [document(one.id, one.page_content) for one in found]
        assert self._scores(found) != pytest.approx(self._scores(plain))
        # Also when the list was thinned or turned round in between.
        assert self._scores(found[::-1]) == pytest.approx(self._scores(found))

    def test_are_not_believed_for_another_query_or_another_list(self, make):
        """Documents gathered from two queries, or from two retrievers, are judged alone."""
        query = "museum opens 3"
        retriever = make(DOCUMENTS)
        other = retriever.invoke("the museum opens", k=5)
        gathered = {one.id: one for one in [*retriever.invoke(query, k=3), *other]}.values()
        twice = [
            *BM25Retriever(documents=DOCUMENTS[:6]).invoke(query),
            *BM25Retriever(documents=DOCUMENTS[6:]).invoke(query),
        ]
        for found in (other, list(gathered), twice):
            plain = [document(one.id, one.page_content) for one in found]
            assert self._scores(found) == pytest.approx(self._scores(plain))

    def test_of_others_are_believed_where_they_can_be_of_one_list(self):
        """Ranks that repeat, or scores that rise, cannot."""

        def stamped(*pairs):
            return [
                document(
                    str(at),
                    f"museum {'x ' * at}",
                    retrieval_score=score,
                    **({} if rank is None else {"retrieval_rank": rank}),
                )
                for at, (score, rank) in enumerate(pairs)
            ]

        def believed(found):
            plain = [document(one.id, one.page_content) for one in found]
            return self._scores(found) != pytest.approx(self._scores(plain))

        assert believed(stamped((9.0, 1), (8.0, 2), (1.0, 3)))
        assert believed(stamped((9.0, None), (8.0, None), (1.0, None)))
        assert not believed(stamped((9.0, 1), (5.0, 2), (8.0, 1), (2.0, 2)))
        assert not believed(stamped((9.0, None), (5.0, None), (8.0, None)))

    def test_multi_query_brings_no_duplicates_without_stamps(self, make):
        """It compares whole documents; those that carry scores of a query differ."""
        questions = FakeListLLM(responses=["museum opens\nthe museum 3\nmuseum"])
        plain = make(DOCUMENTS, stamp=False, k=6)
        assert plain.invoke("museum", k=2)[0] in DOCUMENTS
        found = classic.MultiQueryRetriever.from_llm(plain, questions).invoke("museum")
        assert len({one.id for one in found}) == len(found) > 6
        compressor = CrossEncoderCompressor(reranker=Reranker(OverlapScorer()), top_n=3)
        best = classic.ContextualCompressionRetriever(
            base_compressor=compressor,
            base_retriever=classic.MultiQueryRetriever.from_llm(plain, questions),
        ).invoke("museum opens 3")
        assert len({one.id for one in best}) == 3

    async def test_what_several_queries_found_is_reranked_once(self, make):
        """With stamps too; what only looks the same stays, since it may be of two sources."""
        questions = FakeListLLM(responses=["museum opens\nthe museum 3\nmuseum"])
        gathered = classic.MultiQueryRetriever.from_llm(make(DOCUMENTS, k=6), questions)
        scorer = Reranker(OverlapScorer())
        retriever = RerankingRetriever(gathered, reranker=scorer, k=20)
        for found in (retriever.invoke("museum"), await retriever.ainvoke("museum")):
            assert len({one.id for one in found}) == len(found) > 6
        a, b = make([document("a", "museum", team="a")]), make([document("b", "museum", team="b")])
        alike = [*a.invoke("museum"), *b.invoke("museum"), *a.invoke("the museum")]
        alike += [*a.invoke("museum"), document("a", "museum", team="a")]
        found = CrossEncoderCompressor(reranker=scorer).compress_documents(alike, "museum")
        assert [one.id for one in found] == ["a", "b", "a", "a"]


class TestCopies:
    def test_nested_metadata_are_nobody_elses(self, make):
        """Writing to a result, or to what was added, changes neither store nor filters."""
        mine = document("x", readers=["ann"], more={"a": [1]})
        retriever = make([mine])
        (found,) = retriever.invoke("museum")
        for one in (found, *retriever.documents, *retriever.get_by_ids(["x"]), mine):
            one.metadata["readers"].append("eve")
            one.metadata["more"]["a"].append(2)
        assert retriever.invoke("museum", filter={"readers": "eve"}) == []
        (again,) = retriever.invoke("museum", filter={"readers": "ann"})
        assert again.metadata["more"] == {"a": [1]}

    def test_reranked_documents_are_copied_deeply(self):
        """By the compressor too."""
        mine = document("x", readers=["ann"])
        compressor = CrossEncoderCompressor(reranker=Reranker(OverlapScorer()))
        compressor.compress_documents([mine], "museum")[0].metadata["readers"].append("eve")
        assert mine.metadata == {"readers": ["ann"]}

    @pytest.mark.parametrize(
        "way",
        [
            copy.deepcopy,
            lambda one: pickle.loads(pickle.dumps(one)),
            lambda one: one.model_copy(deep=True),
        ],
        ids=["deepcopy", "pickle", "model_copy"],
    )
    def test_retrievers_are_copied_and_pickled(self, make, way):
        """They work on the other side, and go their own ways from there."""
        retriever = make(DOCUMENTS)
        other = way(retriever)
        assert other.invoke("museum opens", k=5) == retriever.invoke("museum opens", k=5)
        other.add_documents([document("new")])
        retriever.delete(["3"])
        assert retriever.get_by_ids(["new"]) == []
        assert [one.id for one in other.get_by_ids(["new", "3"])] == ["new", "3"]

    def test_stores_and_reranking_retrievers_too(self):
        """With a scorer that can be pickled."""
        store = pickle.loads(pickle.dumps(FaissVectorStore.from_documents(DOCUMENTS, Letters())))
        assert len(copy.deepcopy(store).similarity_search("museum", k=50)) == 12
        reranking = RerankingRetriever(
            first_stage=store.as_retriever(), reranker=Reranker(OverlapScorer()), k=3
        )
        for other in (copy.deepcopy(reranking), pickle.loads(pickle.dumps(reranking))):
            assert other.invoke("museum 3") == reranking.invoke("museum 3")


class TestTools:
    @pytest.mark.parametrize("query", ["", " \n"])
    async def test_empty_queries_of_tools_find_nothing(self, make, query):
        """An error would end the agent's graph."""
        reranking = RerankingRetriever(
            first_stage=make(DOCUMENTS), reranker=Reranker(OverlapScorer())
        )
        for retriever in (make(DOCUMENTS), reranking):
            tool = create_retriever_tool(retriever, "museum", "Museum pages.")
            assert tool.invoke({"query": query}) == ""
            assert await tool.ainvoke({"query": query}) == ""
            assert "museum" in tool.invoke({"query": "museum"})

    def test_format_context_has_schemas_and_is_a_tool(self):
        """PydanticUserError before."""
        runnable = format_context(max_tokens=100)
        assert runnable.get_input_jsonschema()["type"] == "array"
        assert runnable.get_output_jsonschema()["type"] == "string"
        assert RunnableParallel(context=runnable).get_input_jsonschema()
        assert runnable.get_name() == "format_context"
        tool = runnable.as_tool(description="Packs documents.")
        assert "documents" in tool.args
        given = [Document(page_content="The museum opens.")]
        assert tool.invoke({"documents": given}) == runnable.invoke(given)
        chain = BM25Retriever(documents=DOCUMENTS) | runnable
        assert "museum" in chain.as_tool(name="x", description="y").invoke("museum")


class TestVectorStore:
    def test_options_of_langchains_stores_are_taken(self):
        """score_threshold, fetch_k and relevance_score_fn."""
        store = FaissVectorStore.from_documents(
            DOCUMENTS, Letters(), relevance_score_fn=lambda score: score / 2
        )
        found = store.similarity_search_with_score("museum opens", k=12, fetch_k=50)
        least = found[4][1]
        kept = store.similarity_search_with_score("museum opens", k=12, score_threshold=least)
        assert kept == found[: len(kept)]
        assert all(score >= least for _, score in kept)
        relevant = store.similarity_search_with_relevance_scores("museum opens", k=3)
        assert [score for _, score in relevant] == [score / 2 for _, score in found[:3]]
        with pytest.raises(InvalidInputError, match="fetch_k"):
            store.similarity_search("museum", fetch_k=-1)

    async def test_async_encoders_are_awaited(self):
        """Of queries and of documents; sync and async agree."""
        embedding = Letters()
        store = await FaissVectorStore.afrom_documents(DOCUMENTS, embedding)
        assert embedding.awaited == 1
        assert await store.asimilarity_search("museum 3") == store.similarity_search("museum 3")
        assert embedding.awaited == 2
        retriever = store.as_retriever()
        assert await retriever.ainvoke("museum 3") == retriever.invoke("museum 3")
        assert embedding.awaited == 3
        mmr = await store.amax_marginal_relevance_search("museum 3", k=2)
        assert mmr == store.max_marginal_relevance_search("museum 3", k=2)
        assert embedding.awaited == 4


class TestSelfQuery:
    def test_structured_queries_become_filters(self, make):
        """And the filters find what they say."""
        translated = FilterTranslator().visit_structured_query(
            StructuredQuery(
                query="museum",
                filter=Operation(
                    operator=Operator.AND,
                    arguments=[
                        Comparison(comparator=Comparator.GTE, attribute="n", value=3),
                        Operation(
                            operator=Operator.NOT,
                            arguments=[
                                Comparison(comparator=Comparator.IN, attribute="n", value=[4, 5])
                            ],
                        ),
                    ],
                ),
            )
        )
        assert translated == (
            "museum",
            {"filter": {"$and": [{"n": {"$gte": 3}}, {"$not": {"n": {"$in": [4, 5]}}}]}},
        )
        query, arguments = translated
        found = make(DOCUMENTS).invoke(query, k=50, **arguments)
        assert {one.metadata["n"] for one in found} == {3, 6, 7, 8, 9, 10, 11}

    def test_dates_containment_and_no_filter(self):
        """The other visits."""
        visit = FilterTranslator()
        when = Comparison(
            comparator=Comparator.GT, attribute="day", value={"type": "date", "date": "2024-01-01"}
        )
        assert when.accept(visit) == {"day": {"$gt": "2024-01-01"}}
        holds = Comparison(comparator=Comparator.CONTAIN, attribute="tags", value="a")
        assert holds.accept(visit) == {"tags": {"$contains": "a"}}
        assert visit.visit_structured_query(StructuredQuery(query="q", filter=None)) == ("q", {})
        with pytest.raises(ValueError, match="disallowed"):
            Comparison(comparator=Comparator.LIKE, attribute="a", value="b").accept(visit)

    def test_langchains_retriever_uses_it(self):
        """A language model's answer, read by LangChain's own parser."""
        pytest.importorskip("lark")
        self_query = pytest.importorskip("langchain_classic.retrievers.self_query.base")
        info = pytest.importorskip("langchain_classic.chains.query_constructor.schema")
        answer = (
            '```json\n{"query": "museum", "filter": "and(gte(\\"n\\", 9), ne(\\"n\\", 10))"}\n```'
        )
        retriever = self_query.SelfQueryRetriever.from_llm(
            FakeListLLM(responses=[answer]),
            FaissVectorStore.from_documents(DOCUMENTS, Letters()),
            "Museum pages",
            [info.AttributeInfo(name="n", description="number", type="integer")],
            structured_query_translator=FilterTranslator(),
        )
        assert {one.metadata["n"] for one in retriever.invoke("museum after eight")} == {9, 11}


OWNERS = st.sampled_from(["a", "b", None])


@settings(max_examples=30, deadline=None)
@given(owners=st.lists(OWNERS, min_size=1, max_size=10), k=st.integers(0, 12))
def test_filters_never_leak_and_fill_k(owners, k):
    """With operators, through a hybrid."""
    documents = [
        Document(
            id=str(at), page_content=f"museum {at}", metadata={} if one is None else {"o": one}
        )
        for at, one in enumerate(owners)
    ]
    hybrid = HybridRetriever.from_documents(documents, Letters())
    found = hybrid.invoke("museum", k=k, filter={"o": {"$ne": "a"}})
    assert "a" not in {one.metadata.get("o") for one in found}
    assert len(found) == min(k, sum(one != "a" for one in owners))


def test_a_ranking_in_langgraph_state_comes_back():
    """Strict msgpack: where the state names the type, and by `Ranking.from_dict` elsewhere."""
    jsonplus = pytest.importorskip("langgraph.checkpoint.serde.jsonplus")
    item = Ranked(Candidate(3, "text", 1.5, 2), 0.5, 0.1, 1, span=(0, 4))
    ranking = Ranking("q", (item,), "m", "probability", 1)
    strict = jsonplus.JsonPlusSerializer(allowed_msgpack_modules=None)
    told = strict.with_msgpack_allowlist([Ranking, Ranked, Candidate])
    assert told.loads_typed(told.dumps_typed(ranking)) == ranking
    back = strict.loads_typed(strict.dumps_typed(ranking))
    assert Ranking.from_dict(back) == ranking
    assert Ranking.from_dict(json.loads(json.dumps(ranking.to_dict()))) == ranking
    with pytest.raises(InvalidInputError, match="must be a dict as"):
        Ranking.from_dict({"query": "q"})
