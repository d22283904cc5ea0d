"""FaissVectorStore: the first stage that goes by vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_threshold
from rerank_plugins.candidates import check_query
from rerank_plugins.collection import Collection
from rerank_plugins.collection.stages import position_of
from rerank_plugins.collection.stored import place
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.dense import Dense, IndexChoice, Metric
from rerank_plugins.langchain._collected import Collected, found_in, refuse
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    copied,
    documents_of,
    read_filter,
)
from rerank_plugins.langchain.embeddings import BundledEmbeddings

if TYPE_CHECKING:
    from rerank_plugins.langchain.faiss_retriever import FaissRetriever

Found = list[tuple[Document, float]]


class FaissVectorStore(Collected, VectorStore):
    """Documents by the vectors of their texts, in FAISS.

    Scores are higher for the nearer, whatever the metric: the cosine, the inner product, or
    minus the squared distance. Documents are copied in and copied out. Adding a document
    under an id that is there replaces it. Any number of threads may search, add and delete::

        store = FaissVectorStore.from_documents(documents)
        retriever = store.as_retriever(k=10)

    The searches take ``filter``: conditions on the metadata (see
    `rerank_plugins.collection.filters`) or a function of the document; ``score_threshold``: the
    least score; and, because LangChain's stores do, ``fetch_k``, which changes nothing: as many
    as ``k`` of the documents that pass the filter come back. The asynchronous ones await the
    embedding.

    Args:
        embedding: Any LangChain embeddings; None for `BundledEmbeddings`.
        metric: ``cosine``, ``inner_product`` or ``l2``.
        index_kind: ``exact``, ``hnsw``, ``ivfpq``, or ``auto``, which goes from one to the
            next as the documents grow in number; see `rerank_plugins.first_stage.Dense`.
        relevance_score_fn: From a score to a relevance in [0, 1]; None for the metric's own.
        collection: Documents that another store or retriever has; it must have been made with
            this embedding.

    Raises:
        InvalidInputError: If an option is invalid.
        MissingDependencyError: If faiss is not installed.
    """

    _KIND: ClassVar[str] = "langchain.FaissVectorStore"

    def __init__(
        self,
        embedding: Embeddings | None = None,
        *,
        metric: Metric = "cosine",
        index_kind: IndexChoice = "auto",
        relevance_score_fn: Callable[[float], float] | None = None,
        collection: Collection | None = None,
    ) -> None:
        self._embed = BundledEmbeddings() if embedding is None else embedding
        if not isinstance(self._embed, Embeddings):
            raise InvalidInputError(
                f"embedding must be LangChain Embeddings, but got {type(embedding).__name__}"
            )
        if collection is None:
            collection = Collection([Dense(embed=self._embed, metric=metric, index=index_kind)])
        self._stage = position_of(Dense, collection)
        self._relevance_score_fn = relevance_score_fn
        self.collection = collection

    @property
    def embeddings(self) -> Embeddings:
        """What embeds documents and queries."""
        return self._embed

    def __len__(self) -> int:
        return len(self.collection)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> Self:
        """A store of documents made of these texts; ``options`` as in the class.

        Raises:
            InvalidInputError: If there are more or fewer metadatas or ids than texts, or an
                option is invalid.
        """
        store = cls(embedding, **options)
        store.add_documents(documents_of(texts, metadatas, ids))
        return store

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], embedding: Embeddings | None = None, **options: Any
    ) -> Self:
        """A store of these documents; ``options`` as in the class, and ``ids``."""
        ids = options.pop("ids", None)
        store = cls(embedding, **options)
        store.add_documents(documents, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Iterable[dict[str, Any]] | None = None,
        **options: Any,
    ) -> Self:
        """`from_texts` that leaves the event loop free and awaits the embedding."""
        documents = documents_of(texts, metadatas, options.pop("ids", None))
        return await cls.afrom_documents(documents, embedding, **options)

    @classmethod
    async def afrom_documents(
        cls, documents: Iterable[Document], embedding: Embeddings | None = None, **options: Any
    ) -> Self:
        """`from_documents` that leaves the event loop free and awaits the embedding."""
        ids = options.pop("ids", None)
        store = cls(embedding, **options)
        await store.aadd_documents(documents, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """Adds documents made of these texts; see `add_documents`."""
        return self.add_documents(documents_of(texts, metadatas, ids), **options)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """`add_texts` that leaves the event loop free and awaits the embedding."""
        return await self.aadd_documents(documents_of(texts, metadatas, ids), **options)

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        **options: Any,
    ) -> list[Document]:
        """The ``k`` nearest documents, best first, as they were added.

        Args:
            query: Non-blank text.
            k: How many at most.
            filter: See the class.
            **options: ``score_threshold`` and ``fetch_k``; see the class.

        Raises:
            InvalidInputError: If the query is blank, or an option is invalid.
        """
        return _documents(self.similarity_search_with_score(query, k, filter, **options))

    async def asimilarity_search(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> list[Document]:
        """`similarity_search` that leaves the event loop free."""
        return _documents(await self.asimilarity_search_with_score(query, k, filter, **options))

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> Found:
        """`similarity_search`, each document with its score, higher for the nearer."""
        return self._near(check_query(query), k, None, filter, **options)

    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> Found:
        """`similarity_search_with_score` that leaves the event loop free."""
        vector = await self._embed.aembed_query(check_query(query))
        return await in_thread(self._near, query, k, vector, filter, **options)

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> list[Document]:
        """`similarity_search` for a query that is embedded already."""
        return _documents(self._near("", k, embedding, filter, **options))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """The ``k`` of the ``fetch_k`` nearest that are near and unlike each other.

        Args:
            query: Non-blank text.
            k: How many at most.
            fetch_k: How many to choose from.
            lambda_mult: 1 weighs nearness alone, 0 unlikeness alone.
            **options: ``filter``; see the class.
        """
        vector = self._embed.embed_query(check_query(query))
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **options
        )

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search` that leaves the event loop free."""
        vector = await self._embed.aembed_query(check_query(query))
        search = self.max_marginal_relevance_search_by_vector
        return await in_thread(search, vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a query that is embedded already."""
        refuse(unknown)
        view = self.collection.view
        near = view.search("", fetch_k, read_filter(filter), stage=self._stage, vector=embedding)
        vectors = view.stages[self._stage].vectors([one.key for _, one in near]).tolist()
        chosen = maximal_marginal_relevance(
            np.asarray(embedding), vectors, lambda_mult=lambda_mult, k=check_count("k", k)
        )
        return [copied(near[position][0].item) for position in chosen]

    def as_retriever(self, **kwargs: Any) -> FaissRetriever:
        """A retriever over this store; ``kwargs`` as in `FaissRetriever`."""
        from rerank_plugins.langchain.faiss_retriever import FaissRetriever

        tags = kwargs.pop("tags", None) or self._get_retriever_tags()
        return FaissRetriever(vectorstore=self, tags=tags, **kwargs)

    def _collections(self) -> list[Collection]:
        return [self.collection]

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        return {"collection": place(self.collection, collections)}

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        return cls(collection=collections[told["collection"]], **given)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        dense: Dense = self.collection.view.stages[self._stage]
        return self._relevance_score_fn or _RELEVANCE[dense.metric]

    def _near(
        self,
        query: str,
        k: int,
        vector: Sequence[float] | None,
        keep: MetadataFilter | None,
        *,
        score_threshold: float | None = None,
        fetch_k: int | None = None,
        **unknown: Any,
    ) -> Found:
        refuse(unknown)
        least = check_threshold(score_threshold)
        if fetch_k is not None:
            check_count("fetch_k", fetch_k)
        view = self.collection.view
        found = found_in(view, query, k, keep, stage=self._stage, vector=vector)
        return [
            (copied(document), score)
            for document, score in found
            if least is None or score >= least
        ]


def _documents(found: Found) -> list[Document]:
    return [document for document, _ in found]


def _cosine_relevance(score: float) -> float:
    return max(0.0, score)


def _inner_product_relevance(score: float) -> float:
    """The logistic function: inner products have no bounds of their own."""
    return 0.5 + 0.5 * math.tanh(score / 2)


def _l2_relevance(score: float) -> float:
    """1 / (1 + squared distance)."""
    return 1.0 / (1.0 - score)


_RELEVANCE: dict[Metric, Callable[[float], float]] = {
    "cosine": _cosine_relevance,
    "inner_product": _inner_product_relevance,
    "l2": _l2_relevance,
}
