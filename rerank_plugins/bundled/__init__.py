"""Weights that ship with the package, and what reads them.

``encoder/`` is multilingual-e5-small for four languages, ``static/`` a table of token vectors,
``reranker/`` the cross-encoder; ``README.md`` is their card. Nothing is loaded on import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rerank_plugins.bundled._folder import FOLDER

if TYPE_CHECKING:
    from rerank_plugins.bundled.encoder import BundledEncoder
    from rerank_plugins.bundled.static_encoder import StaticEncoder

__all__ = ["FOLDER", "BundledEncoder", "EncoderName", "StaticEncoder", "load_encoder"]

EncoderName = Literal["bundled-encoder", "bundled-static"]


def load_encoder(name: EncoderName = "bundled-encoder") -> BundledEncoder | StaticEncoder:
    """A text encoder that ships, one per process; its files are read at first use.

    Args:
        name: ``bundled-encoder`` (multilingual-e5-small: 10 to 60 passages per second and core)
            or ``bundled-static`` (a table of token vectors: a thousand a second, less accurate).

    Raises:
        InvalidInputError: If there is no encoder of that name.
    """
    from rerank_plugins._validation import check_choice
    from rerank_plugins.bundled.encoder import BundledEncoder
    from rerank_plugins.bundled.static_encoder import StaticEncoder

    check_choice("model", name, ("bundled-encoder", "bundled-static"))
    return (BundledEncoder if name == "bundled-encoder" else StaticEncoder).default()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"BundledEncoder": "encoder", "StaticEncoder": "static_encoder"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
