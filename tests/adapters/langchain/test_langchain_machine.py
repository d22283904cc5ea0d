"""Random changes through LangChain's retriever, with readers beside the writer."""

from __future__ import annotations

import sys
from pathlib import Path

from langchain_core.documents import Document

from rerank_plugins.langchain import BM25Retriever

sys.path.insert(0, str(Path(__file__).parents[2] / "collection"))
from machines import SETTINGS, CollectionMachine


class LangChainMachine(CollectionMachine):
    """LangChain's door."""

    def __init__(self):
        self.retriever = BM25Retriever(documents=[], language="en", k=100)
        super().__init__()

    def add(self, items):
        """As the class asks."""
        self.retriever.add_documents(
            Document(id=name, page_content=text, metadata={"source": source})
            for name, text, source in items
        )

    def delete(self, ids):
        """As the class asks."""
        self.retriever.delete(ids)

    def delete_source(self, source):
        """As the class asks."""
        self.retriever.delete(filter={"source": source})

    def search(self, query, source):
        """As the class asks."""
        kept = None if source is None else {"source": source}
        return [
            (one.id, one.page_content, one.metadata["source"], one.metadata["retrieval_score"])
            for one in self.retriever.invoke(query, filter=kept)
        ]


TestLangChainMachine = LangChainMachine.TestCase
TestLangChainMachine.settings = SETTINGS
