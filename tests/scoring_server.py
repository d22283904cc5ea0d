"""A real scoring server on the loopback device: right answers, and every wrong one.

It speaks the five protocols by the path it is asked on, sorts results by score as real servers
do, and does what a script of behaviours says, one behaviour a request, before it answers right.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from rerank_plugins.testing import OverlapScorer

Logit: TypeAlias = Callable[[str, str], float]


def overlap(query: str, passage: str) -> float:
    """The fake scorer's logit, as near as single precision has it: what servers compute in."""
    logit = OverlapScorer()._logit(query, passage)
    return struct.unpack("f", struct.pack("f", logit))[0]


def probability(logit: float) -> float:
    """Sigmoid; the logits here are far from its ends."""
    return 1.0 / (1.0 + 2.718281828459045**-logit)


@dataclass
class Asked:
    """A request as it came.

    Attributes:
        path: Its path.
        headers: Its headers; names in lower case.
        body: Its JSON.
        size: Bytes of the body.
    """

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    size: int

    @property
    def passages(self) -> list[str]:
        """What is to be scored."""
        return self.body["texts" if "texts" in self.body else "documents"]


Behaviour: TypeAlias = Callable[["Handler", Asked], None]


@dataclass
class Server:
    """The server's script, and what it saw.

    Attributes:
        url: Its address.
        logit: What a right answer scores.
        script: Behaviours of the next requests, first to last.
        always: What it does once the script is over; None for right answers.
        asked: Requests, oldest first.
        connections: How many were opened.
        running: Requests that are being answered now.
        most: The most that ever were at a time.
        stopping: Set when the server ends, so that no behaviour outlives it.
    """

    url: str = ""
    logit: Logit = overlap
    script: list[Behaviour] = field(default_factory=list)
    always: Behaviour | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    running: int = 0
    most: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Behaviour:
        """The behaviour that is next."""
        with self.guard:
            if self.script:
                return self.script.pop(0)
        return right if self.always is None else self.always


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_state: Server

    def setup(self) -> None:
        """Counts the connection."""
        super().setup()
        with self.server_state.guard:
            self.server_state.connections += 1

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        """Reads the request, and behaves."""
        state = self.server_state
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, headers, json.loads(content), len(content))
        with state.guard:
            state.asked.append(asked)
            state.running += 1
            state.most = max(state.most, state.running)
        try:
            state.take()(self, asked)
        except OSError:
            self.close_connection = True  # the client has had enough
        finally:
            with state.guard:
                state.running -= 1

    def send(self, body: bytes, *, status: int = 200, **headers: str) -> None:
        """A whole answer; an underscore in a header's name stands for a hyphen."""
        self.head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Status line and headers."""
        self.send_response(status)
        for name, value in {"Content_Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.flush()

    def reset(self) -> None:
        """Ends the connection with RST in place of a proper end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


def results(state: Server, asked: Asked) -> list[dict[str, Any]]:
    """What a right server answers, best first."""
    raw = asked.body.get("raw_scores", False) or asked.body.get("use_activation") is False
    logits = [state.logit(asked.body["query"], passage) for passage in asked.passages]
    name = "score" if "texts" in asked.body else "relevance_score"
    scored = [
        {"index": index, name: logit if raw else probability(logit)}
        for index, logit in enumerate(logits)
    ]
    return sorted(scored, key=lambda result: -result[name])


def answer(asked: Asked, found: Any) -> bytes:
    """The results in the form of the protocol that was asked."""
    whole = found if "texts" in asked.body else {"id": "1", "results": found, "usage": {}}
    return json.dumps(whole).encode()


def right(handler: Handler, asked: Asked) -> None:
    """The right answer."""
    handler.send(answer(asked, results(handler.server_state, asked)))


def refusing(status: int, body: bytes = b'{"error": "no"}', **headers: str) -> Behaviour:
    """A status other than 200."""
    return lambda handler, asked: handler.send(body, status=status, **headers)


def saying(body: bytes, **headers: str) -> Behaviour:
    """These bytes, with status 200."""
    return lambda handler, asked: handler.send(body, **headers)


def changing(change: Callable[[list[dict[str, Any]]], Any]) -> Behaviour:
    """The right results, changed."""

    def behave(handler: Handler, asked: Asked) -> None:
        handler.send(answer(asked, change(results(handler.server_state, asked))))

    return behave


class _QuietServer(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnects is not worth reporting."""


@contextmanager
def scoring_server(**state: Any) -> Iterator[Server]:
    """A server that runs while the block does."""
    told = Server(**state)
    handler = type("Handler", (Handler,), {"server_state": told})
    server = _QuietServer(("127.0.0.1", 0), handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        told.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def unused_url() -> str:
    """An address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
