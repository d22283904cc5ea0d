"""What the retrievers of this package share: filters, and collections of nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, ClassVar, cast

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import (
    BaseNode,
    IndexNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    QueryType,
)
from llama_index.core.vector_stores.types import MetadataFilters
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._names import check_options, own_options
from rerank_plugins._threads import off_loop
from rerank_plugins._validation import check_count
from rerank_plugins.collection import Collection, Compare, Filter, Record, check_id
from rerank_plugins.collection.stored import Place, Staged, Stored
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.llama_index._filters import both, read_filters
from rerank_plugins.llama_index._nodes import (
    checked_mode,
    copied,
    line_of,
    nodes_of,
    record_of,
    records_of,
    without_tool_words,
)
from rerank_plugins.llama_index.embedding import BundledEmbedding


class FilteringRetriever(BaseRetriever):
    """A retriever with filters; a query's filters further narrow the retriever's."""

    _filters: MetadataFilters | None = None

    @property
    def filters(self) -> MetadataFilters | None:
        """What a node must pass to be returned; None for no filter.

        Raises:
            InvalidInputError: When it is set to something else.
        """
        return self._filters

    @filters.setter
    def filters(self, filters: MetadataFilters | None) -> None:
        read_filters(filters)
        self._filters = filters

    def with_filters(self, filters: MetadataFilters | None) -> Self:
        """The same retriever over the same nodes, with these filters beside its own."""
        narrowed = copy(self)
        narrowed.filters = both(self._filters, filters)
        return narrowed

    def retrieve(
        self, str_or_query_bundle: QueryType, *, filters: MetadataFilters | None = None
    ) -> list[NodeWithScore]:
        """What is found for a query, best first.

        Args:
            str_or_query_bundle: A blank query finds nothing.
            filters: For this query, beside the retriever's own.
        """
        if filters is not None:
            return self.with_filters(filters).retrieve(str_or_query_bundle)
        return super().retrieve(str_or_query_bundle)

    async def aretrieve(
        self, str_or_query_bundle: QueryType, *, filters: MetadataFilters | None = None
    ) -> list[NodeWithScore]:
        """`retrieve` that leaves the event loop free."""
        if filters is not None:
            return await self.with_filters(filters).aretrieve(str_or_query_bundle)
        return await super().aretrieve(str_or_query_bundle)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        bundle = without_tool_words(query_bundle)
        plan = self._plan(bundle)
        return keep_zero_scores(self._find(bundle, plan)) if self._asks(bundle) else []

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        bundle = without_tool_words(query_bundle)
        plan = self._plan(bundle)
        return keep_zero_scores(await self._afind(bundle, plan)) if self._asks(bundle) else []

    @staticmethod
    def _asks(bundle: QueryBundle) -> bool:
        """Whether there is anything to look for."""
        return not blank(bundle.query_str)

    def _plan(self, bundle: QueryBundle) -> Any:
        """What filters and settings come to, checked; also for a blank query."""
        raise NotImplementedError

    def _find(self, bundle: QueryBundle, plan: Any) -> list[NodeWithScore]:
        raise NotImplementedError

    async def _afind(self, bundle: QueryBundle, plan: Any) -> list[NodeWithScore]:
        raise NotImplementedError


class Collected(Stored):
    """Nodes in one or more collections; its class has ``filters``."""

    _ENCODER: ClassVar[str] = "embed_model"
    filters: MetadataFilters | None

    def _records(self, nodes: list[BaseNode]) -> list[Record]:
        """Of nodes, with the metadata that is searched in their texts."""
        raise NotImplementedError

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embed_model: BaseEmbedding | None = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **options: Any,
    ) -> Self:
        """Reads what `save` wrote, its arrays mapped from the disk; nothing is pickled.

        Args:
            path: The folder.
            embed_model: What embedded the nodes, which is not stored; None for the bundled one.
            analyzer: What read the words, where it was not a language's.
            **options: As in the class, in place of the stored ones; ``callback_manager``,
                ``object_map`` and ``objects`` are not stored.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: If another version of this library wrote it.
            IndexMismatchError: If model or analyzer give other vectors or terms than they did,
                or the index is of another kind.
        """
        model = checked_model(embed_model) if cls._EMBEDS else None
        given = options if model is None else {**options, "embed_model": model}
        return cls._load(path, model, analyzer, given)

    @property
    def nodes(self) -> list[BaseNode]:
        """Copies of what can be found."""
        return [copied(record.item) for record in self._collections()[0].view]

    def insert_nodes(self, nodes: Iterable[BaseNode]) -> None:
        """Adds nodes, kept as copies; one whose id is there, or twice in the list, replaces it.

        A node's ``embedding`` is used where it has one. A node with an image and no text is
        kept, and found by its embedding alone.

        Raises:
            InvalidInputError: If an element is not a node.
        """
        self._add(self._records(nodes_of(nodes)))

    async def ainsert_nodes(self, nodes: Iterable[BaseNode]) -> None:
        """`insert_nodes` that leaves the event loop free and awaits the embedding."""
        await self._aadd(self._records(nodes_of(nodes)))

    def delete_nodes(self, node_ids: Iterable[str]) -> None:
        """Makes nodes unfindable; ids that no node has are passed over."""
        self._delete(node_ids)

    def delete_ref_doc(self, ref_doc_id: str) -> None:
        """Makes all nodes of a source document unfindable."""
        self._delete_where(Compare("ref_doc_id", "eq", check_id(ref_doc_id)))

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        filters = None if self.filters is None else self.filters.model_dump_json()
        return super()._told(collections) | {"filters": filters}

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        filters = told["filters"]
        kept = None if filters is None else MetadataFilters.model_validate_json(filters)
        return super()._made(told, collections, {"filters": kept, **given})

    @staticmethod
    def _line(record: Record) -> Any:
        return line_of(record)

    @staticmethod
    def _record(line: Any) -> Record:
        return record_of(line)


def check_fields(retriever: type[BaseRetriever], fields: Mapping[str, Any]) -> None:
    """An InvalidInputError if neither the retriever nor what it builds on has such an option."""
    built_on = [one for one in retriever.__mro__ if issubclass(one, BaseRetriever)]
    check_options(
        retriever.__name__, fields, {name for one in built_on for name in own_options(one)}
    )


class StageRetriever(Collected, Staged, FilteringRetriever):
    """One stage of a collection of nodes; `BM25Retriever` and `FaissRetriever` are such."""

    _SETTINGS: ClassVar[tuple[str, ...]] = ("similarity_top_k", "metadata_mode")

    def __init__(
        self,
        collection: Collection,
        *,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: MetadataFilters | None = None,
        **fields: Any,
    ) -> None:
        self.collection = collection
        self._at()  # an error now if it does not have the stage
        self.metadata_mode = checked_mode(metadata_mode)
        self.similarity_top_k = check_count("similarity_top_k", similarity_top_k)
        self.filters = filters
        super().__init__(**fields)

    @property
    def stage(self) -> Any:
        """The index of the nodes' texts as it is now."""
        return self._index()

    def _records(self, nodes: list[BaseNode]) -> list[Record]:
        return records_of(nodes, self.metadata_mode)

    def _place(self) -> Place:
        return Place(self.collection, self._at(), self.filters)

    def _plan(self, bundle: QueryBundle) -> Filter | None:  # noqa: ARG002
        return read_filters(self.filters)

    def _find(
        self, bundle: QueryBundle, plan: Any, vector: list[float] | None = None
    ) -> list[NodeWithScore]:
        found = self._search(bundle.query_str, self.similarity_top_k, plan, vector)
        return [NodeWithScore(node=copied(node), score=score) for node, score in found]

    _afind = off_loop(_find)  # type: ignore[arg-type]


def asked(
    retriever: BaseRetriever, count: int | None, filters: MetadataFilters | None
) -> BaseRetriever:
    """The retriever, set to that ``similarity_top_k`` if it has one, and to these filters.

    Then it is a copy: the retriever is the caller's, and may be in use in another thread.

    Raises:
        InvalidInputError: If there are filters and it cannot be told that it would use them.
    """
    set_up: Any = copy(retriever)
    if count is not None and hasattr(retriever, "similarity_top_k"):
        set_up.similarity_top_k = count
    if filters is None:
        return cast("BaseRetriever", set_up)
    if isinstance(retriever, FilteringRetriever):
        set_up.filters = both(retriever.filters, filters)
    elif isinstance(retriever, VectorIndexRetriever):
        set_up._filters = both(set_up._filters, filters)  # noqa: SLF001  (it has no other door)
    else:
        raise InvalidInputError(
            f"{type(retriever).__name__} takes no filters: set them up on that retriever"
        )
    return cast("BaseRetriever", set_up)


def keep_zero_scores(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """The same nodes; a score of 0.0 of an IndexNode becomes the smallest positive number.

    When BaseRetriever follows an IndexNode to its object it takes 0.0 for a missing
    score and makes it 1.0, which may be the highest of all.
    """
    for found in nodes:
        if found.score == 0.0 and isinstance(found.node, IndexNode):
            found.score = sys.float_info.min
    return nodes


def checked_model(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    """The model, or the bundled one; an InvalidInputError if it is not a BaseEmbedding."""
    embedding = BundledEmbedding() if embed_model is None else embed_model
    if not isinstance(embedding, BaseEmbedding):
        raise InvalidInputError(
            f"embed_model must be a BaseEmbedding, but got {type(embed_model).__name__}"
        )
    return embedding
