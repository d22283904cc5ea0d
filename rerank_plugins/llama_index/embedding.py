"""EmbeddedEmbedding: the encoder that ships, as a LlamaIndex embedding model."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from rerank_plugins._threads import in_thread
from rerank_plugins.first_stage.embedded_encoder import EmbeddedEncoder


class EmbeddedEmbedding(BaseEmbedding):
    """Embeds Arabic, French, Polish and English text on this machine, with no network.

    For any vector store, or for all of LlamaIndex::

        Settings.embed_model = EmbeddedEmbedding()

    Args:
        **fields: Those of any embedding: ``embed_batch_size``, ``callback_manager`` ...
    """

    _encoder: EmbeddedEncoder = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**{"model_name": "embedded", **fields})
        self._encoder = EmbeddedEncoder.default()

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized forms."""
        return "EmbeddedEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await in_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await in_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await in_thread(self._get_query_embedding, query)
