"""Nodes that the tests share."""

from __future__ import annotations

from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

QUERY = "When does the museum open?"

TEXTS = (
    "A bridge crosses the river.",
    "The museum does not open on Mondays.",
    "Bread keeps longer in a linen cloth.",
    "The museum opens at nine; when the bell rings, the doors open.",
    "يفتح المتحف أبوابه في التاسعة.",
)


def found(texts: tuple[str, ...] | list[str] = TEXTS, **metadata: object) -> list[NodeWithScore]:
    """What a first stage might bring: ids, metadata, relationships, falling scores."""
    return [
        NodeWithScore(
            node=TextNode(
                text=text,
                id_=f"id-{number}",
                metadata={"number": number, "nested": {"list": [1]}, **metadata},
                excluded_llm_metadata_keys=["number"],
                excluded_embed_metadata_keys=["number", "nested"],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
            ),
            score=1.0 - number / 10,
        )
        for number, text in enumerate(texts)
    ]


def ids(nodes: list[NodeWithScore]) -> list[str]:
    """Node ids, in order."""
    return [node.node_id for node in nodes]
