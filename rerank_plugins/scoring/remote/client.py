"""Sends one request to a scoring server and gives back the whole answer, or a named error."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import ssl
import time
from collections.abc import Generator
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final
from urllib.parse import quote

import anyio
import httpx
import tenacity

from rerank_plugins.errors import (
    InvalidInputError,
    RemoteConnectionError,
    RemoteError,
    RemoteResponseError,
    RemoteStatusError,
    RemoteTimeoutError,
    RerankPluginsError,
)

logger = logging.getLogger(__name__)

_HTTPCORE: Final = ("connection", "http11", "http2", "proxy", "socks")

CONNECT_SECONDS = 5.0
# What a message shows as the name of a variable; keys have small letters, and are longer.
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
# Full jitter: a random time up to 0.5, 1, 2, 4, 8 seconds.
_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=8)
# Added to Retry-After, so that clients that were told the same do not all return at once.
_SPREAD = tenacity.wait_random(0, 0.5)


class _MayPass(Exception):  # noqa: N818
    """A failure that may be over when one tries again."""

    def __init__(self, error: RemoteError, retry_after: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


class Client:
    """Connections to one server; belongs to the event loop it was made on.

    Args:
        url: Where requests go.
        key_variable: Environment variable of the API key; None for no key.
        timeout: Seconds for one answer, retries and the waits between them included.
        retries: How often to try again.
        concurrency: Requests at a time; more wait for their turn.
        max_answer: Bytes of an answer, at most.
    """

    def __init__(
        self,
        url: str,
        *,
        key_variable: str | None,
        timeout: float,
        retries: int,
        concurrency: int,
        max_answer: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self._url = url
        self._key_variable = key_variable
        self._timeout = timeout
        self._retries = retries
        self._max_answer = max_answer
        self._slots = asyncio.Semaphore(concurrency)
        self._http = httpx.AsyncClient(
            auth=None if key_variable is None else _KeyFromEnvironment(key_variable),
            # Compression is not asked for: a small answer could unpack to gigabytes.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            # Passages and key go to the address that the user gave, and to no other.
            follow_redirects=False,
            verify=_certificates(),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout), pool=None),
        )

    async def post(self, body: bytes) -> bytes:
        """The answer's body.

        Raises:
            RemoteError: If one of its kinds, once trying again has not helped or cannot.
            InvalidInputError: If the key in the environment cannot be sent in a header.
        """
        async with self._slots:
            try:
                with anyio.fail_after(self._timeout):
                    return await self._with_retries(body)
            except Exception as error:  # noqa: BLE001 - made anew, so that no request goes along
                failure = self._anew(error)
        # Not within `except`: httpx's errors hold the request, and the request the key.
        raise failure

    def _anew(self, error: Exception) -> RerankPluginsError:
        """An error of this package without cause, context or key, whatever failed."""
        if isinstance(error, _MayPass):
            error = error.error
        if isinstance(error, TimeoutError) and not isinstance(error, RemoteError):
            error = RemoteTimeoutError(
                f"{self._url} must answer within {self._timeout:g} s, retries included, but did "
                "not; raise timeout if the model needs longer"
            )
        if not isinstance(error, RerankPluginsError):
            error = self._unreachable(f"{type(error).__name__}: {error}")
        return type(error)(hidden(str(error), self._key_variable))

    async def _with_retries(self, body: bytes) -> bytes:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_MayPass),
            wait=_wait,
            stop=tenacity.stop_after_attempt(1 + self._retries)
            | tenacity.stop_before_delay(self._timeout),
            before_sleep=self._log_retry,
            reraise=True,
        )
        return await retrying(self._once, body)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        failure = _failure(state)
        logger.info(
            "try %d failed, the next in %.1f s: %s",
            state.attempt_number,
            state.upcoming_sleep,
            hidden(str(failure.error), self._key_variable),
        )

    async def _once(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        try:
            async with self._http.stream(
                "POST", self._url, content=body, headers=headers
            ) as response:
                if response.status_code != 200:
                    await self._refuse(response)
                return await self._whole(response)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise _MayPass(self._unreachable("no connection in time")) from error
            raise TimeoutError from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise _MayPass(self._unreachable(str(error))) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(str(error)) from error

    def _unreachable(self, why: str) -> RemoteConnectionError:
        return RemoteConnectionError(
            f"{self._url} cannot be reached, or the connection broke: {why or 'no reason given'}"
        )

    async def _refuse(self, response: httpx.Response) -> None:
        """Raises what a status other than 200 means."""
        status = response.status_code
        message = f"{self._url} must answer with status 200, but answered {status}"
        if response.has_redirect_location:
            raise RemoteStatusError(
                f"{message}: a redirect, which is not followed, to "
                f"{self._without_key(response.headers['location'])}; give the final address"
            )
        if said := await self._beginning(response):
            message += f": {said}"
        if status in (401, 403):
            where = self._key_variable or "none was sent: name its variable with api_key_env"
            message += f"; check the API key ({where})"
        if status in (404, 405, 422):
            message += "; are url, protocol and model those of this server?"
        if status == 413:
            message += "; lower max_texts or max_bytes if the request is too large for it"
        if status != 429 and status < 500:
            raise RemoteStatusError(message)
        wait = _retry_after(response.headers.get("retry-after"))
        if wait is not None:
            message += f"; it asks for a wait of {wait:g} s"
        raise _MayPass(RemoteStatusError(message), wait)

    async def _beginning(self, response: httpx.Response) -> str:
        """What the server said of its refusal, cut short; it may break off at any point."""
        content = b""
        try:
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) >= 1000:
                    break
        except httpx.TransportError:
            pass
        text = " ".join(content[:1000].decode("utf-8", "replace").split())
        return self._without_key(text) if text else ""

    def _without_key(self, text: str) -> str:
        """Text of the server's for a message: it may repeat what it was sent."""
        text = hidden(text, self._key_variable)
        return repr(text if len(text) <= 300 else f"{text[:300]}...")

    async def _whole(self, response: httpx.Response) -> bytes:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise RemoteResponseError(
                f"the answer must be application/json, but is {self._without_key(kind)}; is "
                f"{self._url} the right address?"
            )
        packing = response.headers.get("content-encoding", "identity").strip().lower()
        if packing != "identity":
            raise RemoteResponseError(
                f"the answer must not be compressed, but is {self._without_key(packing)}"
            )
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._max_answer:
                raise RemoteResponseError(
                    f"the answer must have at most {self._max_answer} bytes, but has more"
                )
        return bytes(content)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


@cache
def _certificates() -> ssl.SSLContext:
    """Reading them takes a good part of a second: once is enough."""
    return httpx.create_ssl_context()


def hidden(text: str, variable: str | None) -> str:
    """The text without the key, as it is or as it is written in URLs and literals."""
    key = os.environ.get(variable or "", "").strip()
    if key:
        for form in {key, quote(key, safe=""), repr(key)[1:-1], repr(repr(key)[1:-1])[1:-1]}:
            text = text.replace(form, "[API key]")
    return text


class _WithoutKeys(logging.Filter):
    """Takes keys out of what httpx and httpcore log: headers of answers, which may repeat them."""

    variables: Final[set[str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """The same record, its message without keys."""
        said = record.getMessage()
        for variable in list(self.variables):
            said = hidden(said, variable)
        if said != record.getMessage():
            record.msg, record.args = said, ()
        return True


_hiding: Final = _WithoutKeys()
_LOGGERS: Final = ("httpx", *(f"httpcore.{part}" for part in _HTTPCORE))


def _hide_in_logs(variable: str) -> None:
    _WithoutKeys.variables.add(variable)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_hiding)  # once, however often it is added


class _KeyFromEnvironment(httpx.Auth):
    """Reads the key when a request leaves, so that no object of ours ever holds it."""

    def __init__(self, variable: str) -> None:
        self._variable = variable
        _hide_in_logs(variable)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The same request with its key."""
        request.headers["Authorization"] = f"Bearer {api_key(self._variable)}"
        yield request


def api_key(variable: str) -> str:
    """The key that the environment has now.

    Raises:
        InvalidInputError: If it is missing, or has characters that a header cannot carry.
            The message never has the key.
    """
    key = os.environ.get(variable, "").strip()
    if not key and _NAME.fullmatch(variable) is None:
        # Perhaps the key itself.
        raise InvalidInputError(
            "api_key_env must be the name of an environment variable that holds the API key, such "
            "as CO_API_KEY, and not the key; the variable named is not set"
        )
    if not key:
        raise InvalidInputError(
            f"the environment variable {variable} must hold the API key, but is empty or not set"
        )
    if not (key.isascii() and key.isprintable()):
        raise InvalidInputError(
            f"the API key in {variable} must be printable ASCII on one line, but is not"
        )
    return key


def _failure(state: tenacity.RetryCallState) -> _MayPass:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, _MayPass):
        raise TypeError(f"only _MayPass is tried again, not {error!r}")
    return error


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds until the next try: as long as the server asks, else a growing random time."""
    asked = _failure(state).retry_after
    return _BACKOFF(state) if asked is None else asked + _SPREAD(state)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None for none or nonsense."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
