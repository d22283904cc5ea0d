"""BundledEmbedding: the encoders that ship, as a LlamaIndex embedding model."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from numpy.typing import NDArray
from pydantic import PrivateAttr

from rerank_plugins._names import check_options
from rerank_plugins._threads import off_loop
from rerank_plugins.bundled import BundledEncoder, EncoderName, StaticEncoder, load_encoder


class BundledEmbedding(BaseEmbedding):
    """Embeds Arabic, French, Polish and English text on this machine, with no network.

    For any vector store, or for all of LlamaIndex::

        Settings.embed_model = BundledEmbedding()

    Args:
        **fields: Those of any embedding: ``embed_batch_size``, ``callback_manager`` ...;
            ``model_name`` is ``bundled-encoder`` or, for a million passages in a minute,
            ``bundled-static``; see `rerank_plugins.bundled.load_encoder`.

    Raises:
        InvalidInputError: If there is no encoder or field of that name.
    """

    _encoder: BundledEncoder | StaticEncoder = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        if fields.get("model_name", "embedded") == "embedded":  # its earlier name, in stored forms
            fields["model_name"] = "bundled-encoder"
        check_options(type(self).__name__, fields, type(self).model_fields)
        super().__init__(**fields)
        self._encoder = load_encoder(cast("EncoderName", self.model_name))

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized forms."""
        return "BundledEmbedding"

    def embed_windows(self, texts: list[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """One vector per window of each passage, and the passage's place; `Dense` asks for it."""
        return self._encoder.embed_windows(texts)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode_document(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode_query([query])[0].tolist()
        return vector

    _aget_text_embeddings = off_loop(_get_text_embeddings)  # type: ignore[arg-type]
    _aget_text_embedding = off_loop(_get_text_embedding)  # type: ignore[arg-type]
    _aget_query_embedding = off_loop(_get_query_embedding)  # type: ignore[arg-type]


EmbeddedEmbedding = BundledEmbedding
"""The same under its earlier name."""
