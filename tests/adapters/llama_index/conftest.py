"""Nodes, a reranker and real handlers for LlamaIndex's instrumentation."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from rerank_plugins import Reranker
from rerank_plugins.testing import OverlapScorer

# Everything but the test of what happens without the framework needs the framework.
if find_spec("llama_index") is None:
    collect_ignore_glob = ["test_llama_index_*.py"]


@pytest.fixture
def reranker() -> Reranker:
    """A reranker whose scores discriminate and need no model."""
    return Reranker(OverlapScorer())


@pytest.fixture(autouse=True)
def no_defaults_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock LLM; whatever asks for an embedding model by default fails at once."""
    from llama_index.core import Settings
    from llama_index.core.llms import MockLLM

    monkeypatch.setattr(Settings, "_llm", MockLLM())
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.setenv("IS_TESTING", "")


@pytest.fixture
def recorded() -> Iterator[Any]:
    """What LlamaIndex's root dispatcher reports: ``.events``, ``.spans`` and ``.dropped``."""
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler

    class Events(BaseEventHandler):
        # No typing name in here: pydantic looks names up in sys.modules['conftest'], and in a
        # whole run that is another folder's.
        seen: list  # type: ignore[type-arg]

        def handle(self, event: Any, **_more: Any) -> None:
            self.seen.append(event)

    class Recorded:
        def __init__(self) -> None:
            self.handler = Events(seen=[])
            self.span_handler = SimpleSpanHandler()

        @property
        def events(self) -> list[Any]:
            return self.handler.seen

        def names(self, *wanted: str) -> list[str]:
            """Class names of the events, those wanted only, in order."""
            return [e.class_name() for e in self.events if e.class_name() in wanted]

        @property
        def spans(self) -> list[str]:
            return [span.id_.split("-")[0] for span in self.span_handler.completed_spans]

        @property
        def dropped(self) -> list[str]:
            return [span.id_.split("-")[0] for span in self.span_handler.dropped_spans]

    recorded = Recorded()
    root = get_dispatcher("root")
    event_handlers, span_handlers = list(root.event_handlers), list(root.span_handlers)
    root.add_event_handler(recorded.handler)
    root.add_span_handler(recorded.span_handler)
    yield recorded
    root.event_handlers, root.span_handlers = event_handlers, span_handlers
