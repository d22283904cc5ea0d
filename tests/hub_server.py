"""A loopback server that speaks the part of the Hub's API that fetching a model uses.

``GET /api/models/{name}[/revision/{revision}]`` gives the commit and the files.
``HEAD`` and ``GET /{name}/resolve/{revision}/{file}`` give ``ETag`` and ``X-Repo-Commit``;
weights are, as on the Hub, redirected to another address, with ``X-Linked-Size`` and
``X-Linked-ETag``, which answers ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit


def _files(folder: Path) -> list[Path]:
    """What is published of a folder; what an engine keeps in a separate folder is not."""
    places = [folder, *folder.glob("[0-9]_*")]
    return sorted(file for place in places for file in place.iterdir() if file.is_file())


@dataclass(frozen=True)
class Fault:
    """What goes wrong, for every request whose ``METHOD /path`` the pattern is found in.

    ``status`` answers with that HTTP status and those headers. ``truncate`` stops every body
    at its half and closes the connection. ``stall`` accepts the request and never answers.
    """

    kind: Literal["status", "truncate", "stall"]
    pattern: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """The server's models, its faults, and the requests that it saw.

    Attributes:
        url: Where it listens, as ``HF_ENDPOINT`` takes it.
        requests: ``METHOD /path`` of every request, oldest first.
        fault: What goes wrong now; None when nothing does.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.fault: Fault | None = None
        self.commits: dict[tuple[str, str], Path] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.stopping = threading.Event()
        self.url = ""

    def publish(self, name: str, folder: Path, branch: str = "main") -> str:
        """Makes the folder's files the newest commit of a branch; gives the commit."""
        digest = hashlib.sha1(name.encode())
        for file in _files(folder):
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
        commit = digest.hexdigest()
        self.commits[name, commit] = folder
        self.branches[name, branch] = commit
        return commit

    def find(self, name: str, revision: str) -> tuple[str, Path] | None:
        """Commit and folder of a revision, if there is such a one."""
        commit = self.branches.get((name, revision), revision)
        folder = self.commits.get((name, commit))
        return None if folder is None else (commit, folder)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = self.hub.fault
        if fault is not None and re.search(fault.pattern, request):
            if fault.kind == "stall":
                self.hub.stopping.wait()
                self.close_connection = True
                return
            if fault.kind == "status":
                self._send(b"", fault.status, fault.headers)
                return
            self._route(path, truncate=True)
        else:
            self._route(path, truncate=False)

    def _route(self, path: str, *, truncate: bool) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._model(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3], truncate=truncate)
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._body(self.hub.commits[match[1], match[2]] / match[3], {}, truncate=truncate)
        else:
            self._send(b"", 404)

    def _model(self, name: str, revision: str) -> None:
        if not any(known == name for known, _ in self.hub.commits):
            # The Hub does not tell strangers whether a model is private or does not exist.
            self._send(b"", 401, {"X-Error-Code": "RepoNotFound"})
            return
        found = self.hub.find(name, revision)
        if found is None:
            self._send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
            return
        commit, folder = found
        files = [{"rfilename": file.relative_to(folder).as_posix()} for file in _files(folder)]
        files.append({"rfilename": "onnx/model.onnx"})
        answer = {"_id": "0", "id": name, "modelId": name, "sha": commit, "siblings": files}
        self._send(json.dumps(answer).encode(), 200, {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, *, truncate: bool) -> None:
        found = self.hub.find(name, revision)
        if found is None:
            self._send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
            return
        commit, folder = found
        if not (folder / file).is_file():
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = (folder / file).read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not file.endswith((".safetensors", ".bin")):
            self._body(folder / file, headers, truncate=truncate)
            return
        headers |= {
            # Another host, as on the Hub: the client follows redirects that stay on its host.
            "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}"
            f"/cdn/{name}/{commit}/{file}",
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        }
        self._send(b"", 302, headers)

    def _body(self, file: Path, headers: dict[str, str], *, truncate: bool) -> None:
        content = file.read_bytes()
        status, start = 200, 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(match[1])
            headers = headers | {
                "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"
            }
        stop = len(content) // 2 if truncate else len(content)
        self._send(content[start:], status, headers, stop=max(0, stop - start))

    def _send(
        self,
        body: bytes,
        status: int,
        headers: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:stop])
            if stop is not None and stop < len(body):
                self.close_connection = True


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
