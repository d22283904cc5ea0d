"""Odd inputs, one row each, through a real tokenizer and model: what goes in, what comes out."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import (
    BM25Retriever,
    CrossEncoderCompressor,
    FaissVectorStore,
    HybridRetriever,
    RerankingRetriever,
)
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.testing import OverlapScorer


@dataclass
class Row:
    """One line of the table.

    Attributes:
        texts: Of the documents.
        query: What is asked.
        kept: How many documents come back when all are reranked.
        metadata: Of every document.
    """

    texts: list[str]
    query: str = "When does the museum open?"
    kept: int = 2
    metadata: dict[str, Any] = field(default_factory=dict)


OPENS = "The museum opens at nine."

TABLE = {
    "no documents": Row([], kept=0),
    "an empty document": Row(["", OPENS]),
    "two empty documents": Row(["", "", OPENS], kept=3),
    "white space": Row([" \t\n\u00a0\u2003", OPENS]),
    "a passage of 1 MB": Row(["museum " * 150_000, OPENS]),
    "a word of 1 MB": Row(["x" * 1_000_000, OPENS]),
    "lone surrogates": Row(["\ud800 museum \udfff", OPENS], query="museum \ud83d"),
    "NUL": Row(["The\x00museum", OPENS], query="museum\x00open"),
    "bidi controls": Row(["\u202emuseum\u202c \u2066open\u2069 \u200f", OPENS]),
    "vowelled Arabic": Row(
        ["يَفْتَحُ المُتْحَفُ أَبْوَابَهُ فِي التَّاسِعَةِ.", "يُزرع الزيتون."], query="مَتَى يُفْتَحُ المُتْحَفُ؟"
    ),
    "emoji": Row(["🏛️ 9️⃣ 👩🏽‍🎨👨‍👩‍👧‍👦", OPENS], query="🏛️ ⏰?"),
    "mixed scripts": Row(
        ["The متحف opens o 9 żółć été 博物館", OPENS], query="متى opens le muzeum?"
    ),
    "combining marks without end": Row(["a" + "\u0301" * 5000, OPENS]),
    "a query longer than the model": Row(["museum", OPENS], query="museum open " * 3000),
    "a query of one sign": Row(["museum", OPENS], query="?"),
    "metadata of None": Row(
        ["museum", OPENS],
        metadata={"a": None, "retrieval_score": None, "retrieval_rank": None, "title": None},
    ),
    "numpy scalars in the scores": Row(
        ["museum", OPENS],
        metadata={"retrieval_score": np.float32(0.5), "retrieval_rank": np.int64(3)},
    ),
    "a metadata score of NaN": Row(["museum", OPENS], metadata={"retrieval_score": math.nan}),
    "10,000 candidates": Row([f"museum {number}" for number in range(10_000)], kept=10_000),
}


class Lengths(Embeddings):
    """Takes any text, well-formed or not."""

    def embed_documents(self, texts):
        """Two numbers a text."""
        return [[1.0, float(len(text))] for text in texts]

    def embed_query(self, text):
        """The same two."""
        return self.embed_documents([text])[0]


def _documents(row):
    return [
        Document(id="same", page_content=text, metadata=dict(row.metadata)) for text in row.texts
    ]


def _assert_whole(found, row):
    """Scored, native, ready for JSON, and of the input."""
    texts = set(row.texts)
    for rank, document in enumerate(found, start=1):
        assert document.id == "same"
        assert document.page_content in texts
        assert type(document.metadata["relevance_score"]) is float
        assert 0.0 <= document.metadata["relevance_score"] <= 1.0
        assert document.metadata["rerank_rank"] == rank
        assert type(document.metadata.get("retrieval_score", 0.0)) in {float, type(None)}
        assert type(document.metadata["retrieval_rank"]) is int
        assert json.loads(json.dumps(document.metadata)) or row.metadata
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)


@pytest.fixture(scope="module")
def compressor(tiny_checkpoints):
    """A real tokenizer and a tiny model; 10,000 candidates go to the fake."""
    return CrossEncoderCompressor(model=tiny_checkpoints["bge"], metadata_fields=("title",))


@pytest.mark.parametrize("name", TABLE)
async def test_compressor(compressor, name):
    """Each input has an answer, the same in the event loop, and is not changed."""
    row = TABLE[name]
    used = compressor
    if len(row.texts) > 1000:
        used = CrossEncoderCompressor(reranker=Reranker(OverlapScorer()))
    documents = _documents(row)
    before = repr(documents)
    found = used.compress_documents(documents, row.query)
    assert len(found) == row.kept
    _assert_whole(found, row)
    assert repr(await used.acompress_documents(documents, row.query)) == repr(found)
    assert repr(documents) == before


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["bm25", "faiss", "hybrid"])
def test_retrievers(name, kind):
    """First stages take the same inputs, and what they find can be reranked."""
    row = TABLE[name]
    embedding = Lengths()
    documents = _documents(row)
    if kind == "bm25":
        first_stage = BM25Retriever.from_documents(documents)
    elif kind == "hybrid":
        first_stage = HybridRetriever.from_documents(documents, embedding)
    else:
        store = FaissVectorStore(embedding)
        store.add_documents(documents, ids=[None for _ in documents])
        first_stage = store.as_retriever()
    retriever = RerankingRetriever(
        first_stage=first_stage, reranker=Reranker(OverlapScorer()), k=20
    )
    found = retriever.invoke(row.query)
    assert len(found) <= 20
    assert {one.page_content for one in found} <= set(row.texts)
    assert all(type(one.metadata["relevance_score"]) is float for one in found)


@pytest.mark.parametrize("query", ["", "  \n\u2003", None, 3, b"museum", ["museum"]])
async def test_queries_that_are_no_question_are_errors(compressor, query):
    """Blank, or no text."""
    with pytest.raises(InvalidInputError, match="query must"):
        compressor.compress_documents([Document(page_content=OPENS)], query)
    with pytest.raises(InvalidInputError, match="query must"):
        await compressor.acompress_documents([Document(page_content=OPENS)], query)


def test_numpy_scalars_of_the_user_stay_what_they_are():
    """Metadata that is not ours is kept, not converted."""
    value = np.float32(1.5)
    (found,) = CrossEncoderCompressor(reranker=Reranker(OverlapScorer())).compress_documents(
        [Document(page_content=OPENS, metadata={"price": value})], "museum"
    )
    assert found.metadata["price"] is value


async def test_ten_thousand_documents_do_not_hold_up_the_loop():
    """Reading and copying them is not done in the event loop either."""
    documents = [Document(page_content=f"museum {number}") for number in range(10_000)]
    compressor = CrossEncoderCompressor(reranker=Reranker(OverlapScorer()))
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(count_turns())
    await compressor.acompress_documents(documents, "museum")
    beside.cancel()
    assert turns > 10


def test_a_real_model_gives_the_rerankers_own_scores(compressor):
    """The adapter adds nothing to the scores and takes nothing away."""
    texts = [OPENS, "Bread keeps in a cloth.", "يفتح المتحف في التاسعة."]
    found = compressor.compress_documents(
        [Document(page_content=text) for text in texts], "When does the museum open?"
    )
    ranking = compressor.reranker.rerank("When does the museum open?", texts)
    assert [one.page_content for one in found] == ranking.texts
    assert [one.metadata["relevance_score"] for one in found] == ranking.scores
