"""EmbeddedEmbeddings: the encoder that ships, as LangChain embeddings."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from rerank_plugins._threads import in_thread
from rerank_plugins.first_stage.embedded_encoder import EmbeddedEncoder


class EmbeddedEmbeddings(Embeddings):
    """Embeds Arabic, French, Polish and English text on this machine, with no network.

    For `FaissVectorStore`, whose default it is, or any other vector store::

        InMemoryVectorStore(EmbeddedEmbeddings())
    """

    def __init__(self) -> None:
        self._encoder = EmbeddedEncoder.default()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text, of length 1; zero for a text without a known token."""
        vectors: list[list[float]] = self._encoder.encode(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text, as `embed_documents` gives it."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` that leaves the event loop free."""
        return await in_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` that leaves the event loop free."""
        return await in_thread(self.embed_query, text)
