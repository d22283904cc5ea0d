"""Random changes through LlamaIndex's retriever, with readers beside the writer."""

from __future__ import annotations

import sys
from pathlib import Path

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rerank_plugins.llama_index import BM25Retriever

sys.path.insert(0, str(Path(__file__).parents[2] / "collection"))
from machines import SETTINGS, CollectionMachine


class LlamaIndexMachine(CollectionMachine):
    """LlamaIndex's door."""

    def __init__(self):
        self.retriever = BM25Retriever([], language="en", similarity_top_k=100)
        super().__init__()

    def add(self, items):
        """As the class asks."""
        self.retriever.insert_nodes(
            TextNode(
                id_=name,
                text=text,
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
            )
            for name, text, source in items
        )

    def delete(self, ids):
        """As the class asks."""
        self.retriever.delete_nodes(ids)

    def delete_source(self, source):
        """As the class asks."""
        self.retriever.delete_ref_doc(source)

    def search(self, query, source):
        """As the class asks."""
        kept = None
        if source is not None:
            kept = MetadataFilters(filters=[MetadataFilter(key="ref_doc_id", value=source)])
        return [
            (one.node_id, one.text, one.node.ref_doc_id, one.score)
            for one in self.retriever.retrieve(query, filters=kept)
        ]


TestLlamaIndexMachine = LlamaIndexMachine.TestCase
TestLlamaIndexMachine.settings = SETTINGS
