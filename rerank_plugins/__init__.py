"""Rerank retrieved documents with cross-encoders, inside LangChain and LlamaIndex.

Importing this module loads neither torch nor faiss nor a framework: what is named here is
imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_plugins.candidates import Candidate, Ranked, Ranking
    from rerank_plugins.context import ContextBuilder
    from rerank_plugins.models.catalog import CATALOG
    from rerank_plugins.models.loading import load_reranker
    from rerank_plugins.reranking.cascade import Cascade
    from rerank_plugins.reranking.reranker import Reranker
    from rerank_plugins.scoring.cache import ScoreCache
    from rerank_plugins.scoring.cross_encoder import CrossEncoderScorer
    from rerank_plugins.scoring.remote import RemoteScorer

__version__ = "0.1.0"

_HOMES = {
    "CATALOG": "models.catalog",
    "Candidate": "candidates",
    "Cascade": "reranking.cascade",
    "ContextBuilder": "context",
    "CrossEncoderScorer": "scoring.cross_encoder",
    "Ranked": "candidates",
    "Ranking": "candidates",
    "RemoteScorer": "scoring.remote",
    "Reranker": "reranking.reranker",
    "ScoreCache": "scoring.cache",
    "load_reranker": "models.loading",
}

__all__ = [
    "CATALOG",
    "Candidate",
    "Cascade",
    "ContextBuilder",
    "CrossEncoderScorer",
    "Ranked",
    "Ranking",
    "RemoteScorer",
    "Reranker",
    "ScoreCache",
    "__version__",
    "load_reranker",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"rerank_plugins.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
