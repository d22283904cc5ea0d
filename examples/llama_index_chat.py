"""A chat over French passages, with citations and a filter: LlamaIndex' own chat engine.

Run it::

    pip install "rerank-plugins[llama-index]"
    python llama_index_chat.py

The LLM is LlamaIndex' `MockLLM`, which repeats its prompt, so that the example runs anywhere: put
your own in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from rerank_plugins.llama_index import BM25Retriever, CrossEncoderPostprocessor

NODES = [
    TextNode(
        text="La bibliothèque prête les livres pour quatre semaines, les films pour une semaine.",
        id_="prets",
        metadata={"source": "reglement.pdf", "public": "oui"},
    ),
    TextNode(
        text="La bibliothèque a été fondée en 1874 par deux instituteurs.",
        id_="histoire",
        metadata={"source": "histoire.md", "public": "oui"},
    ),
    TextNode(
        text="Chaque jour de retard coûte vingt centimes par livre.",
        id_="retards",
        metadata={"source": "reglement.pdf", "public": "oui"},
    ),
    TextNode(
        text="Le personnel peut emprunter les livres de la bibliothèque pour six mois.",
        id_="personnel",
        metadata={"source": "interne.docx", "public": "non"},
    ),
]
PUBLIC = MetadataFilters(filters=[MetadataFilter(key="public", value="oui")])


@dataclass(frozen=True)
class Answer:
    """What the engine said, and from which passages.

    Attributes:
        text: The LLM's words.
        citations: (node id, source, score) of the passages it was given, best first.
    """

    text: str
    citations: list[tuple[str, str, float]]


def make_chat(llm: LLM | None = None, filters: MetadataFilters = PUBLIC) -> ContextChatEngine:
    """A chat engine that answers from the passages that pass the filters."""
    return ContextChatEngine.from_defaults(
        retriever=BM25Retriever(NODES, similarity_top_k=10, language="fr", filters=filters),
        node_postprocessors=[CrossEncoderPostprocessor(top_n=2)],
        memory=ChatMemoryBuffer.from_defaults(token_limit=2000),
        llm=MockLLM() if llm is None else llm,
        system_prompt="Réponds d'après les passages et cite leur source.",
    )


def ask(chat: ContextChatEngine, question: str) -> Answer:
    """One turn of the chat."""
    response = chat.chat(question)
    citations = [
        (node.node_id, node.metadata["source"], round(float(node.score or 0), 3))
        for node in response.source_nodes
    ]
    return Answer(response.response, citations)


def main() -> None:
    """Two turns."""
    chat = make_chat()
    for question in (
        "Combien de temps puis-je garder un livre de la bibliothèque ?",
        "Combien coûte un jour de retard ?",
    ):
        answer = ask(chat, question)
        print(question)
        for node_id, source, score in answer.citations:
            print(f"  {node_id} ({source}) {score}")


if __name__ == "__main__":
    main()
