"""FaissRetriever: a vector store as retriever."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, SkipValidation
from typing_extensions import Self

from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.first_stage import storage
from rerank_plugins.langchain._documents import MetadataFilter, retrieved
from rerank_plugins.langchain._stages import check_fields
from rerank_plugins.langchain._stored import restored_filter, stored_filter
from rerank_plugins.langchain.faiss import FaissVectorStore


class FaissRetriever(VectorStoreRetriever):
    """A `FaissVectorStore` as retriever, with its scores in the documents' metadata.

    What comes back are copies with ``retrieval_score``, ``retrieval_rank`` and
    ``retrieval_method``, but for the search type ``mmr``, whose order is not that of the scores.

    Args:
        vectorstore: Where the documents are.
        k: How many to return; ``invoke(query, k=...)`` for one call.
        search_type: ``similarity``, ``similarity_score_threshold`` (scores are then in [0, 1])
            or ``mmr``.
        search_kwargs: More for every search, such as ``{"filter": {"language": "ar"}}``.
        name: As of any retriever, like ``tags`` and ``metadata``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: FaissVectorStore
    k: SkipValidation[int] = 4

    def __init__(self, **fields: Any) -> None:
        check_fields(type(self), fields)
        check_count("k", fields.get("k", 0))
        super().__init__(**fields)

    def delete(self, ids: Iterable[str]) -> None:
        """Makes documents unfindable; see `FaissVectorStore.delete`."""
        self.vectorstore.delete(list(ids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes store and settings to a folder; see `FaissVectorStore.save`."""
        storage.save(path, "langchain.FaissRetriever", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        embedding: Embeddings | None = None,
        *,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
    ) -> Self:
        """Reads a retriever that `save` wrote; errors as of `FaissVectorStore.load`.

        Args:
            path: The folder.
            embedding: What embedded the documents: embeddings are not stored.
            filter: In place of the stored one; a filter that is a function is not stored.
        """
        found = storage.load(
            path, "langchain.FaissRetriever", lambda part: cls.restore(part, embedding, filter)
        )
        found.check()
        return found

    def store(self, out: storage.Writer) -> None:
        """Gives store and settings to a writer."""
        searched = {name: value for name, value in self.search_kwargs.items() if name != "filter"}
        storage.check_json("search_kwargs", searched)
        keep = stored_filter(self.search_kwargs.get("filter"))
        storage.check_json("filter", keep)
        out.settings |= {
            "k": self.k,
            "search_type": self.search_type,
            "search_kwargs": searched,
            "filter": keep,
        }
        self.vectorstore.store(out.part("store"))

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        embedding: Embeddings | None = None,
        keep: MetadataFilter | None = None,
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        told = part.settings
        store = FaissVectorStore.restore(part.part("store"), embedding)
        kept = restored_filter(told["filter"], keep)
        options = told["search_kwargs"] | ({} if kept is None else {"filter": kept})
        return cls(
            vectorstore=store,
            k=told["k"],
            search_type=told["search_type"],
            search_kwargs=options,
            tags=store._get_retriever_tags(),  # noqa: SLF001  (LangChain's)
        )

    def check(self) -> None:
        """Checks that the embedding of a restored retriever gives the vectors that it gave.

        Raises:
            IndexMismatchError: It does not.
        """
        self.vectorstore.check()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = self._options(kwargs)
        if self.search_type == "similarity":
            return _stamped(self.vectorstore.similarity_search_with_score(query, **options))
        if self.search_type == "similarity_score_threshold":
            return _stamped(
                self.vectorstore.similarity_search_with_relevance_scores(query, **options)
            )
        return super()._get_relevant_documents(query, run_manager=run_manager, **options)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await in_thread(
            self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs
        )

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        given = {**self.search_kwargs, **kwargs}
        return {**given, "k": self.k if given.get("k") is None else given["k"]}


def _stamped(found: list[tuple[Document, float]]) -> list[Document]:
    documents = [document for document, _ in found]
    candidates = [
        Candidate(key=position, text="", score=score, rank=position + 1)
        for position, (_, score) in enumerate(found)
    ]
    return retrieved(documents, candidates, "faiss")
