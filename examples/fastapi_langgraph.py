"""A chatbot service over Arabic passages: FastAPI in front, a LangGraph graph behind.

Run it::

    pip install "rerank-plugins[langchain]" langgraph fastapi uvicorn
    uvicorn fastapi_langgraph:app
    curl -G localhost:8000/ask --data-urlencode "question=متى يفتح المتحف؟" -d team=public

The LLM is a stand-in that repeats the best passage, so that the example runs anywhere: put your
own chat model in place of `answer_from`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI, HTTPException
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, StateGraph

from rerank_plugins import load_reranker
from rerank_plugins.langchain import BM25Retriever, RerankingRetriever, format_context

PASSAGES = [
    ("hours", "public", "يفتح المتحف أبوابه من التاسعة صباحًا حتى الخامسة مساءً عدا يوم الاثنين."),
    ("history", "public", "وُضع حجر أساس المتحف سنة ١٩٠٢ وافتُتح بعد ثلاث سنوات."),
    ("tickets", "public", "سعر تذكرة المتحف عشرون درهمًا، والدخول مجاني للأطفال."),
    ("place", "public", "يقع المتحف في وسط المدينة قرب محطة القطار."),
    ("alarm", "staff", "يُغلق جهاز الإنذار في المتحف قبل أن يفتح الحارس الأبواب في الثامنة."),
]
PROMPT = "أجب من المقاطع وحدها واذكر رقم المقطع.\n\n{context}\n\nالسؤال: {question}"


class State(TypedDict, total=False):
    """What the graph's steps read and write."""

    question: str
    team: str
    documents: list[Document]
    answer: str


# One reranker for the whole service; a late or failing model leaves BM25's order.
reranker = load_reranker(deadline_ms=2000, on_error="first_stage")
first_stage = BM25Retriever.from_documents(
    [Document(text, id=id_, metadata={"team": team}) for id_, team, text in PASSAGES]
)
retriever = RerankingRetriever(first_stage=first_stage, reranker=reranker, k=2)


async def retrieve(state: State) -> State:
    """Finds and reranks what this user may see."""
    allowed = [state["team"], "public"]
    documents = await retriever.ainvoke(
        state["question"], filter=lambda document: document.metadata["team"] in allowed
    )
    return {"documents": documents}


def answer_from(documents: list[Document]) -> FakeListChatModel:
    """In place of a chat model: cites the first passage."""
    return FakeListChatModel(responses=[f"{documents[0].page_content} [1]"])


async def answer(state: State) -> State:
    """Asks the chat model, with the passages packed into a token budget."""
    if not state["documents"]:
        return {"answer": "لا أعرف."}
    context = format_context(max_tokens=500).invoke(state["documents"])
    prompt = PROMPT.format(context=context, question=state["question"])
    message = await answer_from(state["documents"]).ainvoke(prompt)
    return {"answer": str(message.content)}


def build_graph() -> Any:
    """Retrieve, then answer."""
    graph = StateGraph(State)
    graph.add_node("retrieve", retrieve)
    graph.add_node("respond", answer)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "respond")
    graph.add_edge("respond", END)
    return graph.compile()


graph = build_graph()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001  (FastAPI's form)
    """Loads the model before the first user comes."""
    reranker.warm_up()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(question: str, team: str = "public") -> dict[str, Any]:
    """The answer, and where it is from."""
    if not question.strip():
        raise HTTPException(422, "question must not be blank")
    state = await graph.ainvoke({"question": question, "team": team})
    return {
        "answer": state["answer"],
        "sources": [
            {"id": document.id, "score": round(document.metadata["relevance_score"], 3)}
            for document in state["documents"]
        ],
    }


@app.get("/health")
async def health() -> dict[str, Any]:
    """Which model answers, on what."""
    return reranker.describe()
