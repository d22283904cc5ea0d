"""What the retrievers of this package share: nodes in, a first stage over their texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from copy import copy
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.storage.docstore import BaseDocumentStore
from llama_index.core.vector_stores.types import MetadataFilters
from numpy.typing import NDArray

from rerank_plugins._threads import in_thread
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.llama_index._filters import filter_mask
from rerank_plugins.llama_index._nodes import copied, node_text, query_text
from rerank_plugins.ordering import check_count


class StageRetriever(BaseRetriever):
    """A first stage as a LlamaIndex retriever.

    Args:
        nodes: What can be found, in the order of the stage's keys.
        stage: Searches the nodes' texts.
        similarity_top_k: How many nodes to return at most.
        filters: Metadata that a node must have to be returned.
        **fields: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any
            retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    def __init__(
        self,
        nodes: list[BaseNode],
        stage: FirstStage,
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: MetadataFilters | None = None,
        **fields: Any,
    ) -> None:
        self.nodes = nodes
        self.stage = stage
        self.similarity_top_k = check_count("similarity_top_k", similarity_top_k)
        self.filters = filters
        super().__init__(**fields)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        mask = filter_mask(self.nodes, self.filters)
        found = self._search(query_bundle, mask)
        return keep_zero_scores(
            [NodeWithScore(node=copied(self.nodes[one.key]), score=one.score) for one in found]
        )

    def _search(self, query_bundle: QueryBundle, mask: NDArray[np.bool_] | None) -> list[Candidate]:
        return self.stage.search(query_text(query_bundle), self.similarity_top_k, mask=mask)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


def asked_for(retriever: BaseRetriever, count: int) -> BaseRetriever:
    """The retriever, set to that ``similarity_top_k`` if it has one.

    Then it is a copy: the retriever is the caller's, and may be in use in another thread.
    """
    if not hasattr(retriever, "similarity_top_k"):
        return retriever
    asked: Any = copy(retriever)
    asked.similarity_top_k = count
    return asked  # type: ignore[no-any-return]


def nodes_of(
    nodes: Iterable[BaseNode] | None,
    docstore: BaseDocumentStore | None,
    index: BaseIndex[Any] | None,
) -> list[BaseNode]:
    """Copies of the nodes from the one source given, so that later changes stay outside.

    Raises:
        InvalidInputError: There is no source or more than one, an element is no node, or the
            index keeps its nodes in its vector store alone.
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
    listed = list(docstore.docs.values() if docstore is not None else nodes or ())
    for position, node in enumerate(listed):
        if not isinstance(node, BaseNode):
            raise InvalidInputError(
                f"nodes must be LlamaIndex nodes, but number {position} is {type(node).__name__}"
            )
    return [copied(node) for node in listed]


def texts_of(nodes: Iterable[BaseNode], mode: MetadataMode) -> list[str]:
    """The text of each node; see `node_text`."""
    return [node_text(node, mode) for node in nodes]


def keep_zero_scores(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """The same nodes; a score of 0.0 of an IndexNode becomes the smallest positive number.

    When BaseRetriever goes on to the object behind an IndexNode it takes 0.0 for a missing
    score and makes it 1.0, which may be the highest of all.
    """
    for found in nodes:
        if found.score == 0.0 and isinstance(found.node, IndexNode):
            found.score = sys.float_info.min
    return nodes
