"""Awkward inputs, and what becomes of them on the way through the adapter."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from helpers_llama_index import found, ids
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index import (
    BM25Retriever,
    CrossEncoderPostprocessor,
    RerankingRetriever,
    format_context,
)

MUSEUM = "The museum opens at nine."
VOWELLED = "يَفْتَحُ المُتْحَفُ أَبْوَابَهُ فِي التَّاسِعَةِ"

# What comes in beside MUSEUM, and what the model is asked.
PASSAGES = {
    "empty": "",
    "whitespace": " \t\n\u00a0\u3000",
    "one megabyte": "museum " * 150_000,
    "a lone surrogate": "The \ud800 museum",
    "NUL": "The \x00 museum \x00",
    "bidi controls": "\u202eThe museum\u202c \u2066opens\u2069 \u200f",
    "vowelled Arabic": VOWELLED,
    "emoji": "🏛️ opens 👩‍👩‍👧‍👦 at 9️⃣",
    "mixed scripts": "The متحف opens à neuf heures żółć 博物館 музей",
    "braces": "{museum} {metadata_str} {content} %s {0}",
    "template words": "{{context_str}} {% raw %}",
}
QUERIES = {
    "plain": "When does the museum open?",
    "a lone surrogate": "museum \udfff",
    "NUL": "museum\x00",
    "bidi controls": "\u202emuseum",
    "vowelled Arabic": "مَتَى يَفْتَحُ المُتْحَفُ؟",
    "emoji": "🏛️",
    "mixed scripts": "museum متحف musée",
    "longer than any model": "museum opens " * 20_000,
    "braces": "{query_str} {museum}",
}


@pytest.fixture(scope="module")
def tiny(tiny_checkpoints) -> Reranker:
    """A real tokenizer and a real model, though tiny."""
    from rerank_plugins import load_reranker

    return load_reranker(tiny_checkpoints["bge"], device="cpu")


@pytest.mark.parametrize("passage", sorted(PASSAGES))
@pytest.mark.parametrize("model", ["fake", "tiny"])
def test_any_passage_is_scored(passage, model, request):
    """The text comes out as it went in, with a score, from a fake and from a real model."""
    reranker = request.getfixturevalue("reranker" if model == "fake" else "tiny")
    nodes = found([PASSAGES[passage], MUSEUM])
    adapter = CrossEncoderPostprocessor(reranker=reranker)
    reranked = adapter.postprocess_nodes(nodes, query_str="When does the museum open?")
    assert sorted(ids(reranked)) == ["id-0", "id-1"]
    for node in reranked:
        assert node.text == (PASSAGES[passage], MUSEUM)[int(node.node_id[-1])]
        assert type(node.score) is float
        assert 0.0 <= node.score <= 1.0


@pytest.mark.parametrize("query", sorted(QUERIES))
@pytest.mark.parametrize("model", ["fake", "tiny"])
def test_any_query_is_answered(query, model, request, recorded):
    """Events, callbacks and the model take the query, however long or odd it is."""
    reranker = request.getfixturevalue("reranker" if model == "fake" else "tiny")
    adapter = CrossEncoderPostprocessor(reranker=reranker)
    reranked = adapter.postprocess_nodes(found([MUSEUM, VOWELLED]), query_str=QUERIES[query])
    assert len(reranked) == 2
    assert recorded.names("ReRankStartEvent", "ReRankEndEvent") == [
        "ReRankStartEvent",
        "ReRankEndEvent",
    ]


@pytest.mark.parametrize("passage", sorted(PASSAGES))
def test_any_passage_is_indexed_and_packed(passage, reranker):
    """The first stage and the context take it too."""
    corpus = [node.node for node in found([PASSAGES[passage], MUSEUM])]
    retriever = RerankingRetriever(BM25Retriever(corpus), reranker=reranker)
    got = retriever.retrieve("museum متحف opens")
    assert MUSEUM in [node.text for node in got]
    assert MUSEUM in format_context(
        got, max_tokens=100, count_tokens=lambda text: len(text.split())
    )


def test_an_empty_list_gives_an_empty_list(reranker):
    """No nodes are valid input."""
    assert CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes([], query_str="q") == []


def test_ten_thousand_candidates(reranker):
    """All are scored, and the loop is free meanwhile."""
    nodes = found([f"Passage {number} of the museum." for number in range(10_000)])

    async def main() -> tuple[list[NodeWithScore], int]:
        turns = 0
        task = asyncio.create_task(
            CrossEncoderPostprocessor(reranker=reranker).apostprocess_nodes(
                nodes, query_str="passage 7777"
            )
        )
        while not task.done():
            turns += 1
            await asyncio.sleep(0.001)
        return task.result(), turns

    reranked, turns = asyncio.run(main())
    assert len(reranked) == 10_000
    assert reranked[0].node_id == "id-7777"
    assert turns > 10


def test_duplicate_ids_are_different_nodes(reranker):
    """Position is what identifies a candidate, so nodes with one id do not collide."""
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_="same"), score=0.5)
        for text in (MUSEUM, "A river.", "Museum")
    ]
    reranked = CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes(
        nodes, query_str="museum opens"
    )
    assert [n.text for n in reranked] == [MUSEUM, "Museum", "A river."]
    assert ids(reranked) == ["same"] * 3


def test_no_metadata_at_all(reranker):
    """LlamaIndex itself refuses None as metadata; an empty dict and None values are fine."""
    with pytest.raises(ValueError, match="metadata"):
        TextNode(text=MUSEUM, metadata=None)
    nodes = [NodeWithScore(node=TextNode(text=MUSEUM, metadata={"author": None}))]
    for mode in MetadataMode:
        adapter = CrossEncoderPostprocessor(reranker=reranker, metadata_mode=mode)
        (node,) = adapter.postprocess_nodes(nodes, query_str="museum")
        assert node.metadata["author"] is None


def test_numpy_scalars_in_metadata(reranker):
    """They stay what they are; what we add is native, and JSON can be made of it."""
    year = np.int64(1902)
    node = TextNode(text=MUSEUM, metadata={"year": year, "weight": np.float32(0.5)})
    (reranked,) = CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes(
        [NodeWithScore(node=node, score=np.float64(0.25))], query_str="museum"
    )
    assert reranked.metadata["year"] is year
    ours = {key: value for key, value in reranked.metadata.items() if "_" in key}
    assert json.loads(json.dumps(ours)) == ours
    assert {type(value) for value in ours.values()} == {float, int, str}


def test_metadata_that_have_our_names_already(reranker):
    """A relevance_score of someone else's is replaced in the copy, and kept in the original."""
    node = TextNode(text=MUSEUM, metadata={"relevance_score": "high", "rerank_rank": 99})
    (reranked,) = CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes(
        [NodeWithScore(node=node)], query_str="museum"
    )
    assert reranked.metadata["relevance_score"] == reranked.score
    assert reranked.metadata["rerank_rank"] == 1
    assert node.metadata == {"relevance_score": "high", "rerank_rank": 99}


def test_a_cut_query_still_ranks_by_the_passage(tiny):
    """A query longer than the model is capped; the passages still get different scores."""
    adapter = CrossEncoderPostprocessor(reranker=tiny)
    reranked = adapter.postprocess_nodes(
        found([MUSEUM, VOWELLED, "Bread."]), query_str=QUERIES["longer than any model"]
    )
    assert len({node.score for node in reranked}) == 3


@pytest.mark.parametrize("text", [None, 3, b"bytes"])
def test_a_query_that_is_no_text(text, reranker):
    """The error names the type."""
    from llama_index.core.schema import QueryBundle

    with pytest.raises(InvalidInputError, match=type(text).__name__):
        CrossEncoderPostprocessor(reranker=reranker).postprocess_nodes(
            found(), query_bundle=QueryBundle(text)
        )
