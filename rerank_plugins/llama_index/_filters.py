"""Which of the indexed nodes pass MetadataFilters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError


def filter_mask(
    nodes: Sequence[BaseNode], filters: MetadataFilters | None
) -> NDArray[np.bool_] | None:
    """Shape (nodes,), True where a node passes; None when there is nothing to pass.

    Each filter means what it means in LlamaIndex's own in-memory store, which knows the
    source document as ``doc_id``, ``document_id`` and ``ref_doc_id`` beside the metadata.

    Raises:
        InvalidInputError: It is no MetadataFilters, or a filter's value cannot be compared
            with the metadata of a node.
    """
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise InvalidInputError(
            f"filters must be MetadataFilters, but got {type(filters).__name__}"
        )
    metadata = {str(key): _with_source(node) for key, node in enumerate(nodes)}
    passes = _predicate(metadata, filters)
    mask = np.empty(len(nodes), dtype=np.bool_)
    key = 0
    try:
        for key in range(len(nodes)):
            mask[key] = passes(str(key))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            "filters must compare with the metadata of every node, but those of node "
            f"{nodes[key].node_id!r} do not: {error}"
        ) from error
    return mask


def _with_source(node: BaseNode) -> Mapping[str, Any]:
    source = node.source_node
    name = "None" if source is None else source.node_id
    return {**node.metadata, "doc_id": name, "document_id": name, "ref_doc_id": name}


def _predicate(
    metadata: Mapping[str, Mapping[str, Any]], filters: MetadataFilters
) -> Callable[[str], bool]:
    """LlamaIndex's own test of each filter; also inside other filters, where it has none."""
    parts = [
        _predicate(metadata, part)
        if isinstance(part, MetadataFilters)
        else build_metadata_filter_fn(metadata.__getitem__, MetadataFilters(filters=[part]))
        for part in filters.filters
    ]
    if parts and filters.condition is FilterCondition.OR:
        return lambda key: any(part(key) for part in parts)
    if filters.condition is FilterCondition.NOT:
        return lambda key: not any(part(key) for part in parts)
    return lambda key: all(part(key) for part in parts)
