"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count, check_names
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import storage
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
from rerank_plugins.langchain._stored import (
    by_key,
    named,
    read_documents,
    restored_filter,
    stored_filter,
    write_documents,
)


class BM25Retriever(BaseRetriever):
    """Finds documents that share words with the query, each language read by its own rules.

    What comes back are copies with ``retrieval_score`` (BM25), ``retrieval_rank`` and
    ``retrieval_method`` in their metadata. A document that shares no word never comes back,
    so there may be fewer than ``k``::

        retriever = BM25Retriever.from_texts(["يفتح المتحف في التاسعة.", "..."], k=10)
        retriever.invoke("متى تفتح المتاحف؟", k=3)

    Args:
        documents: What can be found; an iterator is read once. `add_documents` and `delete`
            change it, from any thread.
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
    _documents: dict[int, Document] = PrivateAttr()
    _changing: Any = PrivateAttr(default_factory=threading.Lock)

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
        self._documents = dict(zip(bm25.keys, kept, strict=True))

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

    def add_documents(
        self, documents: Iterable[Document], *, ids: Iterable[str | None] | None = None
    ) -> list[str]:
        """Adds documents; the scores of all are then those of the larger collection.

        Args:
            documents: Kept as copies.
            ids: In place of the documents' own. A document without either gets a new one; one
                with an id that is there, or twice in the list, replaces the earlier.

        Returns:
            One id a document, in the order given.

        Raises:
            InvalidInputError: An element is no Document, or there are more or fewer ids.
        """
        final, newest = named(documents, ids)
        with self._changing:
            replaced = [key for key, one in self._documents.items() if one.id in newest]
            self._change(list(newest.values()), replaced)
        return final

    def delete(self, ids: Iterable[str]) -> None:
        """Makes documents unfindable; ids that no document has are passed over."""
        unwanted = set(check_names(ids))
        with self._changing:
            self._change([], [key for key, one in self._documents.items() if one.id in unwanted])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes documents and index to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A document's metadata, or the filter's values, are no JSON.
        """
        storage.save(path, "langchain.BM25Retriever", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote, its arrays mapped from the disk.

        Args:
            path: The folder.
            analyzer: The one that it was made with, where it was not a language's.
            filter: In place of the stored one; a filter that is a function is not stored.
            **options: ``k``, in place of the stored one, and fields of any retriever.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: The analyzer gives other terms than it did, a function is missing,
                or the index is of another kind.
        """
        found = storage.load(
            path,
            "langchain.BM25Retriever",
            lambda part: cls.restore(part, analyzer=analyzer, filter=filter, **options),
        )
        found.check()
        return found

    def store(self, out: storage.Writer) -> None:
        """Gives documents, index and settings to a writer."""
        with self._changing:
            out.settings |= {"k": self.k, "filter": stored_filter(self.filter)}
            storage.check_json("filter", out.settings["filter"])
            write_documents(out, self._documents.values())
            self.bm25.store(out.part("words"), texts=False)

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        filter: MetadataFilter | None = None,  # noqa: A002
        **options: Any,
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        documents = read_documents(part)
        texts = [document.page_content for document in documents]
        bm25 = BM25.restore(part.part("words"), texts=texts, analyzer=analyzer)
        by_key(documents, bm25.keys)
        keep = restored_filter(part.settings["filter"], filter)
        return cls(
            documents=documents,
            bm25=bm25,
            filter=keep,
            **{"k": part.settings["k"], **options},
        )

    def check(self) -> None:
        """Checks that the analyzer of a restored retriever gives the terms that it gave.

        Raises:
            IndexMismatchError: It does not.
        """
        self.bm25.check_analyzer()

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
        """Again when a writer was half done: a key without its document, a mask too short."""
        try:
            return self._search_once(query, k, keep)
        except (KeyError, IndexError, InvalidInputError):
            with self._changing:
                return self._search_once(query, k, keep)

    def _search_once(
        self, query: str, k: int | None, keep: MetadataFilter | None
    ) -> list[Document]:
        documents, bm25 = self._documents, self.bm25
        keep = self.filter if keep is None else keep
        mask = mask_of(documents.items(), bm25.keys_given, keep)
        found = bm25.search(query, self.k if k is None else k, mask=mask)
        return retrieved(documents, found, "bm25")

    def _change(self, added: list[Document], removed: list[int]) -> None:
        # An index of its own: LangChain makes copies of retrievers that share the old one.
        bm25 = copy(self.bm25)
        keys = bm25.add(document.page_content for document in added)
        bm25.remove(removed)
        gone = set(removed)
        kept = {key: one for key, one in self._documents.items() if key not in gone}
        self._documents = kept | dict(zip(keys, added, strict=True))
        self.bm25 = bm25
        self.documents = list(self._documents.values())
