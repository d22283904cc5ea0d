"""BundledEmbeddings: the encoders that ship, as LangChain embeddings."""

from __future__ import annotations

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from rerank_plugins._threads import off_loop
from rerank_plugins.bundled import EncoderName, load_encoder
from rerank_plugins.errors import InvalidInputError


class BundledEmbeddings(Embeddings):
    """Embeds Arabic, French, Polish and English text on this machine, with no network.

    For `FaissVectorStore`, whose default it is, or any other vector store::

        InMemoryVectorStore(BundledEmbeddings())

    Args:
        model: ``bundled-encoder`` or, for a million passages in a minute, ``bundled-static``; see
            `rerank_plugins.bundled.load_encoder`.

    Raises:
        InvalidInputError: If there is no encoder of that name.
    """

    def __init__(self, model: EncoderName = "bundled-encoder") -> None:
        self._encoder = load_encoder(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per passage, of length 1; a passage of several windows has their mean."""
        vectors: list[list[float]] = self._encoder.encode_document(texts).tolist()
        return vectors

    def embed_windows(self, texts: list[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """One vector per window of each passage, and the passage's place; `Dense` asks for it."""
        return self._encoder.embed_windows(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of one query."""
        vector: list[float] = self._encoder.encode_query([text])[0].tolist()
        return vector

    aembed_documents = off_loop(embed_documents)  # type: ignore[arg-type]
    aembed_query = off_loop(embed_query)  # type: ignore[arg-type]


def checked_embedding(embedding: Embeddings | None) -> Embeddings:
    """The embedding, or the bundled one; an InvalidInputError if it is not an Embeddings."""
    given = BundledEmbeddings() if embedding is None else embedding
    if not isinstance(given, Embeddings):
        raise InvalidInputError(
            f"embedding must be LangChain Embeddings, but got {type(embedding).__name__}"
        )
    return given


EmbeddedEmbeddings = BundledEmbeddings
"""The same under its earlier name."""
