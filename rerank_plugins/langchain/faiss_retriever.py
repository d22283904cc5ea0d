"""FaissRetriever: a vector store as retriever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._validation import check_count, check_flag
from rerank_plugins.collection import Collection
from rerank_plugins.collection.hybrids import Place
from rerank_plugins.langchain._collected import (
    Collected,
    made_filter,
    results,
    told_filter,
)
from rerank_plugins.langchain._documents import read_filter
from rerank_plugins.langchain._handing import check_fields
from rerank_plugins.langchain.faiss import FaissVectorStore


class FaissRetriever(Collected, VectorStoreRetriever):
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
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

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

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        searched = {name: value for name, value in self.search_kwargs.items() if name != "filter"}
        return {
            "kind": self._KIND,
            "store": self.vectorstore._told(collections),  # noqa: SLF001
            "k": self.k,
            "stamp": self.stamp,
            "search_type": self.search_type,
            "search_kwargs": searched,
            "filter": told_filter(self.search_kwargs.get("filter")),
        }

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        own = dict(given)
        store = FaissVectorStore._made(  # noqa: SLF001
            told["store"], collections, {"embedding": own.pop("embedding")}
        )
        keep = made_filter(told["filter"], own.pop("filter", None))
        options = told["search_kwargs"] | ({} if keep is None else {"filter": keep})
        stored = {name: told[name] for name in ("k", "stamp", "search_type")}
        tags = store._get_retriever_tags()  # noqa: SLF001  (LangChain's)
        return cls(
            **{**stored, "search_kwargs": options, "tags": tags, **own, "vectorstore": store}
        )

    def _place(self) -> Place | None:
        """None where it does more than to search."""
        if self.search_type != "similarity" or not self.search_kwargs.keys() <= {"filter"}:
            return None
        store = self.vectorstore
        return Place(store.collection, store._stage, self.search_kwargs.get("filter"))  # noqa: SLF001

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = self._options(kwargs)
        if blank(query):
            return []
        if self.search_type == "mmr":
            return super()._get_relevant_documents(query, run_manager=run_manager, **options)
        if self.search_type == "similarity":
            found = self.vectorstore.similarity_search_with_score(query, **options)
        else:
            found = self.vectorstore.similarity_search_with_relevance_scores(query, **options)
        return results(found, query, "faiss", stamp=self.stamp)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options, store = self._options(kwargs), self.vectorstore
        if blank(query):
            return []
        if self.search_type == "mmr":
            return await super()._aget_relevant_documents(query, run_manager=run_manager, **options)
        if self.search_type == "similarity":
            found = await store.asimilarity_search_with_score(query, **options)
        else:
            found = await store.asimilarity_search_with_relevance_scores(query, **options)
        return results(found, query, "faiss", stamp=self.stamp)

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        given = {**self.search_kwargs, **kwargs}
        k = self.k if given.get("k") is None else given["k"]
        return {**given, "k": check_count("k", k)}
