"""OpenTelemetry spans, in programs that use OpenTelemetry.

==============================  ===================================  ==============================
span                            around                               counts
==============================  ===================================  ==============================
``rerank_plugins.first_stage``  the inner retriever of a             candidates
                                ``RerankingRetriever``
``rerank_plugins.search``       one search of BM25, Dense or Hybrid  k, candidates
``rerank_plugins.rerank``       one `Reranker` call                  queries, candidates, scored,
                                                                     truncated, failed
``rerank_plugins.score``        the scorer, local or remote          pairs
``rerank_plugins.tokenize``     pairs to token ids                   pairs, rows, tokens
``rerank_plugins.forward``      the model, waiting time included     rows, tokens
==============================  ===================================  ==============================

Attributes have the same prefix, such as ``rerank_plugins.candidates``; durations are those of the
spans. A failed span has the exception's class in ``error.type``. Queries, passages and error
messages (which quote them) may be private: they are recorded only if
``RERANK_PLUGINS_TRACE_TEXTS=1`` is set; search and rerank spans then have ``query`` and
``passages``.

The library does not import OpenTelemetry. A program with a tracer has imported its API already;
otherwise a span costs one lookup in ``sys.modules``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from typing_extensions import Self

PREFIX: Final = "rerank_plugins."
TEXTS: Final = "RERANK_PLUGINS_TRACE_TEXTS"
_TEXTS: Final = frozenset({"query", "passages"})

Value = bool | int | float | str | Sequence[str]
P = ParamSpec("P")
R = TypeVar("R")


class Nothing:
    """A span in a program without tracing."""

    recording = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Lets exceptions propagate."""

    def set(self, **facts: Value) -> None:
        """Does nothing."""


class Span:
    """A span of the table above, current while its block runs."""

    def __init__(self, api: Any, name: str, facts: Mapping[str, Value]) -> None:
        self._api = api
        tracer = api.get_tracer("rerank_plugins")
        self._block = tracer.start_as_current_span(
            PREFIX + name,
            attributes=_named(facts),
            # Both would record the error's message, which may quote a text.
            record_exception=with_texts(),
            set_status_on_exception=False,
        )

    def __enter__(self) -> Self:
        self._span = self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(self._api.StatusCode.ERROR, kind.__name__)
        self._block.__exit__(kind, error, traceback)

    @property
    def recording(self) -> bool:
        """Whether the span is recorded: a sampler may have dropped it."""
        return bool(self._span.is_recording())

    def set(self, **facts: Value) -> None:
        """Sets attributes."""
        self._span.set_attributes(_named(facts))


def span(name: str, **facts: Value) -> Span | Nothing:
    """A context manager: a span of this name, or `Nothing` without tracing."""
    api = sys.modules.get("opentelemetry.trace")
    return Nothing() if api is None else Span(api, name, facts)


def traced(
    name: str, facts: Callable[..., Mapping[str, Value]]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: each call is a span.

    Args:
        name: Of the span, without the prefix.
        facts: Called with the result and the arguments, after a successful call and only if
            the span is recorded; returns the attributes.
    """

    def decorated(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def with_span(*args: P.args, **kwargs: P.kwargs) -> R:
            with span(name) as current:
                result = call(*args, **kwargs)
                if current.recording:
                    current.set(**facts(result, *args, **kwargs))
                return result

        return with_span

    return decorated


def with_texts() -> bool:
    """Whether queries, passages and messages may be recorded."""
    return os.environ.get(TEXTS, "").strip().lower() in {"1", "true", "yes", "on"}


def _named(facts: Mapping[str, Value]) -> dict[str, Value]:
    hidden = frozenset() if with_texts() else _TEXTS
    return {PREFIX + name: value for name, value in facts.items() if name not in hidden}


def _search_facts(
    found: Sequence[Any], stage: object, query: str, k: int, **_: object
) -> dict[str, Value]:
    return {
        "engine": type(stage).__name__.removesuffix("View"),
        "k": int(k),
        "candidates": len(found),
        "query": query,
    }


def _survey_facts(survey: Any, stage: object, query: str, k: int, **_: object) -> dict[str, Value]:
    return _search_facts(survey.candidates, stage, query, k)


traced_search = traced("search", _search_facts)
traced_survey = traced("search", _survey_facts)
