"""BM25Retriever: scores, copies, k, filters, languages."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.langchain import BM25Retriever

standard = pytest.importorskip("langchain_tests.integration_tests")


class TestStandard(standard.RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    retriever_constructor = BM25Retriever
    retriever_query_example = "museum"

    @property
    def retriever_constructor_params(self):
        """Enough documents that match."""
        texts = ("museum one", "the museum two", "museum three three", "a museum", "bread")
        return {"documents": [Document(page_content=text) for text in texts]}


@pytest.fixture(params=["rank-bm25", "bm25s"])
def retriever(request, documents):
    """One of each engine."""
    if request.param == "bm25s":
        pytest.importorskip("bm25s")
    return BM25Retriever.from_documents(documents, engine=request.param, k=10)


def test_what_matches_comes_back_scored_and_the_rest_does_not(retriever, documents, query):
    """Score, rank and method are native; documents without a common word stay away."""
    found = retriever.invoke(query)
    assert {document.id for document in found} == {"id-1", "id-2", "id-3"}
    oracle = BM25([document.page_content for document in documents])
    for document, candidate in zip(found, oracle.search(query, 10), strict=True):
        assert document.id == f"id-{candidate.key}"
        assert document.metadata == {
            "number": candidate.key,
            "retrieval_score": pytest.approx(candidate.score),
            "retrieval_rank": candidate.rank,
            "retrieval_method": "bm25",
            "retrieval_list": found[0].metadata["retrieval_list"],
        }
    assert json.loads(json.dumps([document.metadata for document in found]))


def test_documents_are_copied_in_metadata_at_least(retriever, documents, make_documents, query):
    """Writing to what comes back changes neither the index nor the caller's documents."""
    for document in retriever.invoke(query):
        document.metadata["mine"] = True
    assert documents == make_documents()
    assert all("mine" not in document.metadata for document in retriever.invoke(query))


async def test_async_gives_the_same(retriever, query):
    """Many at once, too."""
    results = await asyncio.gather(*(retriever.ainvoke(query, k=2) for _ in range(20)))
    assert all(result == retriever.invoke(query, k=2) for result in results)


def test_batch_gives_the_same(retriever, query):
    """Runnables batch in threads."""
    queries = [query, "bread", "last tram"]
    assert retriever.batch(queries) == [retriever.invoke(one) for one in queries]


@pytest.mark.parametrize(("k", "count"), [(0, 0), (1, 1), (2, 2), (99, 3)])
def test_k_holds_for_one_call(retriever, query, k, count):
    """Zero is a k, and so is more than there is."""
    assert len(retriever.invoke(query, k=k)) == count


@pytest.mark.parametrize("k", [-1, 1.5, "3", True])
def test_a_bad_k_is_an_error(documents, query, k):
    """In the constructor at once, and in the call."""
    with pytest.raises(InvalidInputError, match="k must be"):
        BM25Retriever(documents=documents, k=k)
    with pytest.raises(InvalidInputError, match="k must be"):
        BM25Retriever(documents=documents).invoke(query, k=k)


def test_a_misspelt_option_is_an_error(documents):
    """Not passed over."""
    with pytest.raises(InvalidInputError, match="BM25Retriever has no option 'top_k'"):
        BM25Retriever(documents=documents, top_k=3)


class TestFilter:
    def test_a_dict_asks_for_equal_metadata(self, retriever, query):
        """All of it; a key that a document lacks equals nothing, not even None."""
        assert [one.id for one in retriever.invoke(query, filter={"number": 2})] == ["id-2"]
        assert retriever.invoke(query, filter={"number": 2, "year": 1}) == []
        assert retriever.invoke(query, filter={"absent": None}) == []
        assert len(retriever.invoke(query, filter={})) == 3

    def test_a_function_sees_the_document(self, retriever, query):
        """Anything can be asked of it, its id too."""
        kept = retriever.invoke(query, filter=lambda document: document.id != "id-3")
        assert {one.id for one in kept} == {"id-1", "id-2"}

    def test_the_constructors_filter_holds_unless_the_call_has_one(self, documents, query):
        """One place to set it for good."""
        retriever = BM25Retriever(documents=documents, filter={"number": 1})
        assert [one.id for one in retriever.invoke(query)] == ["id-1"]
        assert [one.id for one in retriever.invoke(query, filter={"number": 2})] == ["id-2"]

    @pytest.mark.parametrize("bad", ["number", 7, [("number", 2)]])
    def test_what_cannot_filter_is_an_error(self, retriever, query, bad):
        """Passing it over would leak documents."""
        with pytest.raises(InvalidInputError, match="filter must be a dict"):
            retriever.invoke(query, filter=bad)

    def test_a_misspelt_filter_is_an_error(self, retriever, query):
        """Not an unfiltered answer."""
        with pytest.raises(InvalidInputError, match="unknown option: filters"):
            retriever.invoke(query, filters={"number": 2})

    @settings(max_examples=40, deadline=None)
    @given(
        owners=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=12),
        k=st.integers(0, 15),
    )
    def test_never_leaks_and_always_fills_k(self, owners, k):
        """Whatever k is, all that comes back passes, and as many as pass and fit do."""
        documents = [
            Document(page_content=f"museum {'x ' * number}", metadata={"owner": owner})
            for number, owner in enumerate(owners)
        ]
        found = BM25Retriever(documents=documents).invoke("museum", k=k, filter={"owner": "a"})
        assert {document.metadata["owner"] for document in found} <= {"a"}
        assert len(found) == min(k, owners.count("a"))


class TestInputs:
    def test_arabic_word_forms_meet(self):
        """With vowel signs or without, plural or article."""
        retriever = BM25Retriever.from_texts(
            ["يفتح المُتْحَفُ أبوابه في التاسعة.", "يُزرع الزيتون في السفوح."]
        )
        (found,) = retriever.invoke("متى تفتح المتاحف والمتحف؟")
        assert found.page_content.startswith("يفتح")

    @pytest.mark.parametrize("texts", [[], [""], ["", "   "], ["\x00", "\u202e"]])
    def test_a_corpus_of_nothing_finds_nothing(self, texts):
        """Having no documents yet is not an error."""
        assert BM25Retriever.from_texts(texts).invoke("museum") == []

    def test_generators_are_read_once_and_wholly(self, documents):
        """Both constructors."""
        from_documents = BM25Retriever.from_documents(document for document in documents)
        from_texts = BM25Retriever.from_texts(document.page_content for document in documents)
        assert len(from_documents.invoke("museum")) == len(from_texts.invoke("museum")) == 3

    def test_texts_come_with_metadata_and_ids(self):
        """As many of each."""
        (found,) = BM25Retriever.from_texts(
            ["museum", "bread"], [{"a": 1}, {"a": 2}], ids=["x", "y"]
        ).invoke("bread")
        assert found.id == "y"
        assert found.metadata["a"] == 2
        with pytest.raises(InvalidInputError, match="2 texts, 1 metadatas and 2 ids"):
            BM25Retriever.from_texts(["museum", "bread"], [{"a": 1}])
        with pytest.raises(InvalidInputError, match="one string"):
            BM25Retriever.from_texts("museum")

    @pytest.mark.parametrize("query", ["", " \t"])
    async def test_a_blank_query_finds_nothing(self, retriever, query):
        """Agents call their tools with empty queries; an error would end the graph."""
        assert retriever.invoke(query) == await retriever.ainvoke(query) == []
        with pytest.raises(InvalidInputError, match="query must be text"):
            retriever.invoke(None)

    def test_a_ready_index_must_fit_the_documents(self, documents):
        """It is taken as it is when it does."""
        texts = [document.page_content for document in documents]
        ready = BM25(texts, language="en")
        assert BM25Retriever(documents=documents, bm25=ready).bm25 is ready
        with pytest.raises(InvalidInputError, match="5 passages for 6 records"):
            BM25Retriever(documents=documents, bm25=BM25(texts[1:]))


def test_configurable_fields_keep_the_index(documents, query):
    """A run-time k does not index anew, and keeps the options."""
    retriever = BM25Retriever(documents=documents, language="en")
    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))
    found = configurable.invoke(query, {"configurable": {"k": 1}})
    assert found == retriever.invoke(query, k=1)
    prepared, _ = configurable.prepare({"configurable": {"k": 1}})
    assert prepared.bm25 is retriever.bm25


def test_the_repr_does_not_list_the_documents(documents):
    """Traces and logs carry it, and a corpus is long."""
    assert "museum" not in repr(BM25Retriever(documents=documents))
