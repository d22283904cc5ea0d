"""Nodes as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import BaseNode, ObjectType
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import storage


def write_nodes(out: storage.Writer, nodes: Iterable[BaseNode]) -> None:
    """One JSON line a node, as LlamaIndex's own document stores write them.

    Raises:
        InvalidInputError: A node would not come back as it is: a class of its own, metadata that
            are no JSON, or an object behind an IndexNode.
    """
    out.lines("nodes.jsonl", map(_line, nodes))


def _line(node: BaseNode) -> dict[str, Any]:
    try:
        line = {**doc_to_json(node), TYPE_KEY: ObjectType(node.get_type()).value}
        back = json_to_doc(line)
        same = type(back) is type(node) and back == node
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"node {node.node_id!r} cannot be stored: {error}") from error
    if not same:
        raise InvalidInputError(
            f"node {node.node_id!r} ({type(node).__name__}) cannot be stored: it would come back "
            f"as another {type(back).__name__}"
        )
    return line


def read_nodes(part: storage.Reader) -> list[BaseNode]:
    """The nodes of `write_nodes`, in their order."""
    return [
        json_to_doc({DATA_KEY: line[DATA_KEY], TYPE_KEY: line[TYPE_KEY]})
        for line in part.lines("nodes.jsonl")
    ]
