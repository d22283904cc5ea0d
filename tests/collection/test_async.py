"""Coroutines of a collection: an encoder's own are awaited, once per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection, Record
from rerank_plugins.collection.filters import Compare
from rerank_plugins.collection.hybrids import Fused
from rerank_plugins.collection.stages import asked_once, embedded
from rerank_plugins.first_stage import BM25, Dense, Hybrid

TEXTS = ["a museum by the sea", "a bus to the river", "the river and the sea"]
RECORDS = [Record(str(at), text, {"at": at}) for at, text in enumerate(TEXTS)]


class Encoder:
    """Counts words; its blocking methods may be forbidden."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.blocking = True

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text."""
        assert self.blocking
        return [[1.0 + text.count(word) for word in ("sea", "river", "bus")] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """One vector."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As its twin, whether that may be called or not."""
        self.asked += texts
        self.blocking, before = True, self.blocking
        vectors = self.embed_documents(texts)
        self.blocking = before
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """As its twin."""
        return (await self.aembed_documents([text]))[0]


@pytest.fixture
def encoder() -> Encoder:
    """One that has not been asked."""
    return Encoder()


async def test_passages_and_queries_are_embedded_by_the_coroutine(encoder: Encoder) -> None:
    """Once each, and never by the blocking method."""
    encoder.blocking = False
    collection = Collection([BM25((), language="en"), Dense(embed=encoder)])
    await collection.aadd(RECORDS)
    assert encoder.asked == TEXTS
    encoder.asked.clear()
    found = await collection.view.asearch("river sea", 2, stage=1)
    assert [record.id for record, _ in found] == ["2", "0"]
    assert encoder.asked == ["river sea"]
    fused = await collection.view.afused(Hybrid, "bus river", 3, None, stages=(0, 1))
    assert fused[0][0].id == "1"
    assert encoder.asked == ["river sea", "bus river"]


@pytest.mark.parametrize("stage", [0, 1])
async def test_an_asynchronous_search_is_the_search(encoder: Encoder, stage: int) -> None:
    """Query, number and filters count in both stages, as in `search`."""
    collection = Collection([BM25((), language="en"), Dense(embed=encoder)])
    collection.add(RECORDS)
    view = collection.view
    for filters in ((), (Compare("at", "gte", 1),), (Compare("at", "lt", 2), None)):
        for query, k in (("river", 1), ("the sea", 3)):
            assert await view.asearch(query, k, *filters, stage=stage) == view.search(
                query, k, *filters, stage=stage
            )


async def test_only_dense_stages_embed(encoder: Encoder) -> None:
    """Another stage leaves records and view as they are; records with vectors need no encoder."""
    words = BM25(TEXTS, language="en")
    assert await embedded(words, RECORDS) is RECORDS
    assert await asked_once(words, "bus") is words.view
    ready = [Record("0", "a", {}, vector=np.ones(3))]
    assert await embedded(Dense(embed=encoder), ready) is ready
    assert encoder.asked == []


async def test_a_fusion_asks_all_its_retrievers_by_number() -> None:
    """And fuses what they found for the query, as the first of them gave it."""
    fused: list[tuple[Sequence[Any], str, int]] = []

    class Both(Fused):
        """Notes what it is to fuse."""

        def _fused(self, found: Sequence[Any], query: str, k: int) -> list[tuple[Any, Candidate]]:
            fused.append((found, query, k))
            return []

    async def ask(number: int, stage: str) -> str:
        return f"{stage} {number}"

    assert await Both()._asearch(["words", "vectors"], "sea", 3, ask) == []
    assert fused == [(["words 1", "vectors 2"], "sea", 3)]
    assert Both()._search(["words", "vectors"], "sea", 2, lambda *asked: asked) == []
    assert fused[1] == ([(1, "words"), (2, "vectors")], "sea", 2)


def test_a_fusion_gives_each_passage_as_the_first_retriever_gave_it() -> None:
    """Best first, `k` at most; each retriever's scores and ranks count."""

    class Both(Fused):
        """By ranks, the second list counting twice."""

        def _hybrid(self, stages: Any) -> Hybrid:
            return Hybrid(list(stages), fusion="ranks", weights=[1.0, 2.0])

    lists = [{"a": ("a1", 3.0), "b": ("b1", 2.0)}, {"b": ("b2", 9.0), "c": ("c2", 1.0)}]
    found = Both()._fused_lists(lists, "sea", 2)
    assert [one for one, _ in found] == ["b1", "c2"]
    both, last = (one.score for _, one in found)
    assert both is not None
    assert last is not None
    assert both / last == pytest.approx((1 / 62 + 2 / 61) / (2 / 62))
