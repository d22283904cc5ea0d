"""What the retrievers of this package share: nodes in, a first stage over their texts."""

from __future__ import annotations

import os
import sys
import threading
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
from rerank_plugins._validation import check_count, check_iterable, check_names
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25, Dense, storage
from rerank_plugins.first_stage.fusion import check_restored
from rerank_plugins.llama_index._filters import filter_mask
from rerank_plugins.llama_index._nodes import copied, node_text, query_text
from rerank_plugins.llama_index._stored import read_nodes, write_nodes


class StageRetriever(BaseRetriever):
    """A first stage as a LlamaIndex retriever.

    Args:
        nodes: What can be found, in the order of the stage's keys.
        stage: Searches the nodes' texts.
        metadata_mode: Which metadata is in those texts.
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
        stage: BM25 | Dense,
        *,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: MetadataFilters | None = None,
        **fields: Any,
    ) -> None:
        self._nodes = dict(zip(stage.keys, nodes, strict=True))
        self._changing = threading.Lock()
        self.stage = stage
        self.metadata_mode = metadata_mode
        self.similarity_top_k = check_count("similarity_top_k", similarity_top_k)
        self.filters = filters
        super().__init__(**fields)

    @property
    def nodes(self) -> list[BaseNode]:
        """What can be found."""
        return list(self._nodes.values())

    def insert_nodes(self, nodes: Iterable[BaseNode]) -> None:
        """Adds nodes, kept as copies; one whose id is there, or twice in the list, replaces it.

        Raises:
            InvalidInputError: An element is no node, or has no text.
        """
        newest = {node.node_id: node for node in nodes_of(nodes, None, None)}
        with self._changing:
            replaced = [key for key, node in self._nodes.items() if node.node_id in newest]
            keys = self.stage.add(texts_of(newest.values(), self.metadata_mode))
            self._nodes.update(zip(keys, newest.values(), strict=True))
            self._remove(replaced)

    def delete_nodes(self, node_ids: Iterable[str]) -> None:
        """Makes nodes unfindable; ids that no node has are passed over."""
        unwanted = set(check_names(node_ids))
        with self._changing:
            self._remove([key for key, node in self._nodes.items() if node.node_id in unwanted])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes nodes and index to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole. The
        filters are stored; ``callback_manager``, ``object_map`` and ``objects`` are not.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A node would not come back from JSON as it is.
        """
        storage.save(path, f"llama_index.{type(self).__name__}", self.store)

    def store(self, out: storage.Writer) -> None:
        """Gives nodes, index and settings to a writer."""
        with self._changing:
            out.settings |= {
                "similarity_top_k": self.similarity_top_k,
                "metadata_mode": self.metadata_mode.value,
                "filters": None if self.filters is None else self.filters.model_dump_json(),
            }
            write_nodes(out, self._nodes.values())
            self.stage.store(out.part("stage"), texts=False)

    def check(self) -> None:
        """Checks that the encoder or the analyzer of a restored retriever is what it was.

        Raises:
            IndexMismatchError: It is not.
        """
        check_restored(self.stage)

    def _remove(self, keys: list[int]) -> None:
        for key in keys:
            del self._nodes[key]
        self.stage.remove(keys)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Again when a writer was half done: a key without its node, a mask too short."""
        try:
            return self._retrieve_once(query_bundle)
        except (KeyError, IndexError, InvalidInputError):
            with self._changing:
                return self._retrieve_once(query_bundle)

    def _retrieve_once(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = dict(self._nodes)
        kept = filter_mask(list(nodes.values()), self.filters)
        mask = None
        if kept is not None:
            mask = np.zeros(self.stage.keys_given, dtype=np.bool_)
            mask[list(nodes)] = kept
        found = self._search(query_bundle, mask)
        return keep_zero_scores(
            [NodeWithScore(node=copied(nodes[one.key]), score=one.score) for one in found]
        )

    def _search(self, query_bundle: QueryBundle, mask: NDArray[np.bool_] | None) -> list[Candidate]:
        return self.stage.search(query_text(query_bundle), self.similarity_top_k, mask=mask)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


def restored_options(
    part: storage.Reader, fields: dict[str, Any]
) -> tuple[list[BaseNode], list[str], dict[str, Any]]:
    """What `StageRetriever.store` gave: nodes, the texts of them, and options.

    Options in ``fields`` go before stored ones.
    """
    told = part.settings
    nodes = read_nodes(part)
    mode = MetadataMode(told["metadata_mode"])
    filters = told["filters"]
    stored = {
        "similarity_top_k": told["similarity_top_k"],
        "filters": None if filters is None else MetadataFilters.model_validate_json(filters),
        "metadata_mode": mode,
    }
    return nodes, texts_of(nodes, mode), {**stored, **fields}


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
    given_nodes = docstore.docs.values() if docstore is not None else nodes
    listed = list(check_iterable("nodes", given_nodes))
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
