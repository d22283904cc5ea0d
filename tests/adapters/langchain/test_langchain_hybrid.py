"""HybridRetriever: fusion, identity, scores, options of the inner retrievers."""

from __future__ import annotations

import json

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25, Dense, Hybrid
from rerank_plugins.langchain import BM25Retriever, FaissVectorStore, HybridRetriever

standard = pytest.importorskip("langchain_tests.integration_tests")

EMBEDDING = DeterministicFakeEmbedding(size=8)


class Fixed(BaseRetriever):
    """Gives the documents that it was made with; takes no k."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


def _fixed(*texts, ids=True):
    return Fixed(
        documents=[Document(id=text if ids else None, page_content=text) for text in texts]
    )


class TestStandard(standard.RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    retriever_constructor = HybridRetriever
    retriever_query_example = "museum"

    @property
    def retriever_constructor_params(self):
        """Words and vectors over five documents."""
        texts = ["museum one", "the museum two", "museum three", "a museum", "bread"]
        return {
            "retrievers": [
                BM25Retriever.from_texts(texts),
                FaissVectorStore.from_texts(texts, EMBEDDING).as_retriever(),
            ]
        }


class TestFusion:
    def test_is_the_weighted_sum_of_reciprocal_ranks(self):
        """Worked out by hand, ties in the order in which documents were first met."""
        hybrid = HybridRetriever(
            retrievers=[_fixed("a", "b", "c"), _fixed("c", "d")],
            weights=[1.0, 2.0],
            fusion="ranks",
            k=10,
        )
        found = hybrid.invoke("q")
        expected = {"c": 1 / 63 + 2 / 61, "d": 2 / 62, "a": 1 / 61, "b": 1 / 62}
        assert [one.id for one in found] == list(expected)
        assert [one.metadata["retrieval_score"] for one in found] == pytest.approx(
            list(expected.values())
        )
        assert [one.metadata["stage_ranks"] for one in found] == [
            [3, 1],
            [None, 2],
            [1, None],
            [2, None],
        ]
        assert [one.metadata["retrieval_rank"] for one in found] == [1, 2, 3, 4]
        assert {one.metadata["retrieval_method"] for one in found} == {"hybrid"}

    async def test_keeps_the_scores_of_every_stage(self, documents, query):
        """BM25's and FAISS's own, native, None where a stage did not find the document."""
        words = BM25Retriever.from_documents(documents, k=10)
        vectors = FaissVectorStore.from_documents(documents, EMBEDDING).as_retriever(k=10)
        found = HybridRetriever(retrievers=[words, vectors], k=6).invoke(query)
        own = [
            {one.id: one.metadata["retrieval_score"] for one in stage.invoke(query)}
            for stage in (words, vectors)
        ]
        assert len(found) == 6
        for document in found:
            assert document.metadata["stage_scores"] == [stage.get(document.id) for stage in own]
        assert json.loads(json.dumps([one.metadata for one in found]))
        assert found == await HybridRetriever(retrievers=[words, vectors], k=6).ainvoke(query)

    def test_what_one_retriever_brings_twice_counts_once(self):
        """Duplicates cannot vote twice, nor push others down."""
        twice = HybridRetriever(retrievers=[_fixed("a", "a", "b"), _fixed("b")], k=5).invoke("q")
        once = HybridRetriever(retrievers=[_fixed("a", "b"), _fixed("b")], k=5).invoke("q")
        assert twice == once
        assert [one.id for one in twice] == ["b", "a"]

    def test_documents_are_the_same_by_text_where_an_id_is_missing(self):
        """A retriever that loses ids still agrees with one that keeps them."""
        found = HybridRetriever(
            retrievers=[_fixed("a", "b"), _fixed("b", "a", ids=False)], k=5
        ).invoke("q")
        assert len(found) == 2
        assert {one.id for one in found} == {"a", "b"}

    def test_one_id_with_two_texts_is_two_documents(self):
        """Chunks under their source's id do not collapse."""
        chunks = Fixed(documents=[Document(id="1", page_content=text) for text in ("x", "y")])
        assert len(HybridRetriever(retrievers=[chunks, chunks], k=5).invoke("q")) == 2

    def test_inputs_are_not_changed(self):
        """The inner retrievers' documents stay as they are."""
        inner = _fixed("a")
        HybridRetriever(retrievers=[inner]).invoke("q")
        assert inner.documents[0].metadata == {}


class TestOptions:
    def test_a_filter_goes_to_every_stage(self, documents, query):
        """And no document that it keeps back comes out."""
        hybrid = HybridRetriever.from_documents(documents, EMBEDDING)
        assert [one.id for one in hybrid.invoke(query, filter={"number": 3})] == ["id-3"]

    def test_a_filter_that_a_stage_would_drop_is_an_error(self, documents, query):
        """LangChain passes it over in silence; documents would leak."""
        hybrid = HybridRetriever(retrievers=[BM25Retriever(documents=documents), _fixed("a")])
        with pytest.raises(InvalidInputError, match="Fixed takes no filter"):
            hybrid.invoke(query, filter={"number": 3})
        assert hybrid.invoke(query)

    def test_stages_are_asked_for_candidates_not_for_k(self, documents, query):
        """A document at rank 3 of both stages can still win; k cuts after fusion."""
        hybrid = HybridRetriever(
            retrievers=[BM25Retriever(documents=documents, k=1)], k=2, candidates=1
        )
        assert len(hybrid.invoke(query)) == 2
        assert len(hybrid.invoke(query, k=3)) == 3
        assert hybrid.invoke(query, k=0) == []

    def test_any_runnable_can_be_a_stage(self):
        """A function that gives documents is enough."""
        stage = RunnableLambda(lambda query: [Document(page_content=query)])
        assert HybridRetriever(retrievers=[stage]).invoke("echo")[0].page_content == "echo"

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"retrievers": []}, "at least one"),
            ({"weights": [1.0]}, "one for each of the 2 stages"),
            ({"weights": [1.0, 0.0]}, "above 0"),
            ({"rank_constant": -1}, "rank_constant must be"),
            ({"candidates": 0}, "candidates must be"),
            ({"k": -1}, "k must be"),
            ({"retrievers": [7]}, "number 0 must be a retriever, but got int"),
            ({"retrievers": [FaissVectorStore(EMBEDDING)]}, "give its as_retriever"),
            ({"top_k": 3}, "no option 'top_k'"),
        ],
    )
    def test_a_wrong_option_is_an_error_at_once(self, options, words):
        """Before any query."""
        with pytest.raises(InvalidInputError, match=words):
            HybridRetriever(**({"retrievers": [_fixed("a"), _fixed("b")]} | options))

    def test_from_documents_gives_ids_to_those_without(self, query):
        """To copies of them."""
        given = [Document(page_content="The museum."), Document(page_content="Bread.")]
        found = HybridRetriever.from_documents(given, EMBEDDING, language="en").invoke(query)
        assert all(one.id for one in found)
        assert [one.id for one in given] == [None, None]

    def test_tells_langsmith_its_own_name_alone(self, documents):
        """Each retriever inside tells what it searches; a parent's word would reach them all."""
        store = FaissVectorStore.from_documents(documents, EMBEDDING)
        words = BM25Retriever.from_documents(documents)
        hybrid = HybridRetriever(retrievers=[words, store.as_retriever()])
        assert hybrid._get_ls_params() == {"ls_retriever_name": "hybrid"}
        seen = {}

        class Watch(BaseCallbackHandler):
            def on_retriever_start(self, serialized, query, *, name, metadata, **more):
                seen[name] = metadata.get("ls_vector_store_provider")

        hybrid.invoke("museum", {"callbacks": [Watch()]})
        assert seen == {
            "HybridRetriever": None,
            "BM25Retriever": None,
            "FaissRetriever": "FaissVectorStore",
        }


class TestOneCollection:
    async def test_is_fused_as_the_core_does_it(self, documents, query):
        """By the scores of all passages; sync equals async."""
        hybrid = HybridRetriever.from_documents(documents, EMBEDDING, k=6)
        texts = [document.page_content for document in documents]
        oracle = Hybrid([BM25(texts), Dense(texts, embed=EMBEDDING)])
        found = hybrid.invoke(query)
        assert found == await hybrid.ainvoke(query)
        for document, one in zip(found, oracle.search(query, 6), strict=True):
            assert document.id == documents[one.key].id
            assert document.metadata["retrieval_score"] == pytest.approx(one.score)
            assert document.metadata["stage_ranks"] == list(one.stage_ranks)

    def test_a_retrievers_own_filter_and_settings_still_hold(self, documents, query):
        """Retrievers that do more than search are asked one by one."""
        hybrid = HybridRetriever.from_documents(documents, EMBEDDING)
        words, vectors = hybrid.retrievers
        words.filter = {"number": 3}
        assert [one.id for one in HybridRetriever(retrievers=[words]).invoke(query)] == ["id-3"]
        both = hybrid.invoke(query, k=6)
        assert len(both) == 6
        assert all(one.metadata["stage_ranks"][0] is None for one in both if one.id != "id-3")
        vectors.search_kwargs = {"score_threshold": 2.0}
        assert [one.id for one in hybrid.invoke(query, k=6)] == ["id-3"]

    def test_is_saved_and_changed_once(self, documents, query, tmp_path):
        """The documents stand on the disk once, and both stages see a change."""
        hybrid = HybridRetriever.from_documents(documents, EMBEDDING, k=9)
        hybrid.delete(["id-3"])
        hybrid.add_documents([Document(id="new", page_content="A museum that opens.")])
        hybrid.save(tmp_path / "kept")
        assert len(list((tmp_path / "kept").glob("data-*/*records.jsonl"))) == 1
        again = HybridRetriever.load(tmp_path / "kept", EMBEDDING)
        assert again.invoke(query) == hybrid.invoke(query)
        again.delete(["new"])
        assert "new" not in {one.id for one in again.invoke(query)}


def test_a_hybrid_takes_texts_as_the_other_retrievers_do() -> None:
    """With the bundled embeddings; ids and metadata go along."""
    hybrid = HybridRetriever.from_texts(
        ["Le musée est fermé.", "The bread is fresh."],
        metadatas=[{"n": 1}, {"n": 2}],
        ids="ab",
        k=1,
    )
    (found,) = hybrid.invoke("When is the museum closed?")
    assert (found.id, found.metadata["n"]) == ("a", 1)
