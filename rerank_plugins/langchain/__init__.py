"""LangChain: reranking, first stages and context, as its own kinds of objects.

=========================  ==================================================================
`CrossEncoderCompressor`   reranks documents, wherever a compressor goes
`RerankingRetriever`       any retriever, then reranking, in one
`BM25Retriever`            first stage by words
`FaissVectorStore`         first stage by vectors; ``as_retriever()`` gives a `FaissRetriever`
`HybridRetriever`          several first stages, fused
`BundledEmbeddings`        the encoder that ships, for any vector store
`CrossEncoderModel`        the models, for LangChain's own ``CrossEncoderReranker``
`format_context`           a runnable: documents in, text for the prompt out
`FilterTranslator`         filters that a language model writes, for SelfQueryRetriever
`pack_context`             the same with an account of what went in and what did not
=========================  ==================================================================
"""

from rerank_plugins.errors import MissingDependencyError

try:
    import langchain_core.cross_encoders  # noqa: F401  (in langchain-core since 1.2.19)
except ImportError as error:
    raise MissingDependencyError(
        "rerank_plugins.langchain needs langchain-core 1.2.19 or later: "
        "pip install 'rerank-plugins[langchain]'"
    ) from error

from rerank_plugins.langchain.bm25 import BM25Retriever
from rerank_plugins.langchain.compressor import CrossEncoderCompressor, CrossEncoderModel
from rerank_plugins.langchain.context import format_context, pack_context
from rerank_plugins.langchain.embeddings import BundledEmbeddings, EmbeddedEmbeddings
from rerank_plugins.langchain.faiss import FaissRetriever, FaissVectorStore
from rerank_plugins.langchain.filters import FilterTranslator
from rerank_plugins.langchain.hybrid import HybridRetriever
from rerank_plugins.langchain.reranking import RerankingRetriever

__all__ = [
    "BM25Retriever",
    "BundledEmbeddings",
    "CrossEncoderCompressor",
    "CrossEncoderModel",
    "EmbeddedEmbeddings",
    "FaissRetriever",
    "FaissVectorStore",
    "FilterTranslator",
    "HybridRetriever",
    "RerankingRetriever",
    "format_context",
    "pack_context",
]
