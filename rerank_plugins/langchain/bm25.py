"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, SkipValidation
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    check_documents,
    documents_of,
    mask_of,
    retrieved,
)
from rerank_plugins.langchain._stages import check_fields
from rerank_plugins.ordering import check_count


class BM25Retriever(BaseRetriever):
    """Finds documents that share words with the query, each language read by its own rules.

    What comes back are copies with ``retrieval_score`` (Okapi), ``retrieval_rank`` and
    ``retrieval_method`` in their metadata. A document that shares no word never comes back,
    so there may be fewer than ``k``::

        retriever = BM25Retriever.from_texts(["يفتح المتحف في التاسعة.", "..."], k=10)
        retriever.invoke("متى تفتح المتاحف؟", k=3)

    Args:
        documents: What can be found; an iterator is read once.
        k: How many to return; ``invoke(query, k=...)`` for one call.
        filter: Metadata values that a document must have, or a function of the document that
            says whether it may come back; ``invoke(query, filter=...)`` for one call.
        language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
        engine: ``rank-bm25``, or ``bm25s`` for large collections; the scores are the same.
        analyzer: Text to terms, in place of the language's.
        k1: How fast repeats of a term stop counting.
        b: How much long passages are held back.
        bm25: A ready index of the documents' texts, in their order, in place of the four above.
        **fields: ``name``, ``tags`` and ``metadata`` of any retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    documents: SkipValidation[list[Document]] = Field(repr=False)
    bm25: SkipValidation[BM25]
    k: SkipValidation[int]
    filter: SkipValidation[MetadataFilter | None]

    def __init__(
        self,
        *,
        documents: Iterable[Document],
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        language: str = "auto",
        engine: str = "rank-bm25",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        k1: float = 1.5,
        b: float = 0.75,
        bm25: BM25 | None = None,
        **fields: Any,
    ) -> None:
        check_fields(type(self), fields)
        kept = check_documents(documents)
        if bm25 is None:
            texts = [document.page_content for document in kept]
            bm25 = BM25(texts, language=language, analyzer=analyzer, engine=engine, k1=k1, b=b)
        elif len(bm25) != len(kept):
            raise InvalidInputError(
                f"bm25 must index the documents, but it has {len(bm25)} texts for "
                f"{len(kept)} documents"
            )
        own = {"documents": kept, "bm25": bm25, "k": check_count("k", k), "filter": filter}
        super().__init__(**(fields | own))

    @classmethod
    def from_documents(cls, documents: Iterable[Document], **options: Any) -> Self:
        """A retriever of these documents; ``options`` as of the class."""
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
        """A retriever of documents made of these texts; ``options`` as of the class.

        Raises:
            InvalidInputError: There are more or fewer metadatas or ids than texts.
        """
        return cls(documents=documents_of(texts, metadatas, ids), **options)

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
        mask = mask_of(
            enumerate(self.documents), len(self.documents), self.filter if keep is None else keep
        )
        found = self.bm25.search(query, self.k if k is None else k, mask=mask)
        return retrieved(self.documents, found, "bm25")
