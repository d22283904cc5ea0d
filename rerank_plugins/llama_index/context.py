"""From nodes to the text of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from rerank_plugins._adapters import context_builder, context_passage
from rerank_plugins._stamps import finite
from rerank_plugins.context import Context, ContextBuilder
from rerank_plugins.llama_index._nodes import check_nodes

Source = str | Callable[[BaseNode], object]


def pack_context(
    nodes: Iterable[NodeWithScore],
    *,
    builder: ContextBuilder | None = None,
    source: Source = "file_name",
    metadata_mode: MetadataMode = MetadataMode.NONE,
) -> Context:
    """The nodes that fit into a token budget, labelled for citation, and an account of all.

    Args:
        nodes: Best first, as reranking gives them.
        builder: Budget, order and the like; None for a `ContextBuilder` with its defaults. Its
            ``min_score`` is held against the nodes' ``score``.
        source: What to cite a node as: the metadata field with it, or a function of the node;
            None, or no such field, for a label alone. ``file_name`` is what LlamaIndex's
            readers write.
        metadata_mode: Which metadata goes into the text.

    Raises:
        InvalidInputError: If an element is not a NodeWithScore.
    """
    return context_builder(builder).build(
        context_passage(
            found.node,
            found.node.get_content(metadata_mode),
            found.node.metadata,
            source=source,
            score=finite(found.score),
            content=found.node.get_content(MetadataMode.NONE),
        )
        for found in check_nodes(nodes)
    )


def format_context(
    nodes: Iterable[NodeWithScore],
    *,
    builder: ContextBuilder | None = None,
    source: Source = "file_name",
    metadata_mode: MetadataMode = MetadataMode.NONE,
    **options: Any,
) -> str:
    """The text of `pack_context`, ready for a prompt.

    ::

        nodes = engine.retrieve(QueryBundle(question))  # retrieved and reranked
        format_context(nodes, max_tokens=1500, passages="spans")

    Args:
        nodes: Same as in `pack_context`.
        builder: A ready `ContextBuilder`, in place of ``options``.
        source: Same as in `pack_context`.
        metadata_mode: Same as in `pack_context`.
        **options: Those of `ContextBuilder`: ``max_tokens``, ``min_score``, ``order`` ...

    Raises:
        InvalidInputError: As in `pack_context`; or if an option is invalid, or options come
            beside a builder.
    """
    used = context_builder(builder, options)
    return pack_context(nodes, builder=used, source=source, metadata_mode=metadata_mode).text
