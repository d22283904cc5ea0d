"""`rerank_plugins.testing.compressors` under its earlier name."""

from rerank_plugins.testing.compressors import CompressorConformance, RunCounter

__all__ = ["CompressorConformance", "RunCounter"]
