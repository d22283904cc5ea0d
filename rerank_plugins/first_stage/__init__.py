"""First stages: they find the candidates that a reranker then orders."""

from rerank_plugins.first_stage.analysis import Analyzer, analyzer_for, detect_language
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.embedded_encoder import EmbeddedEncoder
from rerank_plugins.first_stage.fusion import Hybrid, HybridCandidate

__all__ = [
    "BM25",
    "Analyzer",
    "Dense",
    "EmbeddedEncoder",
    "FirstStage",
    "Hybrid",
    "HybridCandidate",
    "analyzer_for",
    "detect_language",
]
