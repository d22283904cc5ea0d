"""FaissRetriever: the first stage that goes by vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, MetadataMode, QueryBundle
from llama_index.core.storage.docstore import BaseDocumentStore
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.dense import Dense, IndexChoice, Metric
from rerank_plugins.llama_index._stages import StageRetriever, nodes_of, restored_options, texts_of
from rerank_plugins.llama_index.embedding import BundledEmbedding


class FaissRetriever(StageRetriever):
    """Finds the nodes whose vectors are nearest to the query's.

    What comes back are copies with their score, which is higher for the nearer, whatever the
    metric: the cosine, the inner product, or minus the squared distance. (FAISS itself gives
    distances, where lower is better.) Nothing is asked of ``Settings.embed_model``::

        retriever = FaissRetriever(nodes, similarity_top_k=10)
        retriever.retrieve("متى يفتح المتحف؟")

    Args:
        nodes: What can be found; an iterator is read once.
        docstore: Where the nodes are, in place of ``nodes``.
        index: Whose docstore has the nodes, in place of ``nodes``.
        embed_model: None for `BundledEmbedding`, the encoder that ships.
        metric: ``cosine``, ``inner_product`` or ``l2``.
        index_kind: ``exact``, ``hnsw``, ``ivfpq``, or ``auto``, which goes from one to the next
            as the nodes grow in number; see `rerank_plugins.first_stage.Dense`.
        metadata_mode: Which metadata is embedded with the text.
        **fields: ``similarity_top_k``; ``filters``, the MetadataFilters that a node must pass;
            ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    stage: Dense

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
        **fields: Any,
    ) -> None:
        kept = nodes_of(nodes, docstore, index)
        texts = texts_of(kept, metadata_mode)
        self.embed_model = _checked(embed_model)
        stage = Dense(texts, embed=self.embed_model, metric=metric, index=index_kind)
        super().__init__(kept, stage, metadata_mode=metadata_mode, **fields)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embed_model: BaseEmbedding | None = None,
        **fields: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote, its vectors mapped from the disk.

        Args:
            path: The folder.
            embed_model: What embedded the nodes: models are not stored.
            **fields: As of the class, in place of the stored ones.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: Another version of this library wrote another format.
            IndexMismatchError: The model gives other vectors than it did, or the index is of
                another kind.
        """
        kind = f"llama_index.{cls.__name__}"
        found = storage.load(
            path, kind, lambda part: cls.restore(part, embed_model=embed_model, **fields)
        )
        found.check()
        return found

    @classmethod
    def restore(
        cls, part: storage.Reader, *, embed_model: BaseEmbedding | None = None, **fields: Any
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        nodes, texts, options = restored_options(part, fields)
        found = cls.__new__(cls)
        found.embed_model = _checked(embed_model)
        stage = Dense.restore(part.part("stage"), texts=texts, embed=found.embed_model)
        StageRetriever.__init__(found, nodes, stage, **options)
        return found

    def _search(self, query_bundle: QueryBundle, mask: NDArray[np.bool_] | None) -> list[Candidate]:
        """By the bundle's own vector or its own words for embedding, where it has them."""
        vector, strings = query_bundle.embedding, query_bundle.custom_embedding_strs
        if vector is None and strings:
            vector = self.embed_model.get_agg_embedding_from_queries(strings)
        if vector is None:
            return super()._search(query_bundle, mask)
        return self.stage.search_by_vector(vector, self.similarity_top_k, mask=mask)


def _checked(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    embedding = BundledEmbedding() if embed_model is None else embed_model
    if not isinstance(embedding, BaseEmbedding):
        raise InvalidInputError(
            f"embed_model must be a BaseEmbedding, but got {type(embed_model).__name__}"
        )
    return embedding
