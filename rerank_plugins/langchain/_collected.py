"""What the stores and retrievers over collections share: adding, deleting, reading, storing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins.collection import Collection, Record, View, check_ids
from rerank_plugins.collection.stored import Stored
from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    copied,
    read_filter,
    records_of,
    retrieved,
)
from rerank_plugins.langchain.embeddings import BundledEmbeddings


class Collected(Stored):
    """Documents in one or more collections."""

    _EMBEDS: ClassVar[bool] = True  # whether vectors are searched

    def _collections(self) -> list[Collection]:
        """Each of its collections once, what may fail when documents are added first."""
        raise NotImplementedError

    @property
    def documents(self) -> list[Document]:
        """Copies of what can be found."""
        return [copied(record.item) for record in self._collections()[0].view]

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002
        **unknown: Any,
    ) -> list[str]:
        """Adds documents: all of them, or after an error none.

        Args:
            documents: Kept as copies.
            ids: In place of the documents' own. A document without either gets a new one; one
                with an id that is there, or twice in the list, replaces the earlier.
            batch_size: Taken because LangChain's ``index()`` gives it; the embedding has its own.
            **unknown: Nothing else is taken.

        Returns:
            One id per document, in the order given.

        Raises:
            InvalidInputError: If an element is not a Document, an id is not text or a whole
                number, or there are more or fewer ids than documents.
        """
        refuse(unknown)
        records = records_of(documents, ids)
        for collection in self._collections():
            collection.add(records)
        return [str(record.id) for record in records]

    async def aadd_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002
        **unknown: Any,
    ) -> list[str]:
        """`add_documents` that leaves the event loop free and awaits the embedding."""
        refuse(unknown)
        records = records_of(documents, ids)
        for collection in self._collections():
            await collection.aadd(records)
        return [str(record.id) for record in records]

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        **unknown: Any,
    ) -> bool:
        """Makes documents unfindable.

        Args:
            ids: Those that no document has are passed over; None for all.
            filter: Only documents that it keeps, such as ``{"source": "a.pdf"}``, in place of
                ``ids``.
            **unknown: Nothing else is taken.

        Returns:
            True.

        Raises:
            InvalidInputError: If both are given, or one is wrong.
        """
        refuse(unknown)
        if ids is not None and filter is not None:
            raise InvalidInputError("delete by ids or by a filter, but not by both at once")
        kept, names = read_filter(filter), None if ids is None else check_ids(ids)
        for collection in self._collections():
            if names is None:
                collection.delete_where(kept)
            else:
                collection.delete(names)
        return True

    async def adelete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> bool:
        """`delete` that leaves the event loop free."""
        return await in_thread(self.delete, ids, filter=filter, **unknown)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Copies of the documents with these ids, in their order; unknown ids are passed over."""
        view = self._collections()[0].view
        keys = [view.key(name) for name in check_ids(ids)]
        return [copied(view.record(key).item) for key in keys if key is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids` that leaves the event loop free."""
        return await in_thread(self.get_by_ids, ids)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        embedding: Embeddings | None = None,
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **options: Any,
    ) -> Self:
        """Reads what `save` wrote, its arrays mapped from the disk; nothing is pickled.

        Args:
            path: The folder.
            embedding: What embedded the documents, which is not stored; None for the bundled one.
            analyzer: What read the words, where it was not a language's.
            **options: Fields of the class, in place of the stored ones. A ``filter`` that is a
                function is not stored and must be given again.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: If another version of this library wrote it.
            IndexMismatchError: If embedding or analyzer give other vectors or terms than they
                did, a function is missing, or the index is of another kind.
        """
        if cls._EMBEDS:
            embedding = BundledEmbeddings() if embedding is None else embedding
            options["embedding"] = embedding
        return cls._load(path, embedding, analyzer, options)

    @staticmethod
    def _line(record: Record) -> dict[str, Any]:
        document = record.item
        if type(document) is not Document:
            raise InvalidInputError(
                f"Documents alone can be stored, but one is {type(document).__name__}"
            )
        return {"id": record.id, "page_content": record.text, "metadata": document.metadata}

    @staticmethod
    def _record(line: Any) -> Record:
        document = Document(**line)
        return Record(document.id, document.page_content, document.metadata, document)


def found_in(
    view: View,
    query: str,
    k: int,
    keep: MetadataFilter | None,
    *,
    stage: int,
    vector: Sequence[float] | None = None,
) -> list[tuple[Document, float]]:
    """The collection's own documents that a stage finds, with their scores: copy them."""
    found = view.search(query, k, read_filter(keep), stage=stage, vector=vector)
    return [(record.item, 0.0 if one.score is None else one.score) for record, one in found]


def results(
    found: Sequence[tuple[Document, float]], query: str, method: str, *, stamp: bool
) -> list[Document]:
    """Copies for the caller, stamped or as they were added."""
    if stamp:
        return retrieved(found, query, method)
    return [copied(document) for document, _ in found]


def refuse(unknown: Mapping[str, Any]) -> None:
    """A misspelt filter that was passed over would let out what it should keep back."""
    if unknown:
        raise InvalidInputError(f"unknown option: {', '.join(sorted(unknown))}")


def told_filter(keep: MetadataFilter | None) -> dict[str, Any]:
    """What is stored of a filter: the dict, or that it is a function."""
    if isinstance(keep, Mapping):
        return {"values": dict(keep)}
    return {"function": keep is not None}


def made_filter(told: Mapping[str, Any], given: MetadataFilter | None) -> MetadataFilter | None:
    """The filter that is given, or the stored one.

    Raises:
        IndexMismatchError: If it was a function, and none is given: without it, documents would
            come back that were to be kept back.
    """
    if given is not None:
        return given
    if told.get("function"):
        raise IndexMismatchError(
            "the retriever had a function as its filter, which is not stored: "
            "give it again as filter="
        )
    values: Mapping[str, Any] | None = told.get("values")
    return values
