"""What a scoring server can do wrong, done for real on the loopback device.

Each fault must come out as the library's own error, leave the scorer usable, and never turn
into a wrong score; with ``on_error="first_stage"`` every query is answered.

Each fault is tried ``RERANK_FAULT_TRIES`` times, 2 unless the environment says more.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from functools import cache
from typing import Any, NamedTuple

import pytest
import tenacity
from scoring_server import (
    Asked,
    Behaviour,
    Handler,
    Server,
    answer,
    changing,
    overlap,
    refusing,
    results,
    right,
    saying,
    scoring_server,
    unused_url,
)

from rerank_plugins import RemoteScorer, Reranker
from rerank_plugins.candidates import Ranking
from rerank_plugins.errors import (
    RemoteConnectionError,
    RemoteError,
    RemoteResponseError,
    RemoteStatusError,
    RemoteTimeoutError,
)
from rerank_plugins.scoring.remote import client as client_module

TRIES = int(os.environ.get("RERANK_FAULT_TRIES", "2"))
RETRIES = 2
QUERY = "when does the museum open"
PASSAGES = ["nothing of it", "the museum", "opens", "the museum opens at nine", "يفتح المتحف"]
BEST_FIRST = sorted(PASSAGES, key=lambda passage: -overlap(QUERY, passage))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that does what its script says."""
    with scoring_server() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are shortened; that they grow at random is tested by itself."""
    short = tenacity.wait_random_exponential(multiplier=0.001, max=0.01)
    monkeypatch.setattr(client_module, "_BACKOFF", short)
    monkeypatch.setattr(client_module, "_SPREAD", tenacity.wait_none())


# Behaviours of a server.


def reset_at_once(handler: Handler, asked: Asked) -> None:
    """RST in place of an answer."""
    handler.reset()


def reset_mid_body(handler: Handler, asked: Asked) -> None:
    """RST after half of a right answer."""
    body = answer(asked, results(handler.server_state, asked))
    handler.head(200, {"Content-Length": str(len(body))})
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.reset()


def cut_short(handler: Handler, asked: Asked) -> None:
    """The connection ends properly, after half of what Content-Length promised."""
    body = answer(asked, results(handler.server_state, asked))
    handler.head(200, {"Content-Length": str(len(body))})
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def no_http(handler: Handler, asked: Asked) -> None:
    """Something that is not HTTP."""
    handler.wfile.write(b"\x00\x01\x02 hello\r\n\r\n")
    handler.close_connection = True


def hang(handler: Handler, asked: Asked) -> None:
    """No answer at all."""
    handler.server_state.stopping.wait()


def dripping(first: bytes) -> Behaviour:
    """A byte now and then, for ever, after this beginning: each read succeeds."""

    def behave(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(first)
        while not handler.server_state.stopping.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return behave


def endless(handler: Handler, asked: Asked) -> None:
    """Chunks without an end; the server notes how much it got rid of."""
    handler.head(200, {"Transfer-Encoding": "chunked"})
    state: Any = handler.server_state
    state.sent = 0
    while not handler.server_state.stopping.is_set():
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        state.sent += 0x10000


def ten_megabytes(handler: Handler, asked: Asked) -> None:
    """A right answer behind ten million blanks."""
    handler.send(b" " * 10_000_000 + answer(asked, results(handler.server_state, asked)))


@cache
def packed_blanks() -> bytes:
    """A hundred million blanks, packed."""
    return gzip.compress(b" " * 100_000_000, 1)


def gzip_bomb(handler: Handler, asked: Asked) -> None:
    """A hundred million blanks in a hundred kilobytes, unasked."""
    handler.send(packed_blanks(), Content_Encoding="gzip")


def with_score(value: str) -> Behaviour:
    """The right answer, with this text in place of the first score."""

    def behave(handler: Handler, asked: Asked) -> None:
        found = results(handler.server_state, asked)
        found[0]["score"] = "HERE"
        handler.send(answer(asked, found).replace(b'"HERE"', value.encode()))

    return behave


def with_index(value: Any) -> Behaviour:
    """The right answer, with this in place of the first index."""
    return changing(lambda found: [{**found[0], "index": value}, *found[1:]])


class Fault(NamedTuple):
    """A behaviour, what must come of it, and whether trying again makes sense."""

    behaviour: Behaviour
    error: type[RemoteError]
    message: str
    retried: bool = False


BROKEN = RemoteConnectionError
WRONG = RemoteResponseError
FAULTS: dict[str, Fault] = {
    "reset at once": Fault(reset_at_once, BROKEN, "connection broke", retried=True),
    "reset mid-body": Fault(reset_mid_body, BROKEN, "connection broke", retried=True),
    "cut short": Fault(cut_short, BROKEN, "connection broke", retried=True),
    "not HTTP": Fault(no_http, BROKEN, "connection broke", retried=True),
    "hanging": Fault(hang, RemoteTimeoutError, "within 0.5 s"),
    "slow drip of the body": Fault(
        dripping(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["),
        RemoteTimeoutError,
        "within 0.5 s",
    ),
    "slow drip of the headers": Fault(
        dripping(b"HTTP/1.1 200 OK\r\nX-Drip: "), RemoteTimeoutError, "within 0.5 s"
    ),
    "slow drip of an error": Fault(
        dripping(b"HTTP/1.1 500 No\r\nContent-Length: 900\r\n\r\n"),
        RemoteTimeoutError,
        "within 0.5 s",
    ),
    "429 storm": Fault(refusing(429), RemoteStatusError, "429", retried=True),
    "429, wait 0": Fault(refusing(429, Retry_After="0"), RemoteStatusError, "429", retried=True),
    "429, wait an hour": Fault(refusing(429, Retry_After="3600"), RemoteStatusError, "3600 s"),
    "503, wait until": Fault(
        refusing(503, Retry_After=formatdate(4e9, usegmt=True)),
        RemoteStatusError,
        "wait of",
    ),
    "429, wait for nonsense": Fault(
        refusing(429, Retry_After="nan"), RemoteStatusError, "429", retried=True
    ),
    "500": Fault(refusing(500), RemoteStatusError, "500", retried=True),
    "502": Fault(
        refusing(502, b"<html>", Content_Type="text/html"), RemoteStatusError, "502", True
    ),
    "503": Fault(refusing(503), RemoteStatusError, "503", retried=True),
    "400": Fault(refusing(400), RemoteStatusError, "400"),
    "401": Fault(refusing(401), RemoteStatusError, "API key"),
    "404": Fault(refusing(404, b"\xff\xfe"), RemoteStatusError, "404"),
    "413": Fault(refusing(413), RemoteStatusError, "max_texts"),
    "422": Fault(refusing(422), RemoteStatusError, '{"error": "no"}'),
    "424": Fault(refusing(424), RemoteStatusError, "424"),
    "204": Fault(refusing(204, b""), RemoteStatusError, "204"),
    "307": Fault(refusing(307, Location="http://example.org/"), RemoteStatusError, "redirect"),
    "308": Fault(refusing(308, Location="/elsewhere"), RemoteStatusError, "redirect"),
    "ten megabytes": Fault(ten_megabytes, WRONG, "at most"),
    "endless": Fault(endless, WRONG, "at most"),
    "gzip bomb": Fault(gzip_bomb, WRONG, "compressed"),
    "HTML": Fault(saying(b"<html>", Content_Type="text/html"), WRONG, "application/json"),
    "no content type": Fault(saying(b"[]", Content_Type=""), WRONG, "application/json"),
    "nothing": Fault(saying(b""), WRONG, "JSON"),
    "half of JSON": Fault(saying(b'[{"index": 0, "sc'), WRONG, "JSON"),
    "not UTF-8": Fault(saying(b'[{"index": 0, "score": "\xff\xfe"}]'), WRONG, "UTF-8"),
    "UTF-16": Fault(saying("[]".encode("utf-16")), WRONG, "UTF-8"),
    "deep JSON": Fault(saying(b"[" * 200_000), WRONG, "JSON"),
    "number of 10,000 digits": Fault(with_score("9" * 10_000), WRONG, "JSON"),
    "an object": Fault(saying(b'{"error": "overloaded"}'), WRONG, "must be a list"),
    "another protocol": Fault(saying(b'{"results": []}'), WRONG, "protocol"),
    "null": Fault(saying(b"null"), WRONG, "must be"),
    "results that are not results": Fault(saying(b"[1, 2, 3, 4, 5]"), WRONG, "object"),
    "no results": Fault(changing(lambda found: []), WRONG, "gave 0 for 5"),
    "one too few": Fault(changing(lambda found: found[1:]), WRONG, "gave 4 for 5"),
    "one too many": Fault(changing(lambda found: [*found, found[0]]), WRONG, "gave 6 for 5"),
    "repeated index": Fault(
        changing(lambda found: [{**found[0], "index": found[1]["index"]}, *found[1:]]),
        WRONG,
        "twice",
    ),
    "missing index": Fault(
        changing(lambda found: [{"score": found[0]["score"]}, *found[1:]]), WRONG, "None"
    ),
    "index out of range": Fault(with_index(5), WRONG, "0 to 4"),
    "negative index": Fault(with_index(-1), WRONG, "0 to 4"),
    "index as text": Fault(with_index("0"), WRONG, "whole number"),
    "index as bool": Fault(with_index(value=True), WRONG, "whole number"),
    "index as float": Fault(with_index(0.0), WRONG, "whole number"),
    "missing score": Fault(
        changing(lambda found: [{"index": found[0]["index"]}, *found[1:]]), WRONG, "finite"
    ),
    "NaN": Fault(with_score("NaN"), WRONG, "finite"),
    "Infinity": Fault(with_score("-Infinity"), WRONG, "finite"),
    "1e999": Fault(with_score("1e999"), WRONG, "finite"),
    "an integer beyond floats": Fault(with_score("9" * 400), WRONG, "finite"),
    "score as text": Fault(with_score('"0.5"'), WRONG, "finite"),
    "score as bool": Fault(with_score("true"), WRONG, "finite"),
    "score as null": Fault(with_score("null"), WRONG, "finite"),
}


def reranker_of(url: str, error: type[RemoteError] = WRONG, **options: Any) -> Reranker:
    """One request at a time, so that a request that is never given up would show."""
    timeout = 0.5 if error is RemoteTimeoutError else 30.0
    scorer = RemoteScorer(url, timeout=timeout, retries=RETRIES, concurrency=1)
    return Reranker(scorer, **options)


def is_right(ranking: Ranking) -> bool:
    """The order and the logits that the server meant."""
    return (
        ranking.scale == "probability"
        and ranking.texts == BEST_FIRST
        and [item.logit for item in ranking] == [overlap(QUERY, text) for text in BEST_FIRST]
    )


def is_first_stage(ranking: Ranking) -> bool:
    """The order that came in, and said to be so."""
    return (
        ranking.scale == "first_stage"
        and ranking.texts == PASSAGES
        and ranking.error is not None
        and ranking.error.startswith("Remote")
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_named_error_and_the_scorer_goes_on(name: str, server: Server) -> None:
    """The right error, tried again only where that makes sense; a later good answer counts."""
    fault = FAULTS[name]
    reranker = reranker_of(server.url, fault.error)
    for _ in range(TRIES):
        server.always = fault.behaviour
        server.asked.clear()
        with pytest.raises(fault.error) as caught:
            reranker.rerank(QUERY, PASSAGES)
        assert type(caught.value) is fault.error
        assert fault.message in str(caught.value)
        assert len(str(caught.value)) < 700
        if fault.error is not RemoteTimeoutError:  # time may be over before the request is there
            assert len(server.asked) == (1 + RETRIES if fault.retried else 1)
        server.always = None
        assert is_right(reranker_again(reranker))


def reranker_again(reranker: Reranker) -> Ranking:
    """One more query; a busy machine may need more than one of the short timeouts."""
    for _ in range(20):
        with suppress(RemoteTimeoutError):
            return reranker.rerank(QUERY, PASSAGES)
    return reranker.rerank(QUERY, PASSAGES)


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_stage_stands_in_for_a_failing_server(name: str, server: Server) -> None:
    """Every query is answered, in the order that came in, with the reason."""
    fault = FAULTS[name]
    server.always = fault.behaviour
    reranker = reranker_of(server.url, fault.error, on_error="first_stage")
    for _ in range(TRIES):
        assert is_first_stage(reranker.rerank(QUERY, PASSAGES))


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.retried])
def test_a_fault_that_passes_is_not_noticed(name: str, server: Server) -> None:
    """As many failures as there are retries, then a good answer: the scores are right."""
    reranker = reranker_of(server.url)
    for _ in range(TRIES):
        server.script = [FAULTS[name].behaviour] * RETRIES
        assert is_right(reranker.rerank(QUERY, PASSAGES))
        assert server.script == []


def test_a_server_that_refuses_connections() -> None:
    """Nobody listens: an error by name, or the first stage's order."""
    for _ in range(TRIES):
        with pytest.raises(RemoteConnectionError, match="cannot be reached"):
            reranker_of(unused_url()).rerank(QUERY, PASSAGES)
        fallback = reranker_of(unused_url(), on_error="first_stage")
        assert is_first_stage(fallback.rerank(QUERY, PASSAGES))


def test_a_host_that_does_not_exist() -> None:
    """The name is looked up in vain."""
    with pytest.raises(RemoteConnectionError, match="cannot be reached"):
        reranker_of("http://no-such-host.invalid").rerank(QUERY, PASSAGES)


def test_tls_where_there_is_none(server: Server) -> None:
    """The handshake fails."""
    with pytest.raises(RemoteConnectionError):
        reranker_of(server.url.replace("http:", "https:")).rerank(QUERY, PASSAGES)


def test_a_redirect_is_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the passages nor the key go to an address that the user did not give."""
    monkeypatch.setenv("MY_KEY", "5ecret")
    with scoring_server() as thief:
        for status in (301, 302, 303, 307, 308):
            server.always = refusing(status, Location=f"{thief.url}/rerank?was=5ecret")
            scorer = RemoteScorer(server.url, api_key_env="MY_KEY")
            with pytest.raises(RemoteStatusError, match="redirect") as caught:
                Reranker(scorer).rerank(QUERY, PASSAGES)
            assert "5ecret" not in str(caught.value)
        assert thief.asked == []
        assert thief.connections == 0


def test_an_endless_answer_is_left_early(server: Server) -> None:
    """Not much more than the limit is read, so that memory stays bounded."""
    server.script = [endless]
    with pytest.raises(RemoteResponseError):
        reranker_of(server.url).rerank(QUERY, PASSAGES)
    assert server.sent < 40_000_000  # what sockets' buffers take in comes on top


def test_waits_grow_at_random_or_are_what_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter up to 8 seconds; Retry-After in seconds or as a date, plus a random part."""
    monkeypatch.undo()

    def wait(attempt: int, header: str | None = None) -> float:
        state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        asked = client_module._retry_after(header)
        failure = client_module._MayPass(RemoteError("no"), asked)
        state.set_exception((type(failure), failure, None))
        return client_module._wait(state)

    first, fourth, tenth = ([wait(attempt) for _ in range(200)] for attempt in (1, 4, 10))
    assert max(first) <= 0.5
    assert max(fourth) <= 4
    assert max(tenth) <= 8
    assert len(set(tenth)) > 100
    assert max(tenth) > 4 > min(tenth)
    assert 7 <= wait(1, "7") <= 7.5
    assert 0 <= wait(1, "-5") <= 0.5
    assert 80 < wait(1, formatdate(client_module.time.time() + 100, usegmt=True)) < 101
    assert wait(1, "soon") <= 0.5


def test_retry_after_is_waited_for(server: Server) -> None:
    """The next try comes no earlier than the server said."""
    times: list[float] = []

    def noting(behaviour: Behaviour) -> Behaviour:
        def behave(handler: Handler, asked: Asked) -> None:
            times.append(client_module.time.monotonic())
            behaviour(handler, asked)

        return behave

    server.script = [noting(refusing(429, Retry_After="1")), noting(right)]
    assert is_right(reranker_of(server.url).rerank(QUERY, PASSAGES))
    assert times[1] - times[0] >= 0.99


def test_one_wrong_part_spoils_the_list_and_not_the_others(server: Server) -> None:
    """Of four requests for one list the third is wrong: an error, and no half of a ranking."""
    passages = [f"{PASSAGES[3]} {'x ' * n}" for n in range(100)]
    for position in range(4):
        server.script = [right] * position + [changing(lambda found: found[1:])]
        with pytest.raises(RemoteResponseError):
            reranker_of(server.url).rerank(QUERY, passages)
        server.script = []


def test_chaos_loses_no_query_and_gives_no_wrong_score(server: Server) -> None:
    """Threads ask while each answer is right or one of the quick faults, at random."""
    quick: list[Behaviour] = [
        fault.behaviour
        for name, fault in FAULTS.items()
        if fault.error is not RemoteTimeoutError
        and name not in ("endless", "ten megabytes", "gzip bomb", "deep JSON")
    ]
    chance = random.Random(6)

    def behave(handler: Handler, asked: Asked) -> None:
        with server.guard:
            chosen = right if chance.random() < 0.6 else chance.choice(quick)
        chosen(handler, asked)

    server.always = behave
    scorer = RemoteScorer(server.url, retries=RETRIES, concurrency=4)
    reranker = Reranker(scorer, on_error="first_stage")

    def one(_: int) -> str:
        ranking = reranker.rerank(QUERY, PASSAGES)
        if is_right(ranking):
            return "right"
        return "first stage" if is_first_stage(ranking) else "wrong"

    queries = 100 * TRIES
    with ThreadPoolExecutor(16) as pool:
        counts = Counter(pool.map(one, range(queries)))
    assert counts["wrong"] == 0
    assert counts["right"] + counts["first stage"] == queries
    assert counts["right"] > queries / 3
    assert counts["first stage"] > 0


def test_the_faults_are_faults(server: Server) -> None:
    """Without a fault the same query is answered right: the tests above could fail."""
    assert is_right(reranker_of(server.url).rerank(QUERY, PASSAGES))
    assert BEST_FIRST != PASSAGES
    assert json.dumps(server.asked[0].body)
