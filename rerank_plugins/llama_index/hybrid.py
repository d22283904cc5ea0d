"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, ClassVar, cast

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from typing_extensions import Self

from rerank_plugins._stamps import finite
from rerank_plugins._validation import check_count, check_each
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection, Record
from rerank_plugins.collection.hybrids import Fused, Shared
from rerank_plugins.collection.stages import words_and_vectors
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Fusion, HybridCandidate
from rerank_plugins.llama_index._filters import both, read_filters
from rerank_plugins.llama_index._nodes import copied, nodes_of, records_of
from rerank_plugins.llama_index._retrievers import (
    Collected,
    FilteringRetriever,
    asked,
    check_fields,
    checked_model,
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
    _SETTINGS: ClassVar[tuple[str, ...]] = ("similarity_top_k",)
    _HANDED: ClassVar[tuple[str, ...]] = ("embed_model",)

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
        check_fields(type(self), fields)
        # Not BaseRetriever, which is abstract to mypy.
        self.retrievers: tuple[BaseRetriever, ...] = tuple(
            check_each("retrievers", retrievers, BaseRetriever, "retrievers")  # type: ignore[type-abstract]
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
        records = records_of(nodes_of(nodes), metadata_mode)
        collection = Collection(
            *words_and_vectors(records, model, language=language, engine=engine)
        )
        common: dict[str, Any] = {"metadata_mode": metadata_mode, "collection": collection}
        return cls(
            [BM25Retriever(**common), FaissRetriever(embed_model=model, **common)], **options
        )

    def _records(self, nodes: list[BaseNode]) -> list[Record]:
        records: list[Record] = self._own()[0]._records(nodes)  # noqa: SLF001
        return records

    def _plan(self, bundle: QueryBundle) -> Shared | list[BaseRetriever]:
        """The view that all retrievers share; else they themselves, set up for the query."""
        # A bundle's own vector, or words for embedding, are not for every stage.
        if bundle.embedding is None and not bundle.custom_embedding_strs:
            shared = self._shared(lambda own: read_filters(both(own, self.filters)))
            if shared is not None:
                return shared
        return self._asked()

    def _find(self, bundle: QueryBundle, plan: Shared | list[BaseRetriever]) -> list[NodeWithScore]:
        k = self.similarity_top_k
        found = self._search(plan, bundle.query_str, k, lambda _, one: one.retrieve(bundle))
        return _with_scores(found)

    async def _afind(
        self, bundle: QueryBundle, plan: Shared | list[BaseRetriever]
    ) -> list[NodeWithScore]:
        k = self.similarity_top_k
        found = self._asearch(plan, bundle.query_str, k, lambda _, one: one.aretrieve(bundle))
        return _with_scores(await found)

    def _asked(self) -> list[BaseRetriever]:
        """The retrievers, with depth and filters."""
        depth = max(self.similarity_top_k, self.candidates)
        return [asked(stage, depth, self.filters) for stage in self.retrievers]

    def _fused(
        self, found: Sequence[list[NodeWithScore]], query: str, k: int
    ) -> list[tuple[BaseNode, Candidate]]:
        known: list[dict[Hashable, tuple[BaseNode, float | None]]] = []
        for nodes in found:
            unique: dict[Hashable, tuple[BaseNode, float | None]] = {}
            for one in nodes:
                unique.setdefault(one.node_id, (one.node, finite(one.score)))
            known.append(unique)
        return self._fused_lists(known, query, k)


HybridRetriever._KINDS = (BM25Retriever, FaissRetriever, HybridRetriever)  # noqa: SLF001


def _with_scores(found: Iterable[tuple[BaseNode, Candidate]]) -> list[NodeWithScore]:
    """Copies of what was fused, with what each stage thought of it."""
    return [
        HybridNodeWithScore(
            node=copied(node),
            score=one.score,
            stage_scores=one.stage_scores,
            stage_ranks=one.stage_ranks,
        )
        for node, one in cast("Iterable[tuple[BaseNode, HybridCandidate]]", found)
    ]
