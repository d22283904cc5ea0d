"""LangChain: reranking, first stages and context, as its own kinds of objects.

==========================  =================================================================
`CrossEncoderCompressor`    reranks documents, wherever a compressor goes
`RerankingRetriever`        any retriever, then reranking, in one
`BM25Retriever`             first stage by words
`CrossEncoderModel`         the models, for LangChain's own ``CrossEncoderReranker``
==========================  =================================================================
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
from rerank_plugins.langchain.compressor import CrossEncoderCompressor
from rerank_plugins.langchain.cross_encoder import CrossEncoderModel
from rerank_plugins.langchain.reranking import RerankingRetriever

__all__ = [
    "BM25Retriever",
    "CrossEncoderCompressor",
    "CrossEncoderModel",
    "RerankingRetriever",
]
