"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from typing_extensions import Self

from rerank_plugins._adapters import Found
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Fusion, Hybrid, HybridCandidate
from rerank_plugins.llama_index._nodes import finite_score, without_tool_words
from rerank_plugins.llama_index._stages import asked_for, keep_zero_scores
from rerank_plugins.llama_index.bm25 import BM25Retriever
from rerank_plugins.llama_index.faiss import FaissRetriever
from rerank_plugins.ordering import check_count


class HybridNodeWithScore(NodeWithScore):
    """A node with its fused score, and what each retriever thought of it.

    Reranking keeps these too. They are no metadata, so that the node's hash, by which other
    retrievers find duplicates, does not depend on the query.

    Attributes:
        stage_scores: One a retriever, in their order; None where it gave none.
        stage_ranks: Likewise, from 1; None where the retriever did not find the node.
    """

    stage_scores: tuple[float | None, ...] = ()
    stage_ranks: tuple[int | None, ...] = ()

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized forms."""
        return "HybridNodeWithScore"


class HybridRetriever(BaseRetriever):
    """Fuses retrievers by their scores, brought to one scale, or by reciprocal ranks.

    ::

        retriever = HybridRetriever.from_nodes(nodes, similarity_top_k=10)
        retriever = HybridRetriever([BM25Retriever(nodes), index.as_retriever(), any_other])

    Args:
        retrievers: Any, over nodes that have the same ids in each. One that has a
            ``similarity_top_k`` is asked for ``candidates``, without a change to itself.
        similarity_top_k: How many nodes to return at most.
        weights: One a retriever, above 0; None for all equal.
        fusion: By ``scores`` (a retriever that gives none counts by its ranks) or ``ranks``; see
            `rerank_plugins.first_stage.Hybrid`.
        rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks count.
        candidates: How many to fetch from each, never fewer than ``similarity_top_k``.
        **fields: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any
            retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    def __init__(
        self,
        retrievers: Sequence[BaseRetriever],
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        weights: Sequence[float] | None = None,
        fusion: Fusion = "scores",
        rank_constant: float = 60.0,
        candidates: int = 100,
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
        self._fusion([[] for _ in self.retrievers], 0)  # its rules, now
        super().__init__(**fields)

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        embed_model: BaseEmbedding | None = None,
        *,
        language: str = "auto",
        engine: str = "rank-bm25",
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> Self:
        """BM25 and FAISS over the same nodes.

        Args:
            nodes: What can be found; an iterator is read once.
            embed_model: None for `EmbeddedEmbedding`, the encoder that ships.
            language: As of `BM25Retriever`.
            engine: As of `BM25Retriever`.
            metadata_mode: Which metadata is searched and embedded with the text.
            filters: The MetadataFilters that a node must pass.
            **options: As of the class; ``weights`` are those measured best for the encoder that
                ships, or equal for others.
        """
        if embed_model is None:
            options.setdefault("weights", SHIPPED_WEIGHTS)
        listed = list(nodes)
        common: dict[str, Any] = {"metadata_mode": metadata_mode, "filters": filters}
        words = BM25Retriever(listed, language=language, engine=engine, **common)
        vectors = FaissRetriever(listed, embed_model=embed_model, **common)
        return cls([words, vectors], **options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = without_tool_words(query_bundle)
        return self._fused(asked, [stage.retrieve(asked) for stage in self._stages()])

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = without_tool_words(query_bundle)
        lists = await asyncio.gather(*(stage.aretrieve(asked) for stage in self._stages()))
        return self._fused(asked, lists)

    def _stages(self) -> list[BaseRetriever]:
        depth = max(self.similarity_top_k, self.candidates)
        return [asked_for(retriever, depth) for retriever in self.retrievers]

    def _fusion(self, lists: Sequence[list[Candidate]], size: int) -> Hybrid:
        return Hybrid(
            [Found(found, size) for found in lists],
            weights=self.weights,
            fusion=self.fusion,
            rank_constant=self.rank_constant,
            candidates=self.candidates,
        )

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


def _with_scores(found: NodeWithScore, fused: Candidate) -> HybridNodeWithScore:
    of_stages = cast("HybridCandidate", fused)
    return HybridNodeWithScore(
        node=found.node,
        score=fused.score,
        stage_scores=of_stages.stage_scores,
        stage_ranks=of_stages.stage_ranks,
    )
