"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_flag
from rerank_plugins.collection import Collection
from rerank_plugins.collection.hybrids import Place
from rerank_plugins.collection.records import newest
from rerank_plugins.collection.stages import position_of
from rerank_plugins.collection.stored import place
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.langchain._collected import (
    Collected,
    found_in,
    made_filter,
    results,
    told_filter,
)
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    documents_of,
    read_filter,
    records_of,
)
from rerank_plugins.langchain._handing import check_fields


class BM25Retriever(Collected, BaseRetriever):
    """Finds documents that share words with the query, each language read by its own rules.

    What comes back are copies with ``retrieval_score`` (Okapi), ``retrieval_rank``,
    ``retrieval_method`` and ``retrieval_list`` in their metadata. A document that shares no word
    never comes back, so there may be fewer than ``k``; a blank query finds nothing::

        retriever = BM25Retriever.from_texts(["يفتح المتحف في التاسعة.", "..."], k=10)
        retriever.invoke("متى تفتح المتاحف؟", k=3)

    Args:
        documents: What can be found, copied; of several with one id, the last. `add_documents`
            and `delete` change it, from any thread.
        k: How many to return; ``invoke(query, k=...)`` for one call.
        filter: Conditions on the metadata, such as ``{"year": {"$gte": 2020}}`` (see
            `rerank_plugins.collection.filters`), or a function of the document that says whether
            it may come back; ``invoke(query, filter=...)`` in its place for one call.
        stamp: Whether to write those metadata. Documents without them compare equal whatever
            the query, which MultiQueryRetriever and others need to drop duplicates.
        language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
        engine: See `rerank_plugins.first_stage.BM25`.
        analyzer: Text to terms, in place of the language's.
        k1: How fast repeats of a term stop counting.
        b: How much long passages are held back.
        bm25: A ready index of the documents' texts, in their order, in place of the four above.
        collection: Documents that another retriever has, in place of all above.
        **fields: ``name``, ``tags`` and ``metadata`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    _KIND: ClassVar[str] = "langchain.BM25Retriever"
    _EMBEDS: ClassVar[bool] = False
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    collection: SkipValidation[Collection] = Field(repr=False)
    k: SkipValidation[int]
    filter: SkipValidation[MetadataFilter | None]
    stamp: SkipValidation[bool]

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        stamp: bool = True,
        language: str = "auto",
        engine: str = "auto",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        k1: float = 1.5,
        b: float = 0.75,
        bm25: BM25 | None = None,
        collection: Collection | None = None,
        **fields: Any,
    ) -> None:
        check_fields(type(self), fields)
        read_filter(filter)
        if collection is None:
            records = newest(records_of(documents, named=False))
            if bm25 is None:
                texts = [record.text for record in records]
                bm25 = BM25(texts, language=language, analyzer=analyzer, engine=engine, k1=k1, b=b)
            collection = Collection([bm25], records)
        position_of(BM25, collection)
        own = {
            "collection": collection,
            "k": check_count("k", k),
            "filter": filter,
            "stamp": check_flag("stamp", stamp),
        }
        super().__init__(**(fields | own))

    @property
    def bm25(self) -> BM25:
        """The index of the documents' texts as it is now."""
        view = self.collection.view
        found: BM25 = view.stages[position_of(BM25, view)]
        return found

    @classmethod
    def from_documents(cls, documents: Iterable[Document], **options: Any) -> Self:
        """A retriever of these documents; ``options`` as in the class."""
        return cls(documents=documents, **options)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
        **options: Any,
    ) -> Self:
        """A retriever of documents made of these texts; ``options`` as in the class.

        Raises:
            InvalidInputError: If there are more or fewer metadatas or ids than texts.
        """
        return cls(documents=documents_of(texts, metadatas, ids), **options)

    def _collections(self) -> list[Collection]:
        return [self.collection]

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        return {
            "kind": self._KIND,
            "collection": place(self.collection, collections),
            "k": self.k,
            "stamp": self.stamp,
            "filter": told_filter(self.filter),
        }

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        stored = {
            "collection": collections[told["collection"]],
            "k": told["k"],
            "stamp": told["stamp"],
        }
        own = {name: one for name, one in given.items() if name != "embedding"}
        keep = made_filter(told["filter"], own.get("filter"))
        return cls(**{**stored, **own, "filter": keep})

    def _place(self) -> Place:
        return Place(self.collection, position_of(BM25, self.collection), self.filter)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
        filter: MetadataFilter | None = None,  # noqa: A002
    ) -> list[Document]:
        return self._search(query, k, filter)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
        filter: MetadataFilter | None = None,  # noqa: A002
    ) -> list[Document]:
        return await in_thread(self._search, query, k, filter)

    def _search(self, query: str, k: int | None, keep: MetadataFilter | None) -> list[Document]:
        count = check_count("k", self.k if k is None else k)
        keep = self.filter if keep is None else keep
        if blank(query):
            return []
        view = self.collection.view
        found = found_in(view, query, count, keep, stage=position_of(BM25, view))
        return results(found, query, "bm25", stamp=self.stamp)
