"""Filters and k of one call reach whoever searches, or are refused."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListLLM
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import BM25Retriever, HybridRetriever, RerankingRetriever
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

classic = pytest.importorskip("langchain_classic.retrievers")
community = pytest.importorskip("langchain_community.retrievers")

DOCUMENTS = [
    Document(
        id=f"{owner}{number}", page_content=f"museum {number} {owner}", metadata={"owner": owner}
    )
    for number in range(12)
    for owner in ("a", "b")
]


class SyncOnly(BaseRetriever):
    """Declares k and filter for its synchronous method alone, as many do."""

    inner: BM25Retriever

    def _get_relevant_documents(self, query, *, run_manager, k=None, filter=None):  # noqa: A002
        return self.inner.invoke(query, k=k, filter=filter)


class Plain(BaseRetriever):
    """Takes nothing beside the query."""

    def _get_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS


class Drops(VectorStore):
    """Takes any argument and reads none."""

    @classmethod
    def from_texts(cls, *args, **kwargs):
        """As the interface asks."""
        return cls()

    def similarity_search(self, query, k=4, **kwargs):
        """Everybody's documents."""
        return DOCUMENTS[:k]


class Searches:
    """Something that searches behind a method."""

    def __init__(self, retriever):
        self.retriever = retriever

    def more(self, found):
        """What it finds by itself, too."""
        return found + self.retriever.invoke("museum")


def ours(**options):
    """A retriever that takes both."""
    return BM25Retriever.from_documents(DOCUMENTS, **options)


def reranking(first_stage, **options):
    """Over it."""
    return RerankingRetriever(
        first_stage=first_stage, reranker=Reranker(OverlapScorer()), **options
    )


def _compression(retriever):
    from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

    return classic.ContextualCompressionRetriever(
        base_compressor=DocumentCompressorPipeline(transformers=[]), base_retriever=retriever
    )


def _again(*retrievers):
    return {
        "bare": lambda r: r,
        "sync only": lambda r: SyncOnly(inner=r),
        "sync only, retried": lambda r: SyncOnly(inner=r).with_retry(),
        "with_retry": lambda r: r.with_retry(),
        "with_config": lambda r: r.with_config(tags=["x"]),
        "with_listeners": lambda r: r.with_listeners(on_start=lambda run: None),
        "bind": lambda r: r.bind(k=2),
        "with_fallbacks": lambda r: r.with_fallbacks([r.with_retry()]),
        "configurable_fields": lambda r: r.configurable_fields(k=ConfigurableField(id="k")),
        "configurable_alternatives": lambda r: r.configurable_alternatives(
            ConfigurableField(id="which"), other=Plain()
        ),
        "sequence": lambda r: RunnableLambda(str.strip) | r,
        "sequence, retried": lambda r: (RunnableLambda(str.strip) | r.with_retry()).with_retry(),
        "branch": lambda r: RunnableBranch((lambda q: "?" in q, r), r.with_retry()),
        "parallel": lambda r: (
            RunnableParallel(found=r, query=RunnablePassthrough()) | (lambda given: given["found"])
        ),
        "assign": lambda r: (
            RunnableLambda(lambda q: {"q": q})
            | RunnablePassthrough.assign(found=RunnableLambda(lambda given: given["q"]) | r)
            | (lambda given: given["found"])
        ),
        "reranking": lambda r: reranking(r, k=4),
        "hybrid": lambda r: HybridRetriever(retrievers=[r, r.with_retry()]),
        "compression": _compression,
        "compression, retried": lambda r: _compression(r.with_retry()).with_retry(),
        "ensemble": lambda r: classic.EnsembleRetriever(retrievers=[r, r.with_retry()]),
        "merger": lambda r: classic.MergerRetriever(retrievers=[r, r]),
        "multi query": lambda r: classic.MultiQueryRetriever.from_llm(
            r, FakeListLLM(responses=["museum\nmuseum 3"])
        ),
    }


WRAPPED = _again()


@pytest.mark.parametrize("name", WRAPPED)
async def test_reach_whoever_searches(name):
    """Only documents of the filter come back, and as many as are asked for."""
    retriever = reranking(WRAPPED[name](ours(k=1)), k=2)
    for options in ({"filter": {"owner": "a"}}, {"filter": lambda one: one.id[0] == "a"}):
        for found in (
            retriever.invoke("museum", k=10, **options),
            await retriever.ainvoke("museum", k=10, **options),
        ):
            assert {one.metadata["owner"] for one in found} == {"a"}
            assert len(found) == 10
    # MergerRetriever and MultiQueryRetriever bring some twice.
    assert len({one.id for one in retriever.invoke("museum", k=48)}) == 24


def test_a_hybrid_hands_on_as_well():
    """To every retriever in it."""
    hybrid = HybridRetriever(retrievers=[ours(), RunnableLambda(str.strip) | ours()])
    found = hybrid.invoke("museum", k=20, filter={"owner": "b"})
    assert {one.metadata["owner"] for one in found} == {"b"}
    assert len(found) == 12


def test_the_stages_themselves_are_left_as_they_are():
    """What is bound is bound for one call."""
    stage = classic.EnsembleRetriever(retrievers=[ours(k=3), ours(k=3)])
    reranking(stage).invoke("museum", filter={"owner": "a"})
    assert len(stage.invoke("museum")) == 3


SEEN = ours()


@pytest.mark.parametrize(
    "stage",
    [
        Plain(),
        Plain().with_retry(),
        ours().with_fallbacks([Plain()]),
        ours().with_fallbacks([RunnableLambda(lambda q: DOCUMENTS)]),
        RunnableLambda(lambda q: DOCUMENTS),
        RunnableLambda(lambda q: DOCUMENTS).with_retry(),
        RunnableLambda(str.strip) | Plain(),
        RunnableLambda(str.strip) | RunnableLambda(lambda q: DOCUMENTS),
        ours() | RunnableLambda(lambda found: found + SEEN.invoke("museum")),
        RunnableBranch((lambda q: "?" in q, ours()), RunnableLambda(lambda q: DOCUMENTS)),
        classic.EnsembleRetriever(retrievers=[ours(), Plain()]),
        classic.MergerRetriever(retrievers=[Plain()]),
        Drops().as_retriever(),
        community.BM25Retriever.from_documents,
        ours() | RunnableLambda(Searches(SEEN).more),
    ],
    ids=lambda stage: type(stage).__name__,
)
async def test_are_refused_where_they_would_be_dropped(stage):
    """By an error that names the option; without it, the stage answers."""
    if not isinstance(stage, BaseRetriever) and callable(stage) and not hasattr(stage, "invoke"):
        pytest.importorskip("rank_bm25")
        stage = stage(DOCUMENTS).with_retry()
    retriever = reranking(stage)
    with pytest.raises(InvalidInputError, match="filter"):
        retriever.invoke("museum", filter={"owner": "a"})
    with pytest.raises(InvalidInputError, match="filter"):
        await retriever.ainvoke("museum", filter={"owner": "a"})
    with pytest.raises(InvalidInputError, match="filter"):
        HybridRetriever(retrievers=[ours(), stage]).invoke("museum", filter={"owner": "a"})
    assert retriever.invoke("museum")
    assert retriever.invoke("museum", filter=None)


def test_k_is_set_on_a_copy_where_a_call_takes_none():
    """That of community's BM25Retriever, say, which has one in its constructor alone."""
    pytest.importorskip("rank_bm25")
    stage = community.BM25Retriever.from_documents(DOCUMENTS, k=4)
    assert len(reranking(stage).invoke("museum", k=10)) == 10
    assert len(reranking(stage.with_retry()).invoke("museum", k=10)) == 10
    assert stage.k == 4


def test_stores_of_others_take_what_they_declare():
    """InMemoryVectorStore's filter is a function of the document."""
    store = InMemoryVectorStore.from_documents(DOCUMENTS, DeterministicFakeEmbedding(size=4))
    retriever = reranking(store.as_retriever().with_retry())
    found = retriever.invoke("museum", k=20, filter=lambda one: one.metadata["owner"] == "a")
    assert {one.metadata["owner"] for one in found} == {"a"}
    assert len(found) == 12


async def test_what_a_stage_brings_beyond_the_candidates_is_cut():
    """The first stage's first ones are reranked, the rest is not."""
    scorer = OverlapScorer()
    retriever = RerankingRetriever(first_stage=Plain(), reranker=Reranker(scorer), candidates=5)
    assert {one.id for one in retriever.invoke("museum", k=5)} == {one.id for one in DOCUMENTS[:5]}
    await retriever.ainvoke("museum")
    assert scorer.pairs_seen == 10
    assert len(
        RerankingRetriever(first_stage=Plain(), reranker=Reranker(scorer), candidates=None).invoke(
            "museum", k=99
        )
    ) == len(DOCUMENTS)


@pytest.mark.parametrize("gives", [None, "museum", {"a": 1}, 7])
async def test_a_stage_that_gives_no_list_is_named(gives):
    """In place of a bare TypeError."""
    stage = RunnableLambda(lambda query: gives)
    for retriever in (reranking(stage), HybridRetriever(retrievers=[stage])):
        with pytest.raises(InvalidInputError, match="RunnableLambda gave"):
            retriever.invoke("museum")
        with pytest.raises(InvalidInputError, match="RunnableLambda gave"):
            await retriever.ainvoke("museum")
