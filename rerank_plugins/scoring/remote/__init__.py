"""RemoteScorer: pairs scored by a server, such as TEI, vLLM, infinity, Cohere's or Jina's."""

from __future__ import annotations

import asyncio
import math
import os
import re
import weakref
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from typing_extensions import TypedDict, Unpack

from rerank_plugins._names import check_options, own_options
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError, MissingDependencyError
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.long_texts import well_formed
from rerank_plugins.scoring.remote import loop
from rerank_plugins.scoring.remote.protocols import (
    KNOWN,
    PROTOCOLS,
    ProtocolName,
    Shard,
    read_scores,
    request_body,
    shards,
    to_logits,
)

if TYPE_CHECKING:
    from rerank_plugins.scoring.remote.client import Client

_VERSION = re.compile(r"/v\d+$")


class _NoOthers(TypedDict):
    """For type checkers: there are no other options. Names of other libraries have an error."""


class RemoteScorer:
    """Scores pairs by asking a server; needs ``pip install 'rerank-plugins[remote]'``.

    Goes wherever a scorer goes, and through a `Reranker` into both frameworks::

        reranker = Reranker(RemoteScorer("http://localhost:8080"), on_error="first_stage")
        CrossEncoderCompressor(reranker=reranker)

    Pairs are sent in requests of one query each, within ``max_texts`` and ``max_bytes``, and
    scores are placed by the index that the server gives. Connections are kept and shared by
    all threads. Refused and broken connections, status 429 and all of 5xx are tried again
    after a growing random time, or after as long as Retry-After asks. Redirects are not
    followed, and an answer that is not what the protocol promises is an error as a whole.

    `Reranker` works with logits. ``tei`` and ``infinity`` are asked for them; the others give
    probabilities, which become log(p / (1 - p)), kept within 36.7 of 0. A probability that
    the server rounded to single precision is exact to about 1e-7, so logits beyond 10 are
    coarse, and passages with logits beyond 16 tie.

    The server decides what is cut from long passages; ``truncated`` is False for all. TEI and
    vLLM are asked to cut rather than to refuse.

    A deadline (``Reranker(deadline_ms=)``) holds for its requests too: at that moment those
    still under way are given up, and their passages stand below as the first stage had them.

    The API key is read from the environment whenever a request leaves. It is kept nowhere
    else, and is in no log, description or error. `httpx` reads proxies from the environment.

    Args:
        url: Address of the server, such as ``http://localhost:8080``. The protocol's path is
            put after it; after a version (``/v1``) only ``/rerank``; after a whole endpoint
            (``/v1/rerank``) nothing.
        protocol: ``tei``, ``cohere`` (v2), ``jina``, ``vllm`` or ``infinity``; servers that
            copy Jina's form, as many do, take ``jina``.
        model: The model's name on the server; Cohere and Jina need it.
        raw_scores: Whether the server's scores are logits. True asks for them where the
            protocol has a way to ask, and takes what comes as logits. None is True for
            ``tei`` and ``infinity``, False for the others (vLLM before 0.11 would ignore the
            wish without a word).
        api_key_env: Name of the environment variable that holds the API key. None looks into
            ``CO_API_KEY`` for ``cohere`` and ``JINA_API_KEY`` for ``jina``, and sends no key
            to the others.
        timeout: Seconds for one request, its retries and the waits between them included; no
            server can hold it up longer. A call of more than ``concurrency`` requests takes
            so long a round, at most.
        retries: How often to try again.
        concurrency: Requests at a time, over all threads; more wait for their turn.
        max_texts: Passages per request; None for 32 with ``tei`` (its own default limit) and
            100 with the others.
        max_bytes: Bytes per request; TEI refuses more than the default 2 MB. Answers may have
            four times as many and 1 MiB.

    Raises:
        InvalidInputError: If an option is invalid, or the variable that ``api_key_env``
            names is not set.
        MissingDependencyError: If the extra ``remote`` is not installed.
    """

    first_stage_weight = 0.0
    keeps_deadlines = True

    def __init__(
        self,
        url: str,
        *,
        protocol: ProtocolName = "tei",
        model: str | None = None,
        raw_scores: bool | None = None,
        api_key_env: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        concurrency: int = 8,
        max_texts: int | None = None,
        max_bytes: int = 2_000_000,
        **unknown: Unpack[_NoOthers],
    ) -> None:
        check_options("RemoteScorer", unknown, own_options(RemoteScorer))
        _client_module()  # what is not installed shows now, and not at the first query
        if protocol not in KNOWN:
            raise InvalidInputError(
                f"protocol must be one of {list(PROTOCOLS)}, but got {protocol!r}"
            )
        self.protocol = protocol
        known = KNOWN[protocol]
        if model is None and known.needs_model:
            raise InvalidInputError(f"protocol {protocol!r} needs a model, but got None")
        if model is not None and not (isinstance(model, str) and model.strip()):
            raise InvalidInputError(f"model must be a name or None, but got {model!r}")
        self.model = model
        self.url = _endpoint(url, known.path)
        self.raw_scores = known.raw_by_default if raw_scores is None else raw_scores
        self.api_key_env = _key_variable(api_key_env, known.key_variable)
        self.timeout = _positive("timeout", timeout)
        self.retries = check_count("retries", retries)
        self.concurrency = check_count("concurrency", concurrency, minimum=1)
        self.max_texts = check_count(
            "max_texts", known.max_texts if max_texts is None else max_texts, minimum=1
        )
        self.max_bytes = check_count("max_bytes", max_bytes, minimum=1)
        self._client: Client | None = None

    @property
    def name(self) -> str:
        """The model's name; without one, the protocol and the server's address."""
        return self.model or f"{self.protocol} at {urlsplit(self.url).netloc}"

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit per pair. Identical pairs are sent once.

        Raises:
            RemoteError: If the server failed, could not be reached, took too long, or gave an
                answer that cannot be used.
            InvalidInputError: ``options.long_passages`` asks for windows: the server decides
                what becomes of long passages; or the API key is gone from the environment.
        """
        return loop.run(self._score(pairs, options)) if pairs else _placed([], [], [])

    async def ascore(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """`score` without a thread that waits; cancelling it cancels the requests."""
        if not pairs:
            return _placed([], [], [])
        return await asyncio.wrap_future(loop.start(self._score(pairs, options)))

    async def _score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        if options.long_passages not in (None, "truncate"):
            raise InvalidInputError(
                "a remote scorer leaves long passages to its server, so long_passages must be "
                f"None or 'truncate', but got {options.long_passages!r}"
            )
        sent = [(well_formed(query), well_formed(passage)) for query, passage in pairs]
        distinct = {pair: place for place, pair in enumerate(dict.fromkeys(sent))}
        scores = np.zeros(len(distinct), dtype=np.float64)
        known = np.zeros(len(distinct), dtype=np.bool_)
        client = self._connected()

        async def ask(shard: Shard) -> None:
            protocol = KNOWN[self.protocol]
            body = request_body(protocol, shard, model=self.model, raw=self.raw_scores)
            answer = await client.post(body)
            scores[shard.places] = read_scores(protocol, answer, len(shard.passages))
            known[shard.places] = True

        parts = shards(list(distinct), max_texts=self.max_texts, max_bytes=self.max_bytes)
        requests = [asyncio.ensure_future(ask(shard)) for shard in parts]
        left = None if options.stop_at is None else max(0.0, options.stop_at - perf_counter())
        try:
            ended, _ = await asyncio.wait(
                requests, timeout=left, return_when=asyncio.FIRST_EXCEPTION
            )
            await asyncio.gather(*ended)  # raises what failed; what is late is left out
        finally:
            for request in requests:
                request.cancel()
        scores[known] = to_logits(scores[known], raw=self.raw_scores)
        return _placed(scores, known, [distinct[pair] for pair in sent])

    def _connected(self) -> Client:
        """The client of the running loop; only that loop's thread comes here."""
        if self._client is None or self._client.loop is not asyncio.get_running_loop():
            self._client = _client_module().Client(
                self.url,
                key_variable=self.api_key_env,
                timeout=self.timeout,
                retries=self.retries,
                concurrency=self.concurrency,
                max_answer=2**20 + 4 * self.max_bytes,
            )
            weakref.finalize(self, _close, self._client).atexit = False
        return self._client

    def describe(self) -> dict[str, Any]:
        """Who is asked, and how; the server is not asked for it."""
        return {
            "model": self.name,
            "engine": "remote",
            "protocol": self.protocol,
            "url": self.url,
            "raw_scores": self.raw_scores,
            "api_key_env": self.api_key_env,
            "timeout": self.timeout,
            "retries": self.retries,
            "concurrency": self.concurrency,
            "max_texts": self.max_texts,
            "max_bytes": self.max_bytes,
            "first_stage_weight": self.first_stage_weight,
        }

    def __repr__(self) -> str:
        return f"RemoteScorer({self.url!r}, protocol={self.protocol!r}, model={self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; its connections are its own."""
        return {**self.__dict__, "_client": None}


def _client_module() -> Any:
    try:
        from rerank_plugins.scoring.remote import client
    except ImportError as error:
        raise MissingDependencyError(
            "scoring on a server needs httpx and tenacity: pip install 'rerank-plugins[remote]'"
        ) from error
    return client


def _close(client: Client) -> None:
    if client.pid == os.getpid():  # a forked child has no business with its parent's
        asyncio.run_coroutine_threadsafe(client.close(), client.loop)


def _placed(logits: Any, known: Any, places: list[int]) -> PairScores:
    taken = np.asarray(places, dtype=np.intp)
    return PairScores(
        np.asarray(logits, dtype=np.float64)[taken],
        np.zeros(len(places), dtype=np.bool_),
        scored=np.asarray(known, dtype=np.bool_)[taken],
    )


def _endpoint(url: object, path: str) -> str:
    """The whole address.

    Raises:
        InvalidInputError: If the URL is not that of a server, or holds credentials.
    """
    rule = "url must be an address such as http://localhost:8080"
    if not isinstance(url, str):
        raise InvalidInputError(f"{rule}, but got {type(url).__name__}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        # Not the URL itself: it may hold a password that could not be told apart.
        raise InvalidInputError(f"{rule}, with http or https and a host; this one is not")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInputError(
            f"{rule}, without user, password, query or fragment, for it is shown in logs; "
            "give the API key by api_key_env"
        )
    base = url.rstrip("/#?")
    if parts.path.rstrip("/").endswith("/rerank"):
        return base
    # Base URLs of OpenAI-like clients end in the version, which then is the user's choice.
    return base + ("/rerank" if _VERSION.search(base) else path)


def _key_variable(named: str | None, usual: str | None) -> str | None:
    if named is None:
        named = usual if usual is not None and os.environ.get(usual) else None
    if named is not None:
        if not isinstance(named, str) or not named.strip():
            raise InvalidInputError("api_key_env must be the name of a variable, or None")
        _client_module().api_key(named)
    return named


def _positive(name: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0.0 < value < math.inf:  # type: ignore[operator]
        raise InvalidInputError(f"{name} must be a number above 0, but got {value!r}")
    return float(value)  # type: ignore[arg-type]
