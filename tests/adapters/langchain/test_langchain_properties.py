"""What holds for any documents and any query."""

from __future__ import annotations

import asyncio
import copy

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from rerank_plugins.langchain import BM25Retriever, CrossEncoderCompressor, RerankingRetriever
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer

WORDS = st.sampled_from(["museum", "opens", "متحف", "يفتح", "żurek", "été", "a", "🏛"])
TEXT = st.one_of(st.lists(WORDS, max_size=6).map(" ".join), st.text(max_size=30))
QUERY = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
METADATA = st.dictionaries(
    st.sampled_from(["a", "relevance_score", "retrieval_score", "retrieval_rank", "title"]),
    st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=5), st.booleans()),
    max_size=2,
)


@st.composite
def document_lists(draw, *, distinct=False):
    """Documents with any ids, duplicates among them, and any metadata."""
    texts = draw(st.lists(TEXT, max_size=6, unique=distinct))
    return [
        Document(
            id=draw(st.sampled_from([None, "x", "y"])),
            page_content=text,
            metadata={"position": position, **draw(METADATA)},
        )
        for position, text in enumerate(texts)
    ]


def _compressor(**options):
    return CrossEncoderCompressor(reranker=Reranker(OverlapScorer(), **options))


def _positions(documents):
    return [document.metadata["position"] for document in documents]


@settings(max_examples=40, deadline=None)
@given(documents=document_lists(), query=QUERY)
def test_the_output_is_a_permutation_of_the_inputs_distinct_texts(documents, query):
    """Each document once; with deduplication each text once, as its first copy."""
    kept = _positions(_compressor(deduplicate=True).compress_documents(documents, query))
    first = {document.page_content: n for n, document in reversed(list(enumerate(documents)))}
    assert sorted(kept) == sorted(first.values())
    every = _positions(_compressor().compress_documents(documents, query))
    assert sorted(every) == list(range(len(documents)))


@settings(max_examples=40, deadline=None)
@given(documents=document_lists(), query=QUERY, top_n=st.integers(0, 10))
def test_top_n_is_a_prefix_of_the_full_ranking(documents, query, top_n):
    """Cutting changes nothing but the length."""
    compressor = _compressor()
    everything = compressor.compress_documents(documents, query)
    some = compressor.compress_documents(documents, query, top_n=top_n)
    # Metadata may hold NaN, which equals nothing: compare as text.
    assert repr(some) == repr(everything[:top_n])


@settings(max_examples=40, deadline=None)
@given(documents=document_lists(), query=QUERY)
def test_inputs_are_never_changed(documents, query):
    """Neither by us nor through what we give out."""
    before = repr(copy.deepcopy(documents))
    for document in _compressor().compress_documents(documents, query):
        document.metadata.clear()
    assert repr(documents) == before


@settings(max_examples=40, deadline=None)
@given(documents=document_lists(), query=QUERY)
def test_scores_are_native_finite_and_descending(documents, query):
    """Whatever stood in the metadata before."""
    kept = _compressor().compress_documents(documents, query)
    scores = [document.metadata["relevance_score"] for document in kept]
    assert all(type(score) is float and 0.0 <= score <= 1.0 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert [document.metadata["rerank_rank"] for document in kept] == list(range(1, len(kept) + 1))


@settings(max_examples=40, deadline=None)
@given(documents=document_lists(distinct=True), query=QUERY, seed=st.integers(0, 99))
def test_the_order_does_not_depend_on_the_inputs_order_but_for_ties(documents, query, seed):
    """Each document's score is the same wherever it stood."""
    shuffled = [documents[n] for n in np.random.default_rng(seed).permutation(len(documents))]
    for options in ({}, {"first_stage_weight": 0.5}):
        compressor = _compressor(**options)
        first = compressor.compress_documents(documents, query)
        second = compressor.compress_documents(shuffled, query)
        scores = [
            {
                document.metadata["position"]: document.metadata["relevance_score"]
                for document in one
            }
            for one in (first, second)
        ]
        assert scores[0].keys() == scores[1].keys()
        np.testing.assert_allclose(
            [scores[0][key] for key in scores[0]], [scores[1][key] for key in scores[0]], rtol=1e-9
        )


@settings(max_examples=30, deadline=None)
@given(documents=document_lists(), query=QUERY)
def test_the_scale_changes_no_order(documents, query):
    """The probability is a strictly increasing function of the logit."""
    by_probability = _compressor().compress_documents(documents, query)
    by_logit = _compressor(scale="logit").compress_documents(documents, query)
    assert _positions(by_probability) == _positions(by_logit)


@settings(max_examples=30, deadline=None)
@given(documents=document_lists(), query=QUERY, top_n=st.integers(0, 10))
def test_async_equals_sync_and_rerank_agrees(documents, query, top_n):
    """Three doors to one ranking."""
    compressor = _compressor()
    kept = compressor.compress_documents(documents, query, top_n=top_n)
    in_loop = asyncio.run(compressor.acompress_documents(documents, query, top_n=top_n))
    assert repr(in_loop) == repr(kept)
    assert [
        (documents[one["index"]].metadata["position"], one["relevance_score"])
        for one in compressor.rerank(documents, query, top_n=top_n)
    ] == [(one.metadata["position"], one.metadata["relevance_score"]) for one in kept]


@settings(max_examples=30, deadline=None)
@given(documents=document_lists(), query=QUERY, k=st.integers(0, 10))
def test_a_retriever_returns_a_prefix_of_its_full_ranking(documents, query, k):
    """A k is a cut for reranking retrievers, too, as long as the candidates are the same."""
    retriever = RerankingRetriever(
        first_stage=BM25Retriever(documents=documents), reranker=Reranker(OverlapScorer()), k=50
    )
    assert repr(retriever.invoke(query, k=k)) == repr(retriever.invoke(query)[:k])
