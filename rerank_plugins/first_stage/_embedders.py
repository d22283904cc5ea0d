"""What ``Dense`` takes to embed with, read as one kind of object."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import in_thread
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._vectors import (
    Metric,
    Vectors,
    check_dimension,
    checked_owners,
    checked_vectors,
)


class Embedder:
    """Embeds passages and queries by whatever methods the given object has."""

    def __init__(self, embed: Any = None) -> None:
        """Reads the object.

        Raises:
            InvalidInputError: If it lacks the methods that `Dense` names.
        """
        if embed is None:
            from rerank_plugins.bundled import load_encoder

            embed = load_encoder()
        self.embed = embed
        if _has(embed, "embed_documents", "embed_query"):
            self._passages, self._query = "embed_documents", "embed_query"
        elif _has(embed, "get_text_embedding_batch", "get_query_embedding"):
            self._passages, self._query = "get_text_embedding_batch", "get_query_embedding"
        elif _has(embed, "encode") and not isinstance(embed, str):  # which has another encode
            # From version 5 sentence-transformers gives each side the prompt its model wants.
            self._passages = "encode_document" if _has(embed, "encode_document") else "encode"
            self._query = "encode_query" if _has(embed, "encode_query") else "encode"
        elif callable(embed):
            self._passages = self._query = "__call__"
        else:
            raise InvalidInputError(
                "embed must have embed_documents and embed_query, get_text_embedding_batch and "
                "get_query_embedding, or encode, or be callable on a list of texts, "
                f"but is {type(embed).__name__}"
            )

    def passages(self, texts: list[str]) -> tuple[Any, Any]:
        """Vectors, shape (m, d), and which text each belongs to; None: one per text, in order."""
        if _has(self.embed, "embed_windows"):
            vectors, owners = self.embed.embed_windows(texts)
            return vectors, owners
        return getattr(self.embed, self._passages)(texts), None

    def query(self, text: str) -> Any:
        """Shape (1, d)."""
        call = getattr(self.embed, self._query)
        return [call(text)] if self._takes_one() else call([text])

    async def apassages(self, texts: list[str]) -> tuple[Any, Any]:
        """`passages`, by the object's own coroutine where it has one."""
        own = self._coroutine(self._passages)
        if own is None or _has(self.embed, "embed_windows"):
            return await in_thread(self.passages, texts)
        return await own(texts), None

    async def aquery(self, text: str) -> Any:
        """`query`, by the object's own coroutine where it has one."""
        own = self._coroutine(self._query)
        if own is None:
            return await in_thread(self.query, text)
        return [await own(text)]

    def _takes_one(self) -> bool:
        return self._query in ("embed_query", "get_query_embedding")

    def _coroutine(self, name: str) -> Any:
        """LangChain and LlamaIndex put an ``a`` before the name."""
        return getattr(self.embed, f"a{name}", None) if self._takes_one() else None


def _has(embed: Any, *names: str) -> TypeGuard[Any]:
    return all(hasattr(embed, name) for name in names)


class Gathered:
    """Vectors of one batch after another, checked."""

    def __init__(self, metric: Metric) -> None:
        self._metric: Metric = metric
        self._vectors: list[Vectors] = []
        self._owners: list[NDArray[np.int64]] = []
        self._texts = 0

    def take(self, batch: list[str], embedded: Any, owners: Any) -> None:
        """Adds what was given for some texts."""
        vectors = checked_vectors(embedded, len(batch) if owners is None else None, self._metric)
        if self._vectors:
            check_dimension(vectors, self._vectors[0].shape[1])
        self._owners.append(checked_owners(owners, vectors, len(batch)) + self._texts)
        self._vectors.append(vectors)
        self._texts += len(batch)

    def whole(self) -> tuple[Vectors, NDArray[np.int64]]:
        """All of them."""
        if not self._vectors:
            return np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=np.int64)
        return np.concatenate(self._vectors), np.concatenate(self._owners)
