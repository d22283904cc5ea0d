"""Mistakes that LlamaIndex' users make, and where the messages lead them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import TextNode
from llama_index.core.tools import RetrieverTool, ToolMetadata

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index import (
    BM25Retriever,
    BundledEmbedding,
    CrossEncoderPostprocessor,
    FaissRetriever,
    HybridRetriever,
)
from rerank_plugins.testing import OverlapScorer

NODE = TextNode(text="The museum opens at nine.")
MAKERS: dict[str, Callable[..., BaseRetriever]] = {
    "BM25Retriever": lambda **options: BM25Retriever([NODE], **options),
    "FaissRetriever": lambda **options: FaissRetriever([NODE], **options),
    "HybridRetriever": lambda **options: HybridRetriever([BM25Retriever([NODE])], **options),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("option", ["top_k", "k", "similarity_topk"])
def test_an_option_of_a_retriever_that_it_does_not_have(name: str, option: str) -> None:
    """The message names the class that was called, and the option that was meant."""
    said = f"{name} has no option '{option}' .did you mean 'similarity_top_k'"
    with pytest.raises(InvalidInputError, match=said):
        MAKERS[name](**{option: 3})


def test_options_of_a_subclass_and_of_any_retriever_are_known() -> None:
    """Theirs are not mistakes."""

    class Mine(BM25Retriever):
        def __init__(self, *args: Any, team: str, **options: Any) -> None:
            self.team = team
            super().__init__(*args, **options)

    assert Mine([NODE], team="a", similarity_top_k=1, verbose=True).retrieve("museum")
    with pytest.raises(InvalidInputError, match=r"Mine has no option 'teem'.*'team'"):
        Mine([NODE], team="a", teem="b")


@pytest.mark.parametrize(
    "call",
    [
        lambda: BM25Retriever(NODE),
        lambda: BM25Retriever([NODE]).insert_nodes(NODE),
        lambda: HybridRetriever(BM25Retriever([NODE])),
    ],
)
def test_one_object_in_place_of_a_list(call: Callable[[], object]) -> None:
    """Pydantic's objects are iterable: their fields would be taken for elements."""
    with pytest.raises(InvalidInputError, match=r"must be a list, but got one \w+: put it in"):
        call()


def test_a_text_in_place_of_a_query_bundle() -> None:
    """The message names the argument that takes a text."""
    postprocessor = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()))
    nodes = BM25Retriever([NODE]).retrieve("museum")
    with pytest.raises(InvalidInputError, match="query_str"):
        postprocessor.postprocess_nodes(nodes, query_bundle="museum")


@pytest.mark.parametrize("top_n", ["3", -1, 1.5])
def test_a_wrong_number_set_later(top_n: object) -> None:
    """As at the start: the rule and the value, not an error of an event's fields."""
    postprocessor = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()))
    postprocessor.top_n = top_n
    nodes = BM25Retriever([NODE]).retrieve("museum")
    with pytest.raises(InvalidInputError, match=f"top_n must be .* but got {top_n!r}"):
        postprocessor.postprocess_nodes(nodes, query_str="museum")


@pytest.mark.parametrize(
    "call",
    [
        lambda mode: BM25Retriever([NODE], metadata_mode=mode),
        lambda mode: HybridRetriever.from_nodes([NODE], metadata_mode=mode),
        lambda mode: CrossEncoderPostprocessor(metadata_mode=mode),
    ],
)
def test_a_metadata_mode_that_does_not_exist(call: Callable[[object], object]) -> None:
    """Those that do are listed; their names will do."""
    with pytest.raises(InvalidInputError, match=r"metadata_mode must be one of \['all', 'embed'"):
        call("text")
    call("none")


def test_an_embedding_s_option_that_does_not_exist() -> None:
    """LlamaIndex' embeddings pass over them without a word."""
    with pytest.raises(InvalidInputError, match=r"BundledEmbedding has no option 'model' .*name'"):
        BundledEmbedding(model="bundled-static")
    made = BundledEmbedding(model_name="bundled-static", embed_batch_size=3)
    assert BundledEmbedding.from_dict(made.to_dict()).embed_batch_size == 3


async def test_an_agent_s_empty_query_finds_nothing_and_fails_nowhere() -> None:
    """Retrievers find nothing for it, and nothing is reranked by nothing."""
    tool = RetrieverTool(
        BM25Retriever([NODE]),
        ToolMetadata(name="facts", description="About the museum"),
        node_postprocessors=[CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()))],
    )
    assert tool(input="").content == ""
    assert (await tool.acall(input=" ")).content == ""
    assert "nine" in tool(input="museum").content
