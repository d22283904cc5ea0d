"""Spans for programs that use OpenTelemetry: what they say, and that they tell no texts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scorers import AnsweringScorer
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Reranker, _telemetry, load_reranker
from rerank_plugins.errors import InvalidInputError, NonFiniteScoreError
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.fusion import Hybrid
from rerank_plugins.testing import OverlapScorer

pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry's SDK is absent")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = "والدة الموظف رقم ٤٧"
QUERY = f"{SECRET}: {QUESTIONS['ar']}"


class Traced:
    """The spans of one test."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Those that have ended, in that order."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of one name, given without the prefix."""
        return [one for one in self.spans if one.name == f"rerank_plugins.{name}"]

    def facts(self, name: str) -> dict[str, Any]:
        """The attributes of the only span of a name, without the prefix."""
        (span,) = self.named(name)
        return {
            key.removeprefix("rerank_plugins."): value for key, value in span.attributes.items()
        }

    def everything(self) -> str:
        """All that leaves the process: names, attributes, events and states of every span."""
        return "\n".join(
            json.dumps(json.loads(one.to_json()), ensure_ascii=False) for one in self.spans
        )


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """A provider for this test alone; the process may have one provider only, so not that one."""
    monkeypatch.delenv(_telemetry.TEXTS, raising=False)
    found = Traced()
    monkeypatch.setattr(trace, "get_tracer", found.provider.get_tracer)
    yield found
    found.provider.shutdown()


def parents(traced: Traced) -> dict[str, str | None]:
    """Name of each span's parent, by name, without the prefix."""
    names = {
        span.context.span_id: span.name.removeprefix("rerank_plugins.") for span in traced.spans
    }
    return {
        names[span.context.span_id]: None if span.parent is None else names[span.parent.span_id]
        for span in traced.spans
    }


def test_a_search_and_a_rerank_are_spans_with_counts(
    traced: Traced, tiny_checkpoints: Mapping[str, Path]
) -> None:
    """Search, rerank, score, tokenize and forward, each inside the one that called it."""
    stage = BM25(ALL_PASSAGES, language="ar")
    found = stage.search(QUERY, 3)
    reranker = load_reranker(tiny_checkpoints["bge"], device="cpu", top_n=2, deduplicate=True)
    reranker.rerank_many([QUERY, "museum"], [found, ["a", "b", "b"]])
    assert parents(traced) == {
        "search": None,
        "rerank": None,
        "score": "rerank",
        "tokenize": "score",
        "forward": "score",
    }
    assert traced.facts("search") == {"engine": "BM25", "k": 3, "candidates": len(found)}
    pairs = len(found) + 2
    assert traced.facts("rerank") == {
        "model": reranker.model,
        "queries": 2,
        "candidates": pairs + 1,
        "scored": pairs,
        "truncated": 0,
        "failed": 0,
    }
    assert traced.facts("score") == {"model": reranker.model, "pairs": pairs}
    tokenize, forward = traced.facts("tokenize"), traced.facts("forward")
    assert tokenize["pairs"] == tokenize["rows"] == forward["rows"] == pairs
    assert tokenize["tokens"] == forward["tokens"] > pairs
    assert all(span.end_time >= span.start_time for span in traced.spans)


def test_the_stages_of_a_hybrid_are_inside_it(traced: Traced) -> None:
    """One span for the fusion, and one for each stage below it."""
    stage = Hybrid([BM25(ALL_PASSAGES), BM25(ALL_PASSAGES)])
    stage.search(QUERY, 2)
    engines = [span.attributes["rerank_plugins.engine"] for span in traced.named("search")]
    assert engines == ["BM25", "BM25", "Hybrid"]
    assert parents(traced)["search"] in {"search", None}
    outer = traced.named("search")[-1]
    assert all(span.parent.span_id == outer.context.span_id for span in traced.named("search")[:-1])


def test_no_text_is_told(traced: Traced) -> None:
    """Neither query nor passage is in any attribute, event or state."""
    found = BM25(ALL_PASSAGES).search(QUERY, 5)
    Reranker(OverlapScorer()).rerank(QUERY, found)
    told = traced.everything()
    assert len(traced.spans) == 3
    assert SECRET not in told
    assert QUESTIONS["ar"] not in told
    assert not [text for text in ALL_PASSAGES if text in told]


def test_texts_are_told_when_asked_for(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment's word, queries and the passages that came back."""
    monkeypatch.setenv(_telemetry.TEXTS, "1")
    found = BM25(ALL_PASSAGES).search(QUERY, 5)
    ranking = Reranker(OverlapScorer(), top_n=1).rerank(QUERY, found)
    assert traced.facts("search")["query"] == QUERY
    assert traced.facts("rerank")["query"] == (QUERY,)
    assert traced.facts("rerank")["passages"] == tuple(ranking.texts)


@pytest.mark.parametrize("asked", ["", "0", "false", "no"])
def test_another_word_of_the_environment_is_no(
    traced: Traced, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Only a clear yes lets texts out."""
    monkeypatch.setenv(_telemetry.TEXTS, asked)
    Reranker(OverlapScorer()).rerank(QUERY, ALL_PASSAGES)
    assert SECRET not in traced.everything()


def test_an_error_is_told_by_its_class_and_never_by_its_message(traced: Traced) -> None:
    """A message may quote the text that was given."""
    with pytest.raises(ValueError, match=SECRET):
        Reranker(OverlapScorer(error=ValueError(QUERY))).rerank(QUERY, ["a"])
    with pytest.raises(InvalidInputError):
        BM25(ALL_PASSAGES).search(QUERY, -1)
    for name, kind in (
        ("rerank", "ValueError"),
        ("score", "ValueError"),
        ("search", "InvalidInputError"),
    ):
        (span,) = traced.named(name)
        assert span.attributes["error.type"] == kind
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.events == ()
    assert SECRET not in traced.everything()


def test_an_error_that_the_first_stage_stands_in_for_is_counted(traced: Traced) -> None:
    """The call succeeds; the score span failed, and the rerank span counts it."""
    broken = Reranker(AnsweringScorer(np.array([np.nan])), on_error="first_stage")
    broken.rerank(QUERY, ["a"])
    (score,) = traced.named("score")
    assert score.attributes["error.type"] == NonFiniteScoreError.__name__
    assert traced.facts("rerank")["failed"] == 1
    assert traced.named("rerank")[0].status.status_code is trace.StatusCode.UNSET


async def test_arerank_stays_in_the_caller_s_trace(traced: Traced) -> None:
    """The thread that scores knows the span that its coroutine has, each its own."""
    reranker = Reranker(OverlapScorer())
    tracer = traced.provider.get_tracer("test")

    async def ask(number: int) -> int:
        with tracer.start_as_current_span(f"request {number}") as request:
            await reranker.arerank(f"museum {number}", ALL_PASSAGES[: number + 1])
            return request.get_span_context().span_id

    requests = await asyncio.gather(*(ask(number) for number in range(8)))
    by_parent = {span.parent.span_id: span for span in traced.named("rerank")}
    for number, request in enumerate(requests):
        assert by_parent[request].attributes["rerank_plugins.candidates"] == number + 1


def test_threads_keep_their_traces_apart(traced: Traced) -> None:
    """A thread without a context starts a trace; one with a context continues it."""
    reranker = Reranker(OverlapScorer())
    tracer = traced.provider.get_tracer("test")
    with ThreadPoolExecutor(8) as threads, tracer.start_as_current_span("request") as request:
        for _ in range(8):
            threads.submit(reranker.rerank, "museum", ["a"]).result()
            threads.submit(copy_context().run, reranker.rerank, "museum", ["a"]).result()
    found = traced.named("rerank")
    trace_id = request.get_span_context().trace_id
    assert sum(span.context.trace_id == trace_id for span in found) == 8
    assert len({span.context.trace_id for span in found}) == 9


def test_tokens_of_many_pairs_are_made_ahead_in_the_same_trace(
    traced: Traced, tiny_checkpoints: Mapping[str, Path]
) -> None:
    """The thread that encodes while the model works has the caller's context."""
    reranker = load_reranker(tiny_checkpoints["rstar"], device="cpu", max_length=16)
    reranker.rerank("museum", [f"room {number}" for number in range(1100)])
    tokenize = traced.named("tokenize")
    assert [span.attributes["rerank_plugins.pairs"] for span in tokenize] == [1024, 76]
    (score,) = traced.named("score")
    assert {span.parent.span_id for span in tokenize} == {score.context.span_id}


def test_a_framework_s_retriever_is_a_first_stage(traced: Traced) -> None:
    """RerankingRetriever of both frameworks, sync and async, over retrievers that they know."""
    core = pytest.importorskip("langchain_core.documents", reason="LangChain is absent")
    schema = pytest.importorskip("llama_index.core.schema", reason="LlamaIndex is absent")
    from rerank_plugins import langchain, llama_index

    reranker = Reranker(OverlapScorer())
    documents = [core.Document(text) for text in ALL_PASSAGES]
    nodes = [schema.TextNode(text=text) for text in ALL_PASSAGES]
    one = langchain.RerankingRetriever(
        first_stage=langchain.BM25Retriever.from_documents(documents), k=2, reranker=reranker
    )
    other = llama_index.RerankingRetriever(
        llama_index.BM25Retriever(nodes=nodes), similarity_top_k=2, reranker=reranker
    )
    for ask, ask_later in ((one.invoke, one.ainvoke), (other.retrieve, other.aretrieve)):
        for call in (ask, lambda query, later=ask_later: asyncio.run(later(query))):
            traced.exporter.clear()
            assert len(call(QUERY)) == 2
            facts = traced.facts("first_stage")
            assert facts["engine"] == "BM25Retriever"
            assert facts["candidates"] == traced.facts("rerank")["candidates"] >= 2
            assert parents(traced)["search"] == "first_stage"
            assert SECRET not in traced.everything()


def test_a_sampler_that_leaves_a_span_out_costs_no_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is not recorded is not counted either."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    monkeypatch.setattr(trace, "get_tracer", TracerProvider(sampler=ALWAYS_OFF).get_tracer)
    counted: list[str] = []
    call = _telemetry.traced("search", lambda result: counted.append(result) or {})(lambda: "done")
    assert call() == "done"
    assert counted == []


def test_without_opentelemetry_nothing_of_it_is_imported() -> None:
    """A program that does not trace pays one look into ``sys.modules``."""
    code = (
        "import sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from rerank_plugins import Reranker\n"
        "from rerank_plugins.first_stage.bm25 import BM25\n"
        "from rerank_plugins.testing import OverlapScorer\n"
        "print(Reranker(OverlapScorer()).rerank('museum', ['a bus', 'a museum']).keys)\n"
        "print([found.key for found in BM25(['a bus', 'a museum']).search('museum', 1)])\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["[1, 0]", "[1]", "[]"]
