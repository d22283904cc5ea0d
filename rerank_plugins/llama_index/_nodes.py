"""Nodes to records and candidates, and back: no node is ever written to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    MetadataMode,
    Node,
    NodeWithScore,
    ObjectType,
    QueryBundle,
    RelatedNodeInfo,
)
from llama_index.core.storage.docstore import BaseDocumentStore
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc

from rerank_plugins._adapters import RELEVANCE_SCORE, Detail, score_metadata
from rerank_plugins._stamps import finite
from rerank_plugins._validation import check_choice, check_each
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.collection import Record, check_id, own
from rerank_plugins.errors import InvalidInputError

# RetrieverTool hands the retriever and its postprocessors "\ninput is <query>\n".
_TOOL_QUERY = re.compile(r"\ninput is (.*)\n", re.DOTALL)


def query_text(query_bundle: QueryBundle | None) -> str:
    """What the user asked, without the wrapping that RetrieverTool puts around it.

    Raises:
        InvalidInputError: If there is no query.
    """
    if query_bundle is None:
        raise InvalidInputError(
            "reranking needs a query: pass query_str or query_bundle, but got neither"
        )
    if not isinstance(query_bundle, QueryBundle):
        raise InvalidInputError(
            f"query_bundle must be a QueryBundle, but got {type(query_bundle).__name__}: a text "
            "is passed as query_str"
        )
    text = query_bundle.query_str
    if not isinstance(text, str):
        raise InvalidInputError(f"query must be text, but got {type(text).__name__}")
    wrapped = _TOOL_QUERY.fullmatch(text)
    return (wrapped.group(1) if wrapped else text).strip()


def without_tool_words(query_bundle: QueryBundle) -> QueryBundle:
    """The same query as `query_text` reads it."""
    return replace(query_bundle, query_str=query_text(query_bundle))


def checked_mode(mode: MetadataMode | str) -> MetadataMode:
    """The mode, also by its name; an InvalidInputError if there is none of that name."""
    names = [one.value for one in MetadataMode]
    check_choice("metadata_mode", mode.value if isinstance(mode, MetadataMode) else mode, names)
    return MetadataMode(mode)


def check_nodes(nodes: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    """The nodes as a list; an InvalidInputError if an element is something else."""
    return check_each("nodes", nodes, NodeWithScore, "NodeWithScore")


def nodes_of(
    nodes: Iterable[BaseNode] | None,
    docstore: BaseDocumentStore | None = None,
    index: BaseIndex[Any] | None = None,
) -> list[BaseNode]:
    """The nodes from the one source given.

    Raises:
        InvalidInputError: If there is no source or more than one, an element is not a node, or
            the index keeps its nodes in its vector store alone.
    """
    sources = {"nodes": nodes, "docstore": docstore, "index": index}
    given = [name for name, source in sources.items() if source is not None]
    if len(given) != 1:
        raise InvalidInputError(
            f"give one of nodes, docstore and index, but got {' and '.join(given) or 'none'}"
        )
    if index is not None:
        docstore = index.docstore
        store = getattr(index, "vector_store", None)
        if not docstore.docs and getattr(store, "stores_text", False):
            raise InvalidInputError(
                f"the index must have its nodes in its docstore, but {type(store).__name__} keeps "
                "them to itself: pass nodes=, or build it with store_nodes_override=True"
            )
    given_nodes = nodes if docstore is None else docstore.docs.values()
    # Not BaseNode, which is abstract to mypy.
    listed: list[BaseNode] = check_each("nodes", given_nodes, BaseNode, "LlamaIndex nodes")  # type: ignore[type-abstract]
    return listed


def records_of(nodes: Iterable[BaseNode], mode: MetadataMode) -> list[Record]:
    """Records of the nodes, which are copied.

    What holds an image, audio or video and neither text nor an embedding is hidden.

    Raises:
        InvalidInputError: If a node's id is not one, or its metadata cannot be copied.
    """
    mode = checked_mode(mode)
    records = []
    for node in nodes:
        kept, source = copied(node), node.source_node
        text = kept.get_content(metadata_mode=mode)
        name = "None" if source is None else source.node_id
        metadata = {**kept.metadata, "doc_id": name, "document_id": name, "ref_doc_id": name}
        vector = kept.embedding
        hidden = is_media(kept, text) and vector is None
        records.append(Record(check_id(kept.node_id), text, metadata, kept, vector, hidden))
    return records


def line_of(record: Record) -> dict[str, Any]:
    """A node as LlamaIndex's own document stores write it, and which metadata its text has.

    Raises:
        InvalidInputError: If it would not come back as it is: a custom class, metadata that
            is not JSON, or an object behind an IndexNode.
    """
    node = record.item
    try:
        line = {**doc_to_json(node), TYPE_KEY: ObjectType(node.get_type()).value}
        back = json_to_doc(line)
        same = type(back) is type(node) and back == node
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"node {node.node_id!r} cannot be stored: {error}") from error
    if not same:
        raise InvalidInputError(
            f"node {node.node_id!r} ({type(node).__name__}) cannot be stored: it would come back "
            f"as another {type(back).__name__}"
        )
    modes = (mode.value for mode in MetadataMode if node.get_content(mode) == record.text)
    return {**line, "mode": next(modes)}


def record_of(line: Mapping[str, Any]) -> Record:
    """The record that `line_of` gave."""
    node = json_to_doc({DATA_KEY: line[DATA_KEY], TYPE_KEY: line[TYPE_KEY]})
    (record,) = records_of([node], MetadataMode(line["mode"]))
    return record


def is_media(node: BaseNode, text: str) -> bool:
    """Whether it holds an image, audio or video, and no text that could be read."""
    if text:
        return False
    if isinstance(node, ImageNode):
        return any((node.image, node.image_path, node.image_url))
    if isinstance(node, Node):
        return any((node.image_resource, node.audio_resource, node.video_resource))
    return False


def copied(node: BaseNode, added: Mapping[str, Any] | None = None) -> BaseNode:
    """A copy that can change without the original, with more metadata.

    The added ones are kept out of what embedders and LLMs read.
    """
    extra = added or {}
    embed, llm = node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys
    relationships = {name: _related(one) for name, one in node.relationships.items()}
    return node.model_copy(
        update={
            "metadata": {**own(node.metadata), **extra},
            "embedding": None if node.embedding is None else list(node.embedding),
            "excluded_embed_metadata_keys": list(dict.fromkeys((*embed, *extra))),
            "excluded_llm_metadata_keys": list(dict.fromkeys((*llm, *extra))),
            "relationships": relationships,
        }
    )


def _related(given: RelatedNodeInfo | list[RelatedNodeInfo]) -> Any:
    if isinstance(given, list):
        return [_related(one) for one in given]
    return given.model_copy(update={"metadata": own(given.metadata)})


def to_candidates(
    nodes: Sequence[NodeWithScore], mode: MetadataMode, details: Iterable[Detail], prefix: str
) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates in the order given, keys the positions: those with text, and media without.

    Args:
        nodes: Of any first stage.
        mode: Which metadata is scored with the text.
        details: What an earlier pass of ours may have left in the metadata; it is never scored.
        prefix: In front of their names.
    """
    stamps = {RELEVANCE_SCORE, *(prefix + detail for detail in details)}
    readable: list[Candidate] = []
    media: list[Candidate] = []
    for position, found in enumerate(nodes):
        node = found.node
        if mode is MetadataMode.ALL and not node.metadata.keys().isdisjoint(stamps):
            kept = {key: value for key, value in node.metadata.items() if key not in stamps}
            node = node.model_copy(update={"metadata": kept})
        text = node.get_content(metadata_mode=mode)
        candidate = Candidate(position, text, finite(found.score), position + 1)
        (media if is_media(node, text) else readable).append(candidate)
    return readable, media


def to_nodes(
    ranking: Ranking, nodes: Sequence[NodeWithScore], details: Sequence[Detail], prefix: str
) -> list[NodeWithScore]:
    """Copies of the nodes that the ranking kept, in its order, with its scores."""
    reranked = []
    for item in ranking:
        given = nodes[item.candidate.key]
        content = given.node.get_content(MetadataMode.NONE)
        stamps = score_metadata(item, ranking, details, prefix, content) if details else {}
        update = {"node": copied(given.node, stamps), "score": item.score}
        reranked.append(given.model_copy(update=update))
    return reranked
