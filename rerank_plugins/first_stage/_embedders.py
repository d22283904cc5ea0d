"""What ``Dense`` takes to embed with, read as two functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rerank_plugins.errors import InvalidInputError


def embedders(embed: Any) -> tuple[Callable[[list[str]], Any], Callable[[str], Any]]:
    """From n texts to (n, d), and from one query to (1, d)."""
    if embed is None:
        from rerank_plugins.first_stage.embedded_encoder import EmbeddedEncoder

        embed = EmbeddedEncoder.default()
    if hasattr(embed, "embed_documents") and hasattr(embed, "embed_query"):
        return embed.embed_documents, lambda query: [embed.embed_query(query)]
    if hasattr(embed, "get_text_embedding_batch") and hasattr(embed, "get_query_embedding"):
        return embed.get_text_embedding_batch, lambda query: [embed.get_query_embedding(query)]
    if hasattr(embed, "encode"):
        # From version 5 sentence-transformers gives each side the prompt its model wants.
        passages = getattr(embed, "encode_document", embed.encode)
        queries = getattr(embed, "encode_query", embed.encode)
        return passages, lambda query: queries([query])
    if callable(embed):
        return embed, lambda query: embed([query])
    raise InvalidInputError(
        "embed must have embed_documents and embed_query, get_text_embedding_batch and "
        "get_query_embedding, or encode, or be callable on a list of texts, "
        f"but is {type(embed).__name__}"
    )
