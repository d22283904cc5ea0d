"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from typing_extensions import Self

from rerank_plugins._adapters import Found, own_stages
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import IndexDamagedError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.fusion import (
    SETTINGS,
    SHIPPED_WEIGHTS,
    Fusion,
    Hybrid,
    HybridCandidate,
)
from rerank_plugins.llama_index._nodes import finite_score, without_tool_words
from rerank_plugins.llama_index._stages import asked_for, keep_zero_scores
from rerank_plugins.llama_index.bm25 import BM25Retriever
from rerank_plugins.llama_index.faiss import FaissRetriever


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
            embed_model: None for `BundledEmbedding`, the encoder that ships.
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

    def insert_nodes(self, nodes: Iterable[BaseNode]) -> None:
        """Adds nodes to every retriever, one after another; as of `BM25Retriever`."""
        listed = list(nodes)
        # Embedding is what fails: vectors come last as a rule, and go first here.
        for stage in reversed(self._own_stages()):
            stage.insert_nodes(listed)

    def delete_nodes(self, node_ids: Iterable[str]) -> None:
        """Makes nodes unfindable in every retriever; unknown ids are passed over."""
        listed = list(node_ids)
        for stage in self._own_stages():
            stage.delete_nodes(listed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all retrievers to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A retriever is not one of this package, or a node would not come
                back from JSON as it is.
        """
        storage.save(path, "llama_index.HybridRetriever", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embed_model: BaseEmbedding | None = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **options: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote.

        Args:
            path: The folder.
            embed_model: As of `FaissRetriever.load`.
            analyzer: As of `BM25Retriever.load`.
            **options: As of the class, in place of the stored ones.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: Another version of this library wrote another format.
            IndexMismatchError: ``embed_model`` or ``analyzer`` is not what made the index, or it
                is of another kind.
        """
        found = storage.load(
            path,
            "llama_index.HybridRetriever",
            lambda part: cls.restore(part, embed_model, analyzer, **options),
        )
        found.check()
        return found

    def store(self, out: storage.Writer) -> None:
        """Gives retrievers and settings to a writer."""
        stages = self._own_stages()
        out.settings |= {
            "similarity_top_k": self.similarity_top_k,
            **self._fusion([[] for _ in stages], 0).settings,
            "retrievers": [type(stage).__name__ for stage in stages],
        }
        for number, stage in enumerate(stages):
            stage.store(out.part(f"retriever{number}"))

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        embed_model: BaseEmbedding | None = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **options: Any,
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        told = part.settings
        stages: list[BaseRetriever] = []
        for number, name in enumerate(told["retrievers"]):
            inner = part.part(f"retriever{number}")
            if name == "BM25Retriever":
                stages.append(BM25Retriever.restore(inner, analyzer=analyzer))
            elif name == "FaissRetriever":
                stages.append(FaissRetriever.restore(inner, embed_model=embed_model))
            elif name == "HybridRetriever":
                stages.append(cls.restore(inner, embed_model, analyzer))
            else:
                raise IndexDamagedError(f"there is no retriever {name!r}")
        stored = {name: told[name] for name in ("similarity_top_k", *SETTINGS)}
        return cls(stages, **{**stored, **options})

    def check(self) -> None:
        """Checks that what embeds and analyses in a restored retriever is what it was.

        Raises:
            IndexMismatchError: It is not.
        """
        for stage in self._own_stages():
            stage.check()

    def _own_stages(self) -> list[BM25Retriever | FaissRetriever | HybridRetriever]:
        return own_stages(self.retrievers, (BM25Retriever, FaissRetriever, HybridRetriever))

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
