"""FaissVectorStore and FaissRetriever: the first stage that goes by vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from pydantic import SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_flag, check_threshold
from rerank_plugins.collection import Collection
from rerank_plugins.collection.stored import Place, Staged
from rerank_plugins.first_stage._vectors import RELEVANCE
from rerank_plugins.first_stage.dense import Dense, IndexChoice, Metric
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    copied,
    documents_of,
    read_filter,
    retrieved,
)
from rerank_plugins.langchain._retrievers import (
    Collected,
    Filtered,
    Retriever,
    check_fields,
    refuse,
)
from rerank_plugins.langchain.embeddings import checked_embedding

Found = list[tuple[Document, float]]

_SEARCHES: Final = {
    "similarity": "similarity_search_with_score",
    "similarity_score_threshold": "similarity_search_with_relevance_scores",
    "mmr": "max_marginal_relevance_search",
}


class FaissVectorStore(Collected, Staged, VectorStore):
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
    _STAGE: ClassVar[type[Dense]] = Dense

    def __init__(
        self,
        embedding: Embeddings | None = None,
        *,
        metric: Metric = "cosine",
        index_kind: IndexChoice = "auto",
        relevance_score_fn: Callable[[float], float] | None = None,
        collection: Collection | None = None,
    ) -> None:
        self._embed = checked_embedding(embedding)
        if collection is None:
            collection = Collection([Dense(embed=self._embed, metric=metric, index=index_kind)])
        self._relevance_score_fn = relevance_score_fn
        self.collection = collection
        self._at()  # an error now if it does not have the stage

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
        return cls.from_documents(documents_of(texts, metadatas, ids), embedding, **options)

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

    def similarity_search(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **options: Any
    ) -> list[Document]:
        """The ``k`` nearest documents, best first, as they were added.

        Args:
            query: Text; a blank one, which a self-query of a filter alone asks, is embedded too.
            k: How many at most.
            filter: See the class.
            **options: ``score_threshold`` and ``fetch_k``; see the class.

        Raises:
            InvalidInputError: If the query is not text, or an option is invalid.
        """
        found = self.similarity_search_with_score(query, k, filter, **options)
        return [document for document, _ in found]

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **options: Any
    ) -> list[Document]:
        """`similarity_search` that leaves the event loop free."""
        found = await self.asimilarity_search_with_score(query, k, filter, **options)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **options: Any
    ) -> Found:
        """`similarity_search`, each document with its score, higher for the nearer."""
        vector = self._embed.embed_query(query) if blank(query) else None
        return self._near(query, k, vector, filter, **options)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **options: Any
    ) -> Found:
        """`similarity_search_with_score` that leaves the event loop free."""
        blank(query)  # an error if it is no text
        vector = await self._embed.aembed_query(query)
        return await in_thread(self._near, query, k, vector, filter, **options)

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: MetadataFilter | None = None,
        **options: Any,
    ) -> list[Document]:
        """`similarity_search` for a query that is embedded already."""
        return [document for document, _ in self._near("", k, embedding, filter, **options)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """The ``k`` of the ``fetch_k`` nearest that are near and unlike each other.

        Args:
            query: Text.
            k: How many at most.
            fetch_k: How many to choose from.
            lambda_mult: 1 weighs nearness alone, 0 unlikeness alone.
            **options: ``filter``; see the class.
        """
        blank(query)  # an error if it is no text
        vector = self._embed.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **options
        )

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search` that leaves the event loop free."""
        blank(query)
        vector = await self._embed.aembed_query(query)
        search = self.max_marginal_relevance_search_by_vector
        return await in_thread(search, vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,
        **unknown: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a query that is embedded already."""
        refuse(unknown)
        view, at = self.collection.view, self._at()
        near = view.search("", fetch_k, read_filter(filter), stage=at, vector=embedding)
        vectors = view.stages[at].vectors([one.key for _, one in near]).tolist()
        chosen = maximal_marginal_relevance(
            np.asarray(embedding), vectors, lambda_mult=lambda_mult, k=check_count("k", k)
        )
        return [copied(near[position][0].item) for position in chosen]

    def as_retriever(self, **kwargs: Any) -> FaissRetriever:
        """A retriever over this store; ``kwargs`` as in `FaissRetriever`."""
        tags = kwargs.pop("tags", None) or self._get_retriever_tags()
        return FaissRetriever(vectorstore=self, tags=tags, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return self._relevance_score_fn or RELEVANCE[self._index().metric]

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
        found = self._search(query, k, read_filter(keep), vector)
        return [(copied(one), score) for one, score in found if least is None or score >= least]


class FaissRetriever(Filtered, Retriever, VectorStoreRetriever):
    """A `FaissVectorStore` as retriever, with its scores in the documents' metadata.

    What comes back are copies with ``retrieval_score``, ``retrieval_rank``,
    ``retrieval_method`` and ``retrieval_list``, except for the search type ``mmr``, whose order
    is not that of the scores. A blank query finds nothing.

    Args:
        vectorstore: Where the documents are.
        k: How many to return; ``invoke(query, k=...)`` for one call.
        stamp: Whether to write those metadata; see `BM25Retriever`.
        search_type: ``similarity``, ``similarity_score_threshold`` (scores are then in [0, 1])
            or ``mmr``.
        search_kwargs: More for every search, such as ``{"filter": {"language": "ar"}}``.
        name: Of any retriever, like ``tags`` and ``metadata``.
    """

    _KIND: ClassVar[str] = "langchain.FaissRetriever"
    _SETTINGS: ClassVar[tuple[str, ...]] = ("k", "stamp", "search_type")

    vectorstore: FaissVectorStore
    k: SkipValidation[int] = 4
    stamp: SkipValidation[bool] = True

    def __init__(self, **fields: Any) -> None:
        check_fields(type(self), fields)
        check_count("k", fields.get("k", 0))
        check_flag("stamp", fields.get("stamp", True))
        read_filter(fields.get("search_kwargs", {}).get("filter"))
        super().__init__(**fields)

    def _collections(self) -> list[Collection]:
        return [self.vectorstore.collection]

    def _keeps(self) -> Any:
        return self.search_kwargs.get("filter")

    def _told_inside(self, collections: list[Collection]) -> dict[str, Any]:
        searched = {name: value for name, value in self.search_kwargs.items() if name != "filter"}
        return super()._told_inside(collections) | {"search_kwargs": searched}

    @classmethod
    def _made_inside(
        cls, told: Mapping[str, Any], collections: list[Collection], given: dict[str, Any]
    ) -> dict[str, Any]:
        made = super()._made_inside(told, collections, given)
        store = FaissVectorStore(given.pop("embedding"), collection=made["collection"])
        kept = {} if made["filter"] is None else {"filter": made["filter"]}
        tags = store._get_retriever_tags()  # noqa: SLF001  (LangChain's)
        return {"vectorstore": store, "search_kwargs": told["search_kwargs"] | kept, "tags": tags}

    def _place(self) -> Place | None:
        """None where it does more than to search."""
        if self.search_type != "similarity" or not self.search_kwargs.keys() <= {"filter"}:
            return None
        store = self.vectorstore
        return Place(store.collection, store._at(), self._keeps())  # noqa: SLF001

    def _default_k(self) -> int:
        k: int | None = self.search_kwargs.get("k")
        return self.k if k is None else k

    def _plan(self, count: int, options: dict[str, Any]) -> dict[str, Any]:
        return {**self.search_kwargs, **options, "k": count}

    def _find(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:  # noqa: ARG002
        found = getattr(self.vectorstore, _SEARCHES[self.search_type])(query, **plan)
        return self._given(found, query)

    async def _afind(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:  # noqa: ARG002
        found = await getattr(self.vectorstore, f"a{_SEARCHES[self.search_type]}")(query, **plan)
        return self._given(found, query)

    def _given(self, found: list[Any], query: str) -> list[Document]:
        ranked = self.search_type != "mmr"
        return retrieved(found, query, "faiss", stamp=self.stamp) if ranked else found
