"""Nodes packed into the text of a prompt, and the embedding that ships."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers_llama_index import QUERY, found
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from rerank_plugins import ContextBuilder, Reranker, load_reranker
from rerank_plugins.bundled import BundledEncoder, StaticEncoder
from rerank_plugins.errors import InvalidInputError, ScoringError
from rerank_plugins.llama_index import (
    BM25Retriever,
    BundledEmbedding,
    CrossEncoderPostprocessor,
    FaissRetriever,
    format_context,
    pack_context,
)
from rerank_plugins.testing import OverlapScorer


def words(text: str) -> int:
    """A counter of tokens that needs no model."""
    return len(text.split())


def reranked() -> list[NodeWithScore]:
    """Nodes as they leave the postprocessor."""
    nodes = found(file_name="guide.md")
    postprocessor = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()))
    return postprocessor.postprocess_nodes(nodes, query_str=QUERY)


def test_the_text_has_passages_best_first_with_labels_and_sources():
    """The labels can be cited; neither scores nor other metadata appear in the text."""
    nodes = reranked()
    text = format_context(nodes, max_tokens=1000, count_tokens=words)
    assert text == "\n\n".join(
        f"[{number}] guide.md\n{node.text}" for number, node in enumerate(nodes, start=1)
    )


LONG = " ".join(f"Hall {number} shows maps and coins of the town." for number in range(40))
HIDDEN = f"{LONG} The museum opens at nine. {LONG}"


@pytest.mark.parametrize("mode", [MetadataMode.EMBED, MetadataMode.NONE])
def test_a_query_engine_s_nodes_are_packed_by_their_spans(
    tiny_checkpoints: Mapping[str, Path], mode: MetadataMode
) -> None:
    """Reranked by the engine; spans count in the node, whether metadata is scored or not."""
    nodes = [
        TextNode(text=text, id_=str(n), metadata={"file_name": "guide.md", "part": "The house"})
        for n, text in enumerate([HIDDEN, f"The museum. {LONG}", f"  {HIDDEN}\n"])
    ]
    reranker = load_reranker(
        tiny_checkpoints["bge"], max_length=64, long_passages="max", precision="fp32"
    )
    engine = RetrieverQueryEngine.from_args(
        BM25Retriever(nodes, similarity_top_k=3),
        llm=MockLLM(),
        node_postprocessors=[CrossEncoderPostprocessor(reranker=reranker, metadata_mode=mode)],
    )
    ranked = engine.retrieve(QueryBundle(QUERY))
    assert len(ranked) == 3
    for node in ranked:
        start, end = node.metadata["relevance_span"]
        assert 0 <= start < end <= len(node.text)
    whole = pack_context(ranked, builder=ContextBuilder(400))
    spans = pack_context(ranked, builder=ContextBuilder(400, passages="spans"))
    assert len(spans.passages) > len(whole.passages)
    for packed in spans.passages:
        node = ranked[packed.position]
        start, end = node.metadata["relevance_span"]
        assert node.text[start:end].strip() in packed.text
    shown = pack_context(
        ranked, builder=ContextBuilder(4000, passages="spans"), metadata_mode=MetadataMode.LLM
    )
    for packed in shown.passages:
        node = ranked[packed.position]
        start, end = node.metadata["relevance_span"]
        assert node.text[start:end].strip() in packed.text


def test_a_budget_leaves_out_and_says_so():
    """What does not fit is named with its reason."""
    nodes = reranked()
    context = pack_context(nodes, builder=ContextBuilder(20, count_tokens=words))
    assert context.tokens <= 20
    assert {left.reason for left in context.omitted} == {"budget"}
    assert len(context.passages) + len(context.omitted) == len(nodes)


def test_sources_and_text_are_the_users_choice():
    """A field, a function, or metadata in the text."""
    nodes = [NodeWithScore(node=TextNode(text="Open.", id_="a", metadata={"page": 7}))]
    count = {"count_tokens": words}
    assert format_context(nodes, source="page", **count) == "[1] 7\nOpen."
    assert format_context(nodes, source=lambda node: node.node_id, **count) == "[1] a\nOpen."
    assert format_context(nodes, **count) == "[1]\nOpen."
    assert format_context(nodes, metadata_mode=MetadataMode.LLM, **count) == "[1]\npage: 7\n\nOpen."


def test_a_minimum_score_is_for_models_only():
    """A first-stage order that was kept has no score that could be too low."""
    nodes = reranked()
    least = sorted(node.score for node in nodes)[2]
    some = pack_context(nodes, builder=ContextBuilder(min_score=least, count_tokens=words))
    assert len(some.passages) == 3
    failing = Reranker(OverlapScorer(error=ScoringError("down")), on_error="first_stage")
    kept = CrossEncoderPostprocessor(reranker=failing).postprocess_nodes(found(), query_str=QUERY)
    every = pack_context(kept, builder=ContextBuilder(min_score=0.99, count_tokens=words))
    assert len(every.passages) == len(kept)


def test_wrong_input_is_refused():
    """Nodes without a wrapper, and options beside a ready builder."""
    with pytest.raises(InvalidInputError, match="number 0 is TextNode"):
        format_context([TextNode(text="x")])
    with pytest.raises(InvalidInputError, match="max_tokens"):
        format_context([], builder=ContextBuilder(), max_tokens=3)
    assert format_context([]) == ""


# --- the embedding that ships -----------------------------------------------------------------


@pytest.fixture
def tiny_encoder(tmp_path, monkeypatch) -> StaticEncoder:
    """An encoder of four words and known vectors, in place of the one that ships."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, "museum": 1, "opens": 2, "river": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = np.array([[9, 9], [1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    save_file({"embedding.weight": table}, tmp_path / "model.safetensors")
    encoder = StaticEncoder(tmp_path)
    monkeypatch.setattr(BundledEncoder, "default", staticmethod(lambda: encoder))
    return encoder


def test_the_embedding_gives_the_vectors_of_the_encoder(tiny_encoder):
    """Queries, texts and batches, in both ways, as plain lists of floats."""
    embedding = BundledEmbedding()
    want = pytest.approx([2**-0.5, 2**-0.5])
    assert embedding.get_query_embedding("museum opens") == want
    assert embedding.get_text_embedding("museum opens") == want
    assert embedding.get_text_embedding_batch(["museum opens", "river"]) == [want, [-1.0, 0.0]]
    assert asyncio.run(embedding.aget_query_embedding("museum opens")) == want
    assert asyncio.run(embedding.aget_text_embedding("museum opens")) == want
    batch = asyncio.run(embedding.aget_text_embedding_batch(["museum opens", "river"]))
    assert json.loads(json.dumps(batch)) == [want, [-1.0, 0.0]]


def test_the_embedding_serves_any_index(tiny_encoder):
    """LlamaIndex's own vector index takes it, and so does everything that asks for one."""
    nodes = [TextNode(text="river", id_="river"), TextNode(text="museum", id_="museum")]
    index = VectorStoreIndex(nodes, embed_model=BundledEmbedding())
    assert index.as_retriever(similarity_top_k=1).retrieve("museum opens")[0].node_id == "museum"


def test_faiss_uses_it_when_nothing_else_is_named(tiny_encoder):
    """No embedding model of LlamaIndex's settings is asked for."""
    nodes = [TextNode(text="river", id_="river"), TextNode(text="museum", id_="museum")]
    got = FaissRetriever(nodes).retrieve("museum opens")
    assert [node.node_id for node in got] == ["museum", "river"]
    assert got[0].score == pytest.approx(2**-0.5)


def test_making_the_embedding_reads_nothing(monkeypatch, tmp_path):
    """Only the first text needs the files."""
    empty = StaticEncoder(tmp_path / "nowhere")
    monkeypatch.setattr(BundledEncoder, "default", staticmethod(lambda: empty))
    assert BundledEmbedding().model_name == "bundled-encoder"
