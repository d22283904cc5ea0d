"""LlamaIndex: reranking, first stages and context, as its own kinds of objects.

===========================  ================================================================
`CrossEncoderPostprocessor`  reranks nodes, wherever a node postprocessor goes
`RerankingRetriever`         any retriever, then reranking, in one
`BM25Retriever`              first stage by words
`FaissRetriever`             first stage by vectors
`HybridRetriever`            several retrievers, fused; gives `HybridNodeWithScore`
`BundledEmbedding`           the encoder that ships, for any vector store
`format_context`             nodes in, text for the prompt out; `pack_context` also says
                             what was left out
===========================  ================================================================
"""

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
from rerank_plugins.llama_index.context import format_context, pack_context
from rerank_plugins.llama_index.embedding import BundledEmbedding, EmbeddedEmbedding
from rerank_plugins.llama_index.faiss import FaissRetriever
from rerank_plugins.llama_index.hybrid import HybridNodeWithScore, HybridRetriever
from rerank_plugins.llama_index.postprocessor import CrossEncoderPostprocessor
from rerank_plugins.llama_index.reranking import RerankingRetriever

__all__ = [
    "BM25Retriever",
    "BundledEmbedding",
    "CrossEncoderPostprocessor",
    "EmbeddedEmbedding",
    "FaissRetriever",
    "HybridNodeWithScore",
    "HybridRetriever",
    "RerankingRetriever",
    "format_context",
    "pack_context",
]
