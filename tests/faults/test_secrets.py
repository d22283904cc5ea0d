"""A server that repeats the API key everywhere: nothing that leaves the client has it."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import RemoteError
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.remote import RemoteScorer

KEY = "s3cr3t/k+y'1\\x"
JSON = b"Content-Type: application/json\r\n"


def answer(status: str, headers: bytes, body: bytes) -> bytes:
    """A whole response."""
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + length + b"\r\n" + body


def echoes(key: bytes) -> dict[str, bytes]:
    """Answers that have the key in places where one may turn up."""
    as_json = json.dumps(key.decode()).encode()
    escaped = b'"' + b"".join(b"\\u%04x" % byte for byte in key) + b'"'
    return {
        "a malformed header line": b"HTTP/1.1 200 OK\r\n" + key + b"\r\n\r\n",
        "a malformed status": b"HTTP/1.1 " + key + b"\r\n\r\n",
        "a header": answer("200 OK", JSON + b"X-Key: " + key + b"\r\n", b"[]"),
        "the reason": answer(f"500 {key.decode()}", JSON, b"{}"),
        "a refusal": answer("401 No", JSON, b'{"error": ' + as_json + b"}"),
        "a body that is not JSON": answer("200 OK", JSON, b"{" + key),
        "a body of another form": answer("200 OK", JSON, b'{"key": ' + as_json + b"}"),
        "a result": answer("200 OK", JSON, b'[{"index": ' + as_json + b', "score": 1}]'),
        "escapes": answer("200 OK", JSON, b'[{"index": ' + escaped + b', "score": 1}]'),
        "a score": answer("200 OK", JSON, b'[{"index": 0, "score": ' + as_json + b"}]"),
        "a content type": answer("200 OK", b"Content-Type: " + key + b"\r\n", b"[]"),
        "an encoding": answer("200 OK", JSON + b"Content-Encoding: " + key + b"\r\n", b"[]"),
        "a redirect": answer("302 Found", b"Location: http://h/?k=" + key + b"\r\n", b""),
        "half an answer": b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 900\r\n\r\n" + key,
        "nothing": b"",
    }


@contextmanager
def serving(response: bytes) -> Iterator[str]:
    """A server that gives everybody this response; its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(response)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def everything(error: BaseException) -> str:
    """The error, its chain, its attributes and the locals of its frames in this package."""
    told, seen = [], set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        told += [repr(one), str(one), repr(vars(one)), "".join(traceback.format_exception(one))]
        request = getattr(one, "request", None)
        told.append(repr(getattr(request, "headers", None)))
        left += [one.__cause__, one.__context__]
    return "\n".join(told)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """All that OpenTelemetry would export, texts and messages recorded too, as JSON."""
    pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry's SDK is absent")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    monkeypatch.setenv("RERANK_PLUGINS_TRACE_TEXTS", "1")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process may have one provider only, so not that one.
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield lambda: "\n".join(span.to_json() for span in exporter.get_finished_spans())
    provider.shutdown()


@pytest.mark.parametrize("level", [1, logging.DEBUG, logging.INFO, logging.WARNING])
@pytest.mark.parametrize("where", echoes(b"k"))
def test_a_key_that_a_server_repeats_comes_out_nowhere(
    where: str,
    level: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spans: Callable[[], str],
) -> None:
    """Errors with all their chain, rankings, spans, logs, pickles and descriptions."""
    monkeypatch.setenv("SECRET_KEY", KEY)
    caplog.set_level(1)
    for name in ("httpx", "httpcore"):
        caplog.set_level(level, logger=name)
    with serving(echoes(KEY.encode())[where]) as url:
        scorer = RemoteScorer(url, api_key_env="SECRET_KEY", retries=1, timeout=5)
        with pytest.raises(RemoteError) as caught:
            scorer.score([("q", "a")], ScoreOptions())
        reranker = Reranker(scorer, on_error="first_stage")
        ranking = reranker.rerank("q", ["a"])
    assert ranking.error
    assert caught.value.__cause__ is None
    told = [
        everything(caught.value),
        json.dumps(ranking.to_dict()),
        repr(ranking),
        repr(scorer),
        str(reranker.describe()),
        pickle.dumps(scorer).decode("latin-1"),
        *(
            record.getMessage() + str(record.args) + str(record.exc_info)
            for record in caplog.records
        ),
        caplog.text,
        spans(),
    ]
    assert "rerank_plugins.score" in spans()
    assert type(caught.value).__name__ in spans()
    heard = any(record.name.startswith("httpcore") for record in caplog.records)
    assert heard == (level <= logging.DEBUG)
    for text in told:
        for form in (KEY, repr(KEY)[1:-1], repr(repr(KEY))[2:-2], json.dumps(KEY)[1:-1]):
            assert form not in text
