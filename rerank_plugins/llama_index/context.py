"""From nodes to the text of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from rerank_plugins.context import Context, ContextBuilder, ContextPassage
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index._nodes import check_nodes, finite_score


def pack_context(
    nodes: Iterable[NodeWithScore],
    *,
    builder: ContextBuilder | None = None,
    source: str | Callable[[BaseNode], str | None] = "file_name",
    metadata_mode: MetadataMode = MetadataMode.NONE,
) -> Context:
    """The nodes that fit into a token budget, labelled for citation, and an account of all.

    Args:
        nodes: Best first, as reranking gives them.
        builder: Budget, order and the like; None for a `ContextBuilder` with its defaults.
        source: What to cite a node as: the metadata field with it, or a function of the node.
            ``file_name`` is what LlamaIndex's readers write.
        metadata_mode: Which metadata goes into the text.

    Raises:
        InvalidInputError: An element is no NodeWithScore, or a source is no text.
    """
    listed = check_nodes(list(nodes))
    builder = ContextBuilder() if builder is None else builder
    return builder.build(
        ContextPassage(
            node.node.get_content(metadata_mode),
            _source(node.node, source),
            # A score that stands for a first-stage rank cannot be held to a minimum.
            None if node.metadata.get("relevance_scale") == "first_stage" else finite_score(node),
        )
        for node in listed
    )


def format_context(
    nodes: Iterable[NodeWithScore],
    *,
    builder: ContextBuilder | None = None,
    source: str | Callable[[BaseNode], str | None] = "file_name",
    metadata_mode: MetadataMode = MetadataMode.NONE,
) -> str:
    """The text of `pack_context`, ready for a prompt."""
    return pack_context(nodes, builder=builder, source=source, metadata_mode=metadata_mode).text


def _source(node: BaseNode, source: str | Callable[[BaseNode], str | None]) -> str | None:
    name = source(node) if callable(source) else node.metadata.get(source)
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(
            f"a source must be text, but that of node {node.node_id!r} is {type(name).__name__}"
        )
    return name
