"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection, Filter, Record, View
from rerank_plugins.collection.hybrids import Fused
from rerank_plugins.collection.records import newest
from rerank_plugins.collection.stages import with_added
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Fusion, HybridCandidate
from rerank_plugins.llama_index._filters import both, read_filters
from rerank_plugins.llama_index._nodes import (
    copied,
    finite_score,
    nodes_of,
    records_of,
    without_tool_words,
)
from rerank_plugins.llama_index._retrievers import (
    Collected,
    FilteringRetriever,
    asked,
    checked_model,
    keep_zero_scores,
    made_filters,
    told_filters,
)
from rerank_plugins.llama_index.bm25 import BM25Retriever
from rerank_plugins.llama_index.faiss import FaissRetriever


class HybridNodeWithScore(NodeWithScore):
    """A node with its fused score, and what each retriever thought of it.

    Reranking keeps these too. They are not metadata, so that the node's hash, by which other
    retrievers find duplicates, does not depend on the query.

    Attributes:
        stage_scores: One per retriever, in their order; None where it gave none.
        stage_ranks: Likewise, from 1; None where the retriever did not find the node.
    """

    stage_scores: tuple[float | None, ...] = ()
    stage_ranks: tuple[int | None, ...] = ()

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized forms."""
        return "HybridNodeWithScore"


class HybridRetriever(Fused, Collected, FilteringRetriever):
    """Fuses retrievers by their scores, brought to one scale, or by reciprocal ranks.

    ::

        retriever = HybridRetriever.from_nodes(nodes, similarity_top_k=10)
        retriever = HybridRetriever([BM25Retriever(nodes), index.as_retriever(), any_other])

    Args:
        retrievers: Any, over nodes that have the same ids in each. One that has a
            ``similarity_top_k`` is asked for ``candidates``, without a change to itself.
        similarity_top_k: How many nodes to return at most.
        weights: One positive weight per retriever; None for equal weights.
        fusion: By ``scores`` (a retriever that gives none counts by its ranks) or ``ranks``; see
            `rerank_plugins.first_stage.Hybrid`.
        rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks count.
        candidates: How many to fetch from each, never fewer than ``similarity_top_k``.
        filters: What a node must pass, beside each retriever's own filters; a retriever that
            cannot be given filters is an error then.
        **fields: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any
            retriever.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    _KIND: ClassVar[str] = "llama_index.HybridRetriever"

    def __init__(
        self,
        retrievers: Sequence[BaseRetriever],
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        weights: Sequence[float] | None = None,
        fusion: Fusion = "scores",
        rank_constant: float = 60.0,
        candidates: int = 100,
        filters: MetadataFilters | None = None,
        **fields: Any,
    ) -> None:
        self.retrievers = tuple(retrievers)
        for retriever in self.retrievers:
            if not isinstance(retriever, BaseRetriever):
                raise InvalidInputError(
                    f"retrievers must all be retrievers, but one is {type(retriever).__name__}"
                )
        self.similarity_top_k = check_count("similarity_top_k", similarity_top_k)
        self.weights = weights
        self.fusion = fusion
        self.rank_constant = rank_constant
        self.candidates = candidates
        self._fusion([[] for _ in self.retrievers])  # its rules, now
        self.filters = filters
        self._asked()
        super().__init__(**fields)

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        embed_model: BaseEmbedding | None = None,
        *,
        language: str = "auto",
        engine: str = "auto",
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        **options: Any,
    ) -> Self:
        """BM25 and FAISS over one collection of nodes.

        Args:
            nodes: What can be found; an iterator is read once.
            embed_model: None for the bundled `BundledEmbedding`.
            language: As in `BM25Retriever`.
            engine: As in `BM25Retriever`.
            metadata_mode: Which metadata is searched and embedded with the text.
            **options: As in the class; ``weights`` default to those measured best for the bundled
                encoder, or equal ones for others.
        """
        if embed_model is None:
            options.setdefault("weights", SHIPPED_WEIGHTS)
        model = checked_model(embed_model)
        records = newest(records_of(nodes_of(nodes), metadata_mode))
        words = BM25([record.text for record in records], language=language, engine=engine)
        vectors = with_added(Dense(embed=model), records)
        collection = Collection([words, vectors], records)
        common: dict[str, Any] = {"metadata_mode": metadata_mode, "collection": collection}
        return cls(
            [BM25Retriever(**common), FaissRetriever(embed_model=model, **common)], **options
        )

    def _records(self, nodes: list[BaseNode]) -> list[Record]:
        records: list[Record] = self._own()[0]._records(nodes)  # noqa: SLF001
        return records

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        return {
            "kind": self._KIND,
            "similarity_top_k": self.similarity_top_k,
            "filters": told_filters(self.filters),
            **self._told_inside(collections),
        }

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        inside = {"embed_model": given["embed_model"]}
        own = {name: one for name, one in given.items() if name not in inside}
        stages, settings = cls._made_inside(told, collections, inside)
        settings["similarity_top_k"] = told["similarity_top_k"]
        settings["filters"] = made_filters(told["filters"])
        return cls(stages, **{**settings, **own})

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        bundle, shared = without_tool_words(query_bundle), self._searched(query_bundle)
        query, count = bundle.query_str, self.similarity_top_k
        if blank(query):
            return []
        if shared is not None:
            view, stages, kept = shared
            return _nodes(view.fused(self._hybrid, query, count, kept, stages=stages))
        return self._fused(bundle, [stage.retrieve(bundle) for stage in self._asked()])

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        bundle, shared = without_tool_words(query_bundle), self._searched(query_bundle)
        query, count = bundle.query_str, self.similarity_top_k
        if blank(query):
            return []
        if shared is not None:
            view, stages, kept = shared
            return _nodes(await view.afused(self._hybrid, query, count, kept, stages=stages))
        lists = await asyncio.gather(*(stage.aretrieve(bundle) for stage in self._asked()))
        return self._fused(bundle, lists)

    def _searched(self, bundle: QueryBundle) -> tuple[View, list[int], Filter | None] | None:
        """The view that all retrievers share, their stages and the filter; None if none is."""
        shared = self._shared()
        # A bundle's own vector, or words for embedding, are not for every stage.
        if shared is None or bundle.embedding is not None or bundle.custom_embedding_strs:
            return None
        collection, stages, own = shared
        return collection.view, stages, read_filters(both(own, self.filters))

    def _asked(self) -> list[BaseRetriever]:
        """The retrievers, with depth and filters."""
        depth = max(self.similarity_top_k, self.candidates)
        return [asked(stage, depth, self.filters) for stage in self.retrievers]

    def _fused(
        self, query_bundle: QueryBundle, lists: Sequence[list[NodeWithScore]]
    ) -> list[NodeWithScore]:
        nodes: dict[str, NodeWithScore] = {}
        for found in lists:
            for node in found:
                nodes.setdefault(node.node_id, node)
        ids = list(nodes)
        keys = {node_id: key for key, node_id in enumerate(ids)}
        candidates = [
            [
                # The id alone is what makes two nodes one, so that the text does not matter.
                Candidate(keys[node.node_id], text="", score=finite_score(node), rank=rank)
                for rank, node in enumerate(found, start=1)
            ]
            for found in lists
        ]
        fusion = self._fusion(candidates, len(ids))
        ranked = fusion.search(query_bundle.query_str, self.similarity_top_k)
        return keep_zero_scores([_with_scores(nodes[ids[one.key]], one) for one in ranked])


HybridRetriever._KINDS = (BM25Retriever, FaissRetriever, HybridRetriever)  # noqa: SLF001


def _nodes(found: Sequence[tuple[Record, Candidate]]) -> list[NodeWithScore]:
    """Copies of what was fused, with what each stage thought of it."""
    nodes = [NodeWithScore(node=copied(record.item), score=one.score) for record, one in found]
    ranked = zip(nodes, (one for _, one in found), strict=True)
    return keep_zero_scores([_with_scores(node, one) for node, one in ranked])


def _with_scores(found: NodeWithScore, fused: Candidate) -> HybridNodeWithScore:
    of_stages = cast("HybridCandidate", fused)
    return HybridNodeWithScore(
        node=found.node,
        score=fused.score,
        stage_scores=of_stages.stage_scores,
        stage_ranks=of_stages.stage_ranks,
    )
