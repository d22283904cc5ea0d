"""FaissVectorStore and FaissRetriever: LangChain's own tests, scores, filters, threads."""

from __future__ import annotations

import json
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import FaissRetriever, FaissVectorStore

standard = pytest.importorskip("langchain_tests.integration_tests")
pytest.importorskip("faiss")

EMBEDDING = DeterministicFakeEmbedding(size=8)


class Letters(Embeddings):
    """Counts letters: near texts have near vectors, and a test can work them out."""

    def embed_documents(self, texts):
        """Shape (texts, 26)."""
        return [[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts]

    def embed_query(self, text):
        """Shape (26,)."""
        return self.embed_documents([text])[0]


class TestStandard(standard.VectorStoreIntegrationTests):
    """LangChain's own tests of a vector store, over both kinds of index."""

    @pytest.fixture(params=["exact", "hnsw"])
    def vectorstore(self, request):
        """An empty store."""
        return FaissVectorStore(self.get_embeddings(), index_kind=request.param)


class TestStandardOfTheRetriever(standard.RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    retriever_constructor = FaissRetriever
    retriever_query_example = "museum"

    @property
    def retriever_constructor_params(self):
        """A store of five."""
        return {"vectorstore": FaissVectorStore.from_texts(list("abcde"), EMBEDDING)}


@pytest.fixture
def store(documents):
    """The six documents by their letters."""
    return FaissVectorStore.from_documents(documents, Letters())


class TestScores:
    @pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
    def test_are_higher_for_the_nearer_whatever_the_metric(self, documents, query, metric):
        """Equal to numpy's own, best first, relevance in [0, 1] in the same order."""
        store = FaissVectorStore.from_documents(documents, Letters(), metric=metric)
        rows = np.array(Letters().embed_documents([one.page_content for one in documents]))
        asked = np.array(Letters().embed_query(query))
        expected = {
            "cosine": rows @ asked / np.linalg.norm(rows, axis=1) / np.linalg.norm(asked),
            "inner_product": rows @ asked,
            "l2": -((rows - asked) ** 2).sum(axis=1),
        }[metric]
        found = store.similarity_search_with_score(query, k=6)
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        assert all(type(score) is float for score in scores)
        for document, score in found:
            assert score == pytest.approx(expected[document.metadata["number"]], rel=1e-5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            relevant = store.similarity_search_with_relevance_scores(query, k=6)
        assert [document for document, _ in relevant] == [document for document, _ in found]
        assert all(0.0 <= score <= 1.0 for _, score in relevant)

    @pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
    def test_opposite_vectors_are_relevant_in_bounds(self, metric):
        """Negative scores and huge ones stay in [0, 1]; the same vector is relevant at 1."""

        class Signed(Letters):
            def embed_documents(self, texts):
                return [[float(text)] for text in texts]

        store = FaissVectorStore.from_texts(["-1e4", "-1", "1", "1e4"], Signed(), metric=metric)
        found = store.similarity_search_with_relevance_scores("1e4", k=4)
        assert all(0.0 <= score <= 1.0 for _, score in found)
        assert found[0][1] == pytest.approx(1.0)
        assert found[-1][0].page_content.startswith("-")

    def test_a_threshold_cuts(self, store, query):
        """LangChain's own search type, sync."""
        best = store.similarity_search_with_relevance_scores(query, k=6)
        limit = best[2][1]
        retriever = store.as_retriever(
            search_type="similarity_score_threshold",
            search_kwargs={"score_threshold": limit},
            k=6,
        )
        assert len(retriever.invoke(query)) == 3


class TestRetriever:
    def test_stamps_scores_ranks_and_method(self, store, query):
        """The store's own searches give documents as they were added; the retriever, scores."""
        found = store.as_retriever(k=2).invoke(query)
        pairs = store.similarity_search_with_score(query, k=2)
        assert [one.id for one in found] == [document.id for document, _ in pairs]
        assert [one.metadata for one in found] == [
            {
                **document.metadata,
                "retrieval_score": score,
                "retrieval_rank": rank,
                "retrieval_method": "faiss",
                "retrieval_list": found[0].metadata["retrieval_list"],
            }
            for rank, (document, score) in enumerate(pairs, start=1)
        ]
        assert json.loads(json.dumps([one.metadata for one in found]))

    async def test_the_nearest_k_wins(self, store, query):
        """Of call, search_kwargs and field; zero is a k, None is not."""
        retriever = store.as_retriever(k=5, search_kwargs={"k": 3})
        assert len(retriever.invoke(query)) == 3
        assert len(retriever.invoke(query, k=1)) == 1
        assert retriever.invoke(query, k=0) == []
        assert len(retriever.invoke(query, k=None)) == 3
        assert len(store.as_retriever(k=5).invoke(query)) == 5
        assert len(await store.as_retriever().ainvoke(query)) == 4
        with pytest.raises(InvalidInputError, match="k must be"):
            store.as_retriever(k=-1)
        with pytest.raises(InvalidInputError, match="FaissRetriever has no option 'filter'"):
            store.as_retriever(filter={"number": 1})

    async def test_mmr_prefers_what_is_unlike(self):
        """Of two copies and one other, the other comes before the second copy."""
        store = FaissVectorStore.from_texts(["aaab", "aaab", "aacc"], Letters())
        retriever = store.as_retriever(search_type="mmr", search_kwargs={"lambda_mult": 0.1}, k=2)
        found = retriever.invoke("aaab")
        assert [one.page_content for one in found] == ["aaab", "aacc"]
        assert found == await retriever.ainvoke("aaab")
        assert store.max_marginal_relevance_search("aaab", k=0) == []
        near = store.max_marginal_relevance_search("aaab", k=2, lambda_mult=1.0)
        assert [one.page_content for one in near] == ["aaab", "aaab"]
        assert FaissVectorStore(Letters()).max_marginal_relevance_search("a") == []

    def test_tells_langsmith_what_is_inside(self, store):
        """Store and embeddings by name."""
        params = store.as_retriever()._get_ls_params()
        assert params["ls_vector_store_provider"] == "FaissVectorStore"
        assert params["ls_embedding_provider"] == "Letters"
        assert params["ls_retriever_name"] == "faiss"


class TestFilter:
    def test_keeps_what_passes(self, store, query):
        """By dict, by function, in the retriever's search_kwargs and for one call."""
        assert [one.id for one in store.similarity_search(query, filter={"number": 4})] == ["id-4"]
        odd = store.similarity_search(query, k=9, filter=lambda one: one.metadata["number"] % 2)
        assert {one.id for one in odd} == {"id-1", "id-3", "id-5"}
        retriever = store.as_retriever(search_kwargs={"filter": {"number": 4}})
        assert [one.id for one in retriever.invoke(query)] == ["id-4"]
        assert [one.id for one in retriever.invoke(query, filter={"number": 5})] == ["id-5"]

    @pytest.mark.parametrize("search", ["similarity_search", "max_marginal_relevance_search"])
    def test_a_misspelt_filter_is_an_error(self, store, query, search):
        """Not an unfiltered answer."""
        with pytest.raises(InvalidInputError, match="unknown option: filters"):
            getattr(store, search)(query, filters={"number": 4})

    @settings(max_examples=30, deadline=None)
    @given(
        owners=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=10),
        gone=st.sets(st.integers(0, 9)),
        k=st.integers(0, 12),
        index_kind=st.sampled_from(["exact", "hnsw"]),
    )
    def test_never_leaks_and_always_fills_k(self, owners, gone, k, index_kind):
        """Deleted documents stay away too."""
        store = FaissVectorStore.from_texts(
            [f"text {number}" for number in range(len(owners))],
            EMBEDDING,
            [{"owner": owner} for owner in owners],
            ids=[str(number) for number in range(len(owners))],
            index_kind=index_kind,
        )
        store.delete([str(number) for number in gone])
        found = store.similarity_search("text", k=k, filter={"owner": "a"})
        allowed = {
            str(number)
            for number, owner in enumerate(owners)
            if owner == "a" and number not in gone
        }
        assert {one.id for one in found} <= allowed
        assert len(found) == min(k, len(allowed))


class TestDocuments:
    def test_are_copied_in_and_out(self, store, documents, make_documents, query):
        """No later change on either side reaches the other."""
        documents[0].metadata["number"] = 99
        for copy in [*store.similarity_search(query), *store.get_by_ids(["id-0"])]:
            copy.metadata["mine"] = True
        assert store.get_by_ids([f"id-{number}" for number in range(6)]) == make_documents()

    def test_an_id_given_twice_keeps_the_last(self):
        """In one call, and over two; the ids come back one a document."""
        store = FaissVectorStore(EMBEDDING)
        assert store.add_texts(["one", "two"], ids=["x", "x"]) == ["x", "x"]
        assert len(store) == 1
        assert [one.page_content for one in store.similarity_search("one", k=9)] == ["two"]
        store.add_documents([Document(id="x", page_content="three")])
        assert [one.page_content for one in store.similarity_search("one", k=9)] == ["three"]

    def test_ids_come_from_the_call_then_the_document_then_chance(self):
        """None in the list of ids asks for a new one."""
        store = FaissVectorStore(EMBEDDING)
        documents = [Document(id="own", page_content="a"), Document(page_content="b")]
        assert store.add_documents(documents)[0] == "own"
        first, second = store.add_documents(documents, ids=["given", None])
        assert first == "given"
        assert second
        assert len(store) == 4
        with pytest.raises(InvalidInputError, match="1 ids for 2 documents"):
            store.add_documents(documents, ids=["x"])

    def test_deleting_without_ids_deletes_all(self, store, query):
        """As the interface says; the store can be filled again."""
        assert store.delete() is True
        assert len(store) == 0
        assert store.similarity_search(query) == []
        store.add_texts(["new"])
        assert [one.page_content for one in store.similarity_search(query)] == ["new"]

    def test_a_failing_embedding_adds_nothing(self, documents, query):
        """All or none, and what was there under the id stays."""

        class Failing(Letters):
            working = True

            def embed_documents(self, texts):
                if not self.working:
                    raise ConnectionError("no network")
                return super().embed_documents(texts)

        embedding = Failing()
        store = FaissVectorStore.from_documents(documents, embedding)
        before = store.similarity_search_with_score(query, k=9)
        embedding.working = False
        with pytest.raises(ConnectionError):
            store.add_texts(["new", "newer"], ids=["id-0", "id-9"])
        embedding.working = True
        assert store.similarity_search_with_score(query, k=9) == before
        assert len(store) == 6

    def test_what_is_no_embedding_is_an_error(self):
        """A callable belongs to the core's Dense."""
        with pytest.raises(InvalidInputError, match="must be LangChain Embeddings, but got str"):
            FaissVectorStore("all-MiniLM")


def test_readers_meet_no_half_done_work():
    """While documents are replaced and deleted, every search gives whole, filtered answers."""
    numbers = [str(number) for number in range(20)]
    store = FaissVectorStore.from_texts(
        [f"text {number}" for number in numbers],
        EMBEDDING,
        [{"version": 0} for _ in numbers],
        ids=numbers,
    )
    done = threading.Event()
    problems = []

    def read():
        try:
            while not done.is_set():
                found = store.similarity_search(
                    "text", k=50, filter=lambda one: int(one.id) < 10 and "version" in one.metadata
                )
                if sorted(int(one.id) for one in found) != list(range(10)):
                    problems.append(found)
        except Exception as error:
            problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(1, 40):
        store.add_texts([f"text {version}"] * 5, [{"version": version}] * 5, ids=numbers[10:15])
        store.delete(numbers[12:14])
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
