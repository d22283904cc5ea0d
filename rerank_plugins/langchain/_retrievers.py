"""What stores and retrievers share: ``k``, blank queries, and documents in collections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._names import check_options, nearest, own_options
from rerank_plugins._threads import off_loop
from rerank_plugins._validation import check_count
from rerank_plugins.collection import Collection, Record, check_ids
from rerank_plugins.collection.stored import Stored, filter_made, filter_told
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    copied,
    documents_of,
    read_filter,
    records_of,
)
from rerank_plugins.langchain.embeddings import checked_embedding


class Retriever(BaseRetriever):
    """A retriever of ``k`` documents, which finds nothing for a blank query."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: SkipValidation[int]

    def _default_k(self) -> int:
        return self.k

    def _plan(self, count: int, options: dict[str, Any]) -> Any:
        """What the call's arguments come to, checked; also for a blank query."""
        raise NotImplementedError

    def _find(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        raise NotImplementedError

    async def _afind(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        raise NotImplementedError

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self._default_k() if k is None else k)
        plan = self._plan(count, options)
        return [] if blank(query) else self._find(query, count, plan, run_manager)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self._default_k() if k is None else k)
        plan = self._plan(count, options)
        return [] if blank(query) else await self._afind(query, count, plan, run_manager)


class Collected(Stored):
    """Documents in one or more collections."""

    _ENCODER: ClassVar[str] = "embedding"

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
        refuse(unknown, ("ids",))
        return self._add(records_of(documents, ids))

    async def aadd_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002
        **unknown: Any,
    ) -> list[str]:
        """`add_documents` that leaves the event loop free and awaits the embedding."""
        refuse(unknown, ("ids",))
        return await self._aadd(records_of(documents, ids))

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

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: MetadataFilter | None = None,
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
        refuse(unknown, ("ids", "filter"))
        if ids is not None and filter is not None:
            raise InvalidInputError("delete by ids or by a filter, but not by both at once")
        if ids is None:
            self._delete_where(read_filter(filter))
        else:
            self._delete(ids)
        return True

    adelete = off_loop(delete)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Copies of the documents with these ids, in their order; unknown ids are passed over."""
        view = self._collections()[0].view
        keys = [view.key(name) for name in check_ids(ids)]
        return [copied(view.record(key).item) for key in keys if key is not None]

    aget_by_ids = off_loop(get_by_ids)

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
            options["embedding"] = embedding = checked_embedding(embedding)
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


class Filtered(Collected):
    """Documents behind a filter of the retriever's own."""

    def _keeps(self: Any) -> Any:
        """Its filter."""
        return self.filter

    def _told_inside(self, collections: list[Collection]) -> dict[str, Any]:
        return super()._told_inside(collections) | {"filter": filter_told(self._keeps())}

    @classmethod
    def _made_inside(
        cls, told: Mapping[str, Any], collections: list[Collection], given: dict[str, Any]
    ) -> dict[str, Any]:
        keep = filter_made(told["filter"], given.pop("filter", None))
        return super()._made_inside(told, collections, given) | {"filter": keep}


def refuse(unknown: Mapping[str, Any], known: Sequence[str] = ("k", "filter")) -> None:
    """A misspelt filter that was passed over would let out what it should keep back."""
    if unknown:
        near = dict.fromkeys(one for name in sorted(unknown) for one in nearest(name, known))
        meant = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise InvalidInputError(
            f"unknown option: {', '.join(sorted(unknown))}{meant}; this call takes "
            f"{' and '.join(known)}"
        )


def check_fields(retriever: type[BaseRetriever], fields: Mapping[str, Any]) -> None:
    """An InvalidInputError if a retriever has neither an option nor a field of that name."""
    known = {*own_options(retriever), *retriever.model_fields}
    check_options(retriever.__name__, fields.keys() - retriever.model_fields.keys(), known)
