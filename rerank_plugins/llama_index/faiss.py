"""FaissRetriever: the first stage that goes by vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.storage.docstore import BaseDocumentStore

from rerank_plugins._adapters import blank
from rerank_plugins._threads import in_thread
from rerank_plugins.collection import Collection
from rerank_plugins.first_stage.dense import Dense, IndexChoice, Metric
from rerank_plugins.llama_index._nodes import nodes_of, records_of
from rerank_plugins.llama_index._retrievers import StageRetriever, check_fields, checked_model


class FaissRetriever(StageRetriever):
    """Finds the nodes whose vectors are nearest to the query's.

    What comes back are copies with their score, which is higher for the nearer, whatever the
    metric: the cosine, the inner product, or minus the squared distance. (FAISS itself gives
    distances, where lower is better.) Nothing is asked of ``Settings.embed_model``. A blank
    query finds nothing. The asynchronous methods await the model. ::

        retriever = FaissRetriever(nodes, similarity_top_k=10)
        retriever.retrieve("متى يفتح المتحف؟")

    Args:
        nodes: What can be found; of several with one id, the last. A node's ``embedding`` is
            used where it has one, and must be of ``embed_model``.
        docstore: Where the nodes are, in place of ``nodes``.
        index: Whose docstore has the nodes, in place of ``nodes``.
        embed_model: None for the bundled `BundledEmbedding`.
        metric: ``cosine``, ``inner_product`` or ``l2``.
        index_kind: ``exact``, ``hnsw``, ``ivfpq``, or ``auto``, which goes from one to the next
            as the nodes grow in number; see `rerank_plugins.first_stage.Dense`.
        metadata_mode: Which metadata is embedded with the text.
        collection: Nodes that another retriever has, embedded by this model.
        **fields: ``similarity_top_k``; ``filters``, the MetadataFilters that a node must pass;
            ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    _KIND: ClassVar[str] = "llama_index.FaissRetriever"
    _STAGE: ClassVar[type[Dense]] = Dense

    def __init__(
        self,
        nodes: Iterable[BaseNode] | None = None,
        *,
        docstore: BaseDocumentStore | None = None,
        index: BaseIndex[Any] | None = None,
        embed_model: BaseEmbedding | None = None,
        metric: Metric = "cosine",
        index_kind: IndexChoice = "auto",
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        collection: Collection | None = None,
        **fields: Any,
    ) -> None:
        check_fields(type(self), fields)
        self.embed_model = checked_model(embed_model)
        if collection is None:
            records = records_of(nodes_of(nodes, docstore, index), metadata_mode)
            empty = Dense(embed=self.embed_model, metric=metric, index=index_kind)
            collection = Collection([empty], records)
        super().__init__(collection, metadata_mode=metadata_mode, **fields)

    @staticmethod
    def _asks(bundle: QueryBundle) -> bool:
        """Also by the bundle's own vector, or its own words for embedding."""
        own = bundle.embedding is not None or bool(bundle.custom_embedding_strs)
        return own or not blank(bundle.query_str)

    def _find(
        self, bundle: QueryBundle, plan: Any, vector: list[float] | None = None
    ) -> list[NodeWithScore]:
        vector = bundle.embedding if vector is None else vector
        if vector is None and bundle.custom_embedding_strs:
            vector = self.embed_model.get_agg_embedding_from_queries(bundle.custom_embedding_strs)
        return super()._find(bundle, plan, vector)

    async def _afind(self, bundle: QueryBundle, plan: Any) -> list[NodeWithScore]:
        model, vector, strings = self.embed_model, bundle.embedding, bundle.custom_embedding_strs
        if vector is None and strings:
            vector = await model.aget_agg_embedding_from_queries(strings)
        elif vector is None:
            vector = await model.aget_query_embedding(bundle.query_str)
        return await in_thread(self._find, bundle, plan, vector)
