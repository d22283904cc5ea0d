"""What holds for any nodes and any query, through the adapter."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rerank_plugins import Reranker
from rerank_plugins.llama_index import BM25Retriever, CrossEncoderPostprocessor, RerankingRetriever
from rerank_plugins.testing import OverlapScorer

words = st.sampled_from(
    ["museum", "opens", "door", "river", "bread", "متحف", "يفتح", "musée", "żurek", "🏛", "\u202e"]
)
texts = st.lists(words, max_size=6).map(" ".join)
queries = st.lists(words, min_size=1, max_size=4).map(" ".join).filter(str.strip)
values = (
    st.none() | st.integers() | st.floats(allow_nan=False) | texts | st.lists(texts, max_size=2)
)
metadata = st.dictionaries(st.sampled_from(["title", "year", "relevance_score"]), values)
scores = st.none() | st.floats(-1e6, 1e6)
modes = st.sampled_from(list(MetadataMode))


@st.composite
def node_lists(draw: Any, *, unique_texts: bool = False) -> list[NodeWithScore]:
    """Lists of nodes, ids repeated now and then."""
    drawn = draw(st.lists(texts, max_size=8, unique=unique_texts))
    return [
        NodeWithScore(
            node=TextNode(
                text=text,
                id_=draw(st.sampled_from([f"id-{number}", "twin"])),
                metadata=draw(metadata),
            ),
            score=draw(scores),
        )
        for number, text in enumerate(drawn)
    ]


def adapter(**options: Any) -> CrossEncoderPostprocessor:
    """A postprocessor with a scorer that needs no model."""
    mode = options.pop("metadata_mode", MetadataMode.NONE)
    return CrossEncoderPostprocessor(
        reranker=Reranker(OverlapScorer(), **options), metadata_mode=mode
    )


def seen(nodes: list[NodeWithScore]) -> list[tuple[str, str, float | None]]:
    """What tells nodes and their scores apart."""
    return [(node.node_id, node.node.get_content(), node.score) for node in nodes]


@given(node_lists(), queries, modes)
def test_the_output_is_a_permutation_of_a_subset_of_the_input(nodes, query, mode):
    """Each output is one input, each input at most one output, and no text is lost."""
    reranked = adapter(metadata_mode=mode).postprocess_nodes(nodes, query_str=query)
    places = [node.metadata["retrieval_rank"] - 1 for node in reranked]
    assert len(set(places)) == len(places)
    for node, place in zip(reranked, places, strict=True):
        assert (node.node_id, node.node.text) == (nodes[place].node_id, nodes[place].node.text)
    if mode is not MetadataMode.ALL:  # which leaves out metadata of our names
        assert {nodes[place].get_content(mode) for place in places} == {
            node.get_content(mode) for node in nodes
        }
    everything = adapter().postprocess_nodes(nodes, query_str=query)
    assert sorted(n.metadata["retrieval_rank"] for n in everything) == list(
        range(1, len(nodes) + 1)
    )


@given(node_lists(), queries, st.integers(0, 9))
def test_top_n_is_a_prefix_of_the_whole(nodes, query, k):
    """Asking for fewer changes nothing about those that come."""
    whole = adapter().postprocess_nodes(nodes, query_str=query)
    fewer = adapter().model_copy(update={"top_n": k}).postprocess_nodes(nodes, query_str=query)
    assert [n.model_dump() for n in fewer] == [n.model_dump() for n in whole[:k]]


@given(node_lists(), queries, modes)
def test_inputs_are_never_changed(nodes, query, mode):
    """Not the nodes, not their scores, not the list."""
    before = [node.model_dump() for node in nodes]
    hashes = [node.node.hash for node in nodes]
    same = list(nodes)
    adapter(metadata_mode=mode).postprocess_nodes(nodes, query_str=query)
    assert [node.model_dump() for node in nodes] == before
    assert [node.node.hash for node in nodes] == hashes
    assert all(one is other for one, other in zip(nodes, same, strict=True))


@given(st.data(), queries)
def test_the_order_of_the_input_decides_ties_only(data, query):
    """Shuffled input gives the same scores, and the same order where scores differ."""
    nodes = data.draw(node_lists(unique_texts=True))
    shuffled = data.draw(st.permutations(nodes))
    one = adapter().postprocess_nodes(nodes, query_str=query)
    other = adapter().postprocess_nodes(shuffled, query_str=query)
    assert [node.score for node in one] == [node.score for node in other]
    for score in {node.score for node in one}:
        assert {n.node.text for n in one if n.score == score} == {
            n.node.text for n in other if n.score == score
        }
    for reranked in (one, other):
        for first, second in pairwise(reranked):
            if first.score == second.score:
                assert first.metadata["retrieval_rank"] < second.metadata["retrieval_rank"]


@given(node_lists(), queries)
def test_scores_are_probabilities_in_falling_order(nodes, query):
    """Native floats in [0, 1], the best first; logits give the same order."""
    reranked = adapter().postprocess_nodes(nodes, query_str=query)
    falling = [node.score for node in reranked]
    assert all(type(score) is float and 0.0 <= score <= 1.0 for score in falling)
    assert falling == sorted(falling, reverse=True)
    logits = adapter(scale="logit").postprocess_nodes(nodes, query_str=query)
    assert [n.metadata["retrieval_rank"] for n in logits] == [
        n.metadata["retrieval_rank"] for n in reranked
    ]


@given(node_lists(), queries)
def test_a_threshold_keeps_exactly_what_reaches_it(nodes, query):
    """The threshold may be the very score of a node."""
    whole = adapter().postprocess_nodes(nodes, query_str=query)
    for threshold in {node.score for node in whole}:
        kept = adapter(score_threshold=threshold).postprocess_nodes(nodes, query_str=query)
        assert seen(kept) == [one for one in seen(whole) if one[2] >= threshold]


@given(node_lists(), queries)
@settings(max_examples=20)
def test_both_ways_agree(nodes, query):
    """Synchronous and asynchronous results are the same to the last bit."""
    sync = adapter().postprocess_nodes(nodes, query_str=query)
    apart = asyncio.run(adapter().apostprocess_nodes(nodes, query_str=query))
    assert [n.model_dump() for n in sync] == [n.model_dump() for n in apart]


@given(node_lists(), queries, st.integers(0, 5))
@settings(max_examples=30)
def test_retrieving_and_reranking_in_one_is_the_two_in_turn(nodes, query, k):
    """RerankingRetriever adds nothing to its two parts."""
    corpus = [node.node for node in nodes]
    first = BM25Retriever(corpus, similarity_top_k=50, language="neutral")
    together = RerankingRetriever(
        first, reranker=Reranker(OverlapScorer()), similarity_top_k=k
    ).retrieve(query)
    reranker = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()), top_n=k)
    assert [n.model_dump() for n in together] == [
        n.model_dump() for n in reranker.postprocess_nodes(first.retrieve(query), query_str=query)
    ]


def test_the_fake_scorer_tells_passages_apart():
    """The properties above would hold for a constant too; this one is not constant."""
    nodes = [NodeWithScore(node=TextNode(text=t)) for t in ("museum", "river", "museum opens")]
    reranked = adapter().postprocess_nodes(nodes, query_str="museum opens")
    assert [n.node.text for n in reranked] == ["museum opens", "museum", "river"]
    assert reranked[0].score > reranked[1].score > reranked[2].score == pytest.approx(0.0178, 0.01)
