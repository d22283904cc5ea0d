"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from langchain_core.documents import Document
from pydantic import Field, SkipValidation
from typing_extensions import Self

from rerank_plugins._threads import off_loop
from rerank_plugins._validation import check_count, check_flag
from rerank_plugins.collection import Collection, Filter
from rerank_plugins.collection.records import newest
from rerank_plugins.collection.stages import position_of
from rerank_plugins.collection.stored import Place, Staged
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    documents_of,
    read_filter,
    records_of,
    retrieved,
)
from rerank_plugins.langchain._retrievers import Filtered, Retriever, check_fields, refuse


class BM25Retriever(Filtered, Staged, Retriever):
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
    _SETTINGS: ClassVar[tuple[str, ...]] = ("k", "stamp")
    _EMBEDS: ClassVar[bool] = False
    _STAGE: ClassVar[type[BM25]] = BM25

    collection: SkipValidation[Collection] = Field(repr=False)
    filter: SkipValidation[MetadataFilter | None]
    stamp: SkipValidation[bool]

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        k: int = 4,
        filter: MetadataFilter | None = None,
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
        found: BM25 = self._index()
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

    def _place(self) -> Place:
        return Place(self.collection, self._at(), self.filter)

    def _plan(self, count: int, options: dict[str, Any]) -> Filter | None:  # noqa: ARG002
        keep = options.pop("filter", None)
        refuse(options)
        return read_filter(self.filter if keep is None else keep)

    def _find(self, query: str, count: int, plan: Filter | None, runs: Any) -> list[Document]:  # noqa: ARG002
        return retrieved(self._search(query, count, plan), query, "bm25", stamp=self.stamp)

    _afind = off_loop(_find)  # type: ignore[arg-type]
