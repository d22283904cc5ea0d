"""LlamaIndex adapter: postprocessor, retrievers, embedding and context."""

from __future__ import annotations

from rerank_plugins.errors import MissingDependencyError

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        "rerank_plugins.llama_index needs llama-index-core: "
        "pip install 'rerank-plugins[llama-index]'"
    ) from error

from rerank_plugins.llama_index.bm25 import BM25Retriever
from rerank_plugins.llama_index.embedding import EmbeddedEmbedding
from rerank_plugins.llama_index.faiss import FaissRetriever
from rerank_plugins.llama_index.postprocessor import CrossEncoderPostprocessor
from rerank_plugins.llama_index.reranking import RerankingRetriever

__all__ = [
    "BM25Retriever",
    "CrossEncoderPostprocessor",
    "EmbeddedEmbedding",
    "FaissRetriever",
    "RerankingRetriever",
]
