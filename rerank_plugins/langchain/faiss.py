"""FaissVectorStore: the first stage that goes by vectors."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins._validation import check_count, check_names
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.dense import Dense, IndexChoice, Metric
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    documents_of,
    mask_of,
    with_metadata,
)
from rerank_plugins.langchain._stored import by_key, named, read_documents, write_documents
from rerank_plugins.langchain.embeddings import EmbeddedEmbeddings

if TYPE_CHECKING:
    from rerank_plugins.langchain.faiss_retriever import FaissRetriever


class Search(Protocol):
    """A search that needs a mask only."""

    def __call__(self, *, mask: NDArray[np.bool_] | None) -> list[Candidate]:
        """Candidates, best first."""
        ...


class FaissVectorStore(VectorStore):
    """Documents by the vectors of their texts, in FAISS.

    Scores are higher for the nearer, whatever the metric: the cosine, the inner product, or
    minus the squared distance. Documents are copied in and copied out. Adding a document
    under an id that is there replaces it. Any number of threads may search, add and delete::

        store = FaissVectorStore.from_documents(documents)
        retriever = store.as_retriever(k=10)

    Args:
        embedding: Any LangChain embeddings; None for `EmbeddedEmbeddings`, which ship.
        metric: ``cosine``, ``inner_product`` or ``l2``.
        index_kind: ``exact``, ``hnsw``, ``ivfpq``, or ``auto``, which goes from one to the
            next as the documents grow in number; see `rerank_plugins.first_stage.Dense`.

    Raises:
        InvalidInputError: An option breaks its rule.
        MissingDependencyError: faiss is not installed.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        *,
        metric: Metric = "cosine",
        index_kind: IndexChoice = "auto",
    ) -> None:
        self._embedding = EmbeddedEmbeddings() if embedding is None else embedding
        if not isinstance(self._embedding, Embeddings):
            raise InvalidInputError(
                f"embedding must be LangChain Embeddings, but got {type(embedding).__name__}"
            )
        self._dense = Dense(embed=self._embedding, metric=metric, index=index_kind)
        self._documents: dict[int, Document] = {}
        self._keys: dict[str, int] = {}
        self._size = 0  # keys ever given: the length of a mask
        self._writing = threading.Lock()

    @property
    def embeddings(self) -> Embeddings:
        """What embeds documents and queries."""
        return self._embedding

    def __len__(self) -> int:
        return len(self._keys)

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
        """A store of documents made of these texts; ``options`` as of the class.

        Raises:
            InvalidInputError: There are more or fewer metadatas or ids than texts, or an option
                breaks its rule.
        """
        store = cls(embedding, **options)
        store.add_documents(documents_of(texts, metadatas, ids))
        return store

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], embedding: Embeddings | None = None, **options: Any
    ) -> Self:
        """A store of these documents; ``options`` as of the class, and ``ids``."""
        ids = options.pop("ids", None)
        store = cls(embedding, **options)
        store.add_documents(documents, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **unknown: Any,
    ) -> list[str]:
        """Adds documents made of these texts; see `add_documents`."""
        _refuse(unknown)
        return self.add_documents(documents_of(texts, metadatas, ids))

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str | None] | None = None,
        **unknown: Any,
    ) -> list[str]:
        """Embeds and adds documents: all of them, or after an error none.

        Args:
            documents: Kept as copies.
            ids: In place of the documents' own. A document without either gets a new one; one
                with an id that is in the store, or twice in the list, replaces the earlier.
            **unknown: Nothing else is taken.

        Returns:
            One id a document, in the order given.

        Raises:
            InvalidInputError: An element is no Document, or there are more or fewer ids.
        """
        _refuse(unknown)
        final, newest = named(documents, ids)
        with self._writing:
            keys = self._dense.add(document.page_content for document in newest.values())
            replaced = [self._keys[name] for name in newest if name in self._keys]
            for key, (name, document) in zip(keys, newest.items(), strict=True):
                self._documents[key] = document
                self._keys[name] = key
                self._size = key + 1
            self._remove(replaced)
        return final

    def delete(self, ids: Iterable[str] | None = None, **unknown: Any) -> bool:
        """Makes documents unfindable.

        Args:
            ids: Those that are not in the store are passed over; None for all that are.
            **unknown: Nothing else is taken.

        Returns:
            True.
        """
        _refuse(unknown)
        with self._writing:
            names = list(self._keys) if ids is None else check_names(ids)
            self._remove([self._keys.pop(name) for name in names if name in self._keys])
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Copies of the documents with these ids, in their order; unknown ids are passed over."""
        keys = [self._keys.get(name) for name in ids]
        found = [self._documents.get(key) for key in keys if key is not None]
        return [with_metadata(document, {}) for document in found if document is not None]

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        **unknown: Any,
    ) -> list[Document]:
        """The ``k`` nearest documents, best first, as they were added.

        Args:
            query: Non-blank text.
            k: How many at most.
            filter: Metadata values that a document must have, or a function of the document
                that says whether it may come back. As many as ``k`` of those come back.
            **unknown: Nothing else is taken.

        Raises:
            InvalidInputError: The query is blank, or ``k`` or the filter breaks its rule.
        """
        found = self.similarity_search_with_score(query, k, filter, **unknown)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each document with its score, higher for the nearer."""
        _refuse(unknown)
        return self._found(partial(self._dense.search, query, k), filter)

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> list[Document]:
        """As `similarity_search`, for a query that is embedded already."""
        _refuse(unknown)
        found = self._found(partial(self._dense.search_by_vector, embedding, k), filter)
        return [document for document, _ in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> list[Document]:
        """The ``k`` of the ``fetch_k`` nearest that are near and unlike each other.

        Args:
            query: Non-blank text.
            k: How many at most.
            fetch_k: How many to choose from.
            lambda_mult: 1 weighs nearness alone, 0 unlikeness alone.
            filter: As of `similarity_search`.
            **unknown: Nothing else is taken.
        """
        return self.max_marginal_relevance_search_by_vector(
            self._embedding.embed_query(check_query(query)),
            k,
            fetch_k,
            lambda_mult,
            filter,
            **unknown,
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,  # noqa: A002
        **unknown: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a query that is embedded already."""
        _refuse(unknown)
        vectors: list[list[float]] = []

        def search(*, mask: NDArray[np.bool_] | None) -> list[Candidate]:
            near = self._dense.search_by_vector(embedding, fetch_k, mask=mask)
            vectors[:] = self._dense.vectors([one.key for one in near]).tolist()
            return near

        found = self._found(search, filter)
        chosen = maximal_marginal_relevance(
            np.asarray(embedding), vectors, lambda_mult=lambda_mult, k=check_count("k", k)
        )
        return [found[position][0] for position in chosen]

    def as_retriever(self, **kwargs: Any) -> FaissRetriever:
        """A retriever over this store; ``kwargs`` as of `FaissRetriever`."""
        from rerank_plugins.langchain.faiss_retriever import FaissRetriever

        tags = kwargs.pop("tags", None) or self._get_retriever_tags()
        return FaissRetriever(vectorstore=self, tags=tags, **kwargs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes documents and vectors to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A document's metadata are no JSON.
        """
        storage.save(path, "langchain.FaissVectorStore", self.store)

    @classmethod
    def load(cls, path: str | os.PathLike[str], embedding: Embeddings | None = None) -> Self:
        """Reads a store that `save` wrote, its vectors mapped from the disk; nothing is pickled.

        Args:
            path: The folder.
            embedding: What embedded the documents: embeddings are not stored.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: The embedding gives other vectors than it did, or the index is of
                another kind.
        """
        found = storage.load(
            path, "langchain.FaissVectorStore", lambda part: cls.restore(part, embedding)
        )
        found.check()
        return found

    def store(self, out: storage.Writer) -> None:
        """Gives documents and vectors to a writer."""
        with self._writing:
            write_documents(out, self._documents.values())
            self._dense.store(out.part("vectors"), texts=False)

    @classmethod
    def restore(cls, part: storage.Reader, embedding: Embeddings | None = None) -> Self:
        """The store that `store` gave; call `check` before it is used."""
        found = cls(embedding)
        documents = read_documents(part)
        texts = [document.page_content for document in documents]
        dense = Dense.restore(part.part("vectors"), texts=texts, embed=found.embeddings)
        found._dense, found._size = dense, dense.keys_given
        found._documents = by_key(documents, dense.keys)
        found._keys = {str(document.id): key for key, document in found._documents.items()}
        return found

    def check(self) -> None:
        """Checks that the embedding of a restored store gives the vectors that it gave.

        Raises:
            IndexMismatchError: It does not.
        """
        self._dense.check_encoder()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._dense.metric]

    def _found(self, search: Search, keep: MetadataFilter | None) -> list[tuple[Document, float]]:
        """Copies of what the search finds among the documents that the filter keeps.

        Writers do not stop readers. A reader that sees a writer's work half done (a vector
        without its document, a mask of the old length) looks again when it is finished.
        """
        try:
            return self._found_once(search, keep)
        except (KeyError, IndexError, InvalidInputError):
            with self._writing:
                return self._found_once(search, keep)

    def _found_once(
        self, search: Search, keep: MetadataFilter | None
    ) -> list[tuple[Document, float]]:
        documents = () if keep is None else list(self._documents.items())
        mask = mask_of(documents, self._size, keep)
        return [
            (with_metadata(self._documents[one.key], {}), 0.0 if one.score is None else one.score)
            for one in search(mask=mask)
        ]

    def _remove(self, keys: list[int]) -> None:
        """Takes documents out; readers meet a missing document before a missing vector."""
        for key in keys:
            del self._documents[key]
        self._dense.remove(keys)


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


def _refuse(unknown: dict[str, Any]) -> None:
    """A misspelt filter that was passed over would let out what it should keep back."""
    if unknown:
        raise InvalidInputError(f"there is no option {', '.join(sorted(unknown))}")
