"""Nodes to candidates and back: texts in, stamped copies out; no node is ever written to."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
)

from rerank_plugins._adapters import Detail, score_metadata
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError

# RetrieverTool hands the retriever and its postprocessors "\ninput is <query>\n".
_TOOL_QUERY = re.compile(r"\ninput is (.*)\n", re.DOTALL)


def query_text(query_bundle: QueryBundle | None) -> str:
    """What the user asked, without the wrapping that RetrieverTool puts around it.

    Raises:
        InvalidInputError: There is no query.
    """
    if query_bundle is None:
        raise InvalidInputError(
            "reranking needs a query: pass query_str or query_bundle, but got neither"
        )
    text = query_bundle.query_str
    if not isinstance(text, str):
        raise InvalidInputError(f"query must be text, but got {type(text).__name__}")
    wrapped = _TOOL_QUERY.fullmatch(text)
    return (wrapped.group(1) if wrapped else text).strip()


def without_tool_words(query_bundle: QueryBundle) -> QueryBundle:
    """The same query as `query_text` reads it."""
    return replace(query_bundle, query_str=query_text(query_bundle))


def check_nodes(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """The same nodes.

    Raises:
        InvalidInputError: An element is no NodeWithScore.
    """
    for position, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            raise InvalidInputError(
                f"nodes must be NodeWithScore, but number {position} is {type(node).__name__}"
            )
    return nodes


def node_text(node: BaseNode, mode: MetadataMode) -> str:
    """The text that is indexed or scored.

    Raises:
        InvalidInputError: The node holds an image, audio or video and no text.
    """
    text = node.get_content(metadata_mode=mode)
    if not text and _is_media(node):
        raise InvalidInputError(
            f"every node must have text, but node {node.node_id!r} ({type(node).__name__}) has "
            "only media; give it a caption as its text, or take it out of the list"
        )
    return text


def _is_media(node: BaseNode) -> bool:
    if isinstance(node, ImageNode):
        return any((node.image, node.image_path, node.image_url))
    if isinstance(node, Node):
        return any((node.image_resource, node.audio_resource, node.video_resource))
    return False


def copied(node: BaseNode, **changes: Any) -> BaseNode:
    """A copy whose metadata, exclusions and relationships can change without the original."""
    own = {
        "metadata": dict(node.metadata),
        "excluded_embed_metadata_keys": list(node.excluded_embed_metadata_keys),
        "excluded_llm_metadata_keys": list(node.excluded_llm_metadata_keys),
        "relationships": dict(node.relationships),
    }
    return node.model_copy(update=own | changes)


def stamped(node: BaseNode, stamps: Mapping[str, Any]) -> BaseNode:
    """A copy with the stamps in its metadata, and out of what embedders and LLMs read."""
    hidden_from_embedders = dict.fromkeys((*node.excluded_embed_metadata_keys, *stamps))
    hidden_from_llms = dict.fromkeys((*node.excluded_llm_metadata_keys, *stamps))
    return copied(
        node,
        metadata={**node.metadata, **stamps},
        excluded_embed_metadata_keys=list(hidden_from_embedders),
        excluded_llm_metadata_keys=list(hidden_from_llms),
    )


def finite_score(node: NodeWithScore) -> float | None:
    """The score; None when it is no finite number, as the cosine of a zero vector may be."""
    score = None if node.score is None else float(node.score)
    return score if score is not None and math.isfinite(score) else None


def to_candidates(
    nodes: Sequence[NodeWithScore], mode: MetadataMode, stamp_names: Collection[str]
) -> list[Candidate]:
    """One candidate a node, in the order given; its key is the position.

    Args:
        nodes: Of any first stage.
        mode: Which metadata is scored with the text.
        stamp_names: Metadata that an earlier pass of ours left; it is never scored.

    Raises:
        InvalidInputError: A node has no text.
    """
    candidates = []
    for position, found in enumerate(nodes):
        node = found.node
        if mode is MetadataMode.ALL and not node.metadata.keys().isdisjoint(stamp_names):
            kept = {key: value for key, value in node.metadata.items() if key not in stamp_names}
            node = copied(node, metadata=kept)
        candidates.append(
            Candidate(
                key=position,
                text=node_text(node, mode),
                score=finite_score(found),
                rank=position + 1,
            )
        )
    return candidates


def to_nodes(
    ranking: Ranking, nodes: Sequence[NodeWithScore], details: Sequence[Detail], prefix: str
) -> list[NodeWithScore]:
    """Copies of the nodes that the ranking kept, in its order, with its scores."""
    reranked = []
    for item in ranking:
        given = nodes[item.candidate.key]
        stamps = score_metadata(item, ranking, details, prefix) if details else {}
        node = stamped(given.node, stamps)
        reranked.append(given.model_copy(update={"node": node, "score": item.score}))
    return reranked
