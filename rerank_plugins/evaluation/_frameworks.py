"""LangChain's documents and LlamaIndex's nodes; imported only when such an object is compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_plugins.errors import MissingDependencyError

Text = tuple[str, str, float | None]
"""Passage id, text, first-stage score."""


def documents(texts: Iterable[Text]) -> list[Any]:
    """LangChain documents, with the score and rank where our own adapters leave them."""
    from langchain_core.documents import Document

    return [
        Document(
            page_content=text,
            id=passage,
            metadata={"id": passage, "retrieval_rank": rank}
            | ({} if score is None else {"retrieval_score": score}),
        )
        for rank, (passage, text, score) in enumerate(texts, start=1)
    ]


def nodes(texts: Iterable[Text]) -> list[Any]:
    """LlamaIndex nodes with their scores."""
    from llama_index.core.schema import NodeWithScore, TextNode

    return [
        NodeWithScore(node=TextNode(text=text, id_=passage), score=score)
        for passage, text, score in texts
    ]


def langchain_bm25(texts: Iterable[Text], k: int) -> Any:
    """LangChain's own BM25 retriever with its defaults, which is what many start from.

    Raises:
        MissingDependencyError: langchain-community is not installed.
    """
    try:
        from langchain_community.retrievers import BM25Retriever
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"LangChain's BM25 needs {error.name}, which is not installed: "
            "pip install langchain-community"
        ) from error
    return BM25Retriever.from_documents(documents(texts), k=k)
