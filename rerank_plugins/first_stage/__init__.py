"""First stages: they find the candidates that a reranker then orders."""

from rerank_plugins.bundled.encoder import BundledEncoder
from rerank_plugins.bundled.static_encoder import StaticEncoder
from rerank_plugins.first_stage.analysis import Analyzer, analyzer_for, detect_language
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.fusion import Hybrid, HybridCandidate

EmbeddedEncoder = BundledEncoder
"""The same under its earlier name."""

__all__ = [
    "BM25",
    "Analyzer",
    "BundledEncoder",
    "Dense",
    "EmbeddedEncoder",
    "FirstStage",
    "Hybrid",
    "HybridCandidate",
    "StaticEncoder",
    "analyzer_for",
    "detect_language",
]
