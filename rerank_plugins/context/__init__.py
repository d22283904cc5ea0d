"""Packs ranked passages into the context of an LLM prompt, within a token budget.

What the text looks like, with the default label and separator::

    [1] history/fez.md
    The passage, as it came in.

    [2]
    A passage whose source is not known.

The label has its own line. Bidirectional text is laid out line by line (UAX #9, rule
P1), so a Latin file name or a number in the label cannot turn the Arabic line under it
around, and no invisible direction marks have to be put into the prompt.

With ``fence=True`` each passage stands between lines of backticks that it cannot close, and
with ``strip_invisible=True`` nothing is in it that a reader could not see. Both make plain what
is retrieved text and what is not; neither stops a model from doing what such a text says.
"""

from __future__ import annotations

from rerank_plugins.context.builder import ContextBuilder
from rerank_plugins.context.records import (
    Context,
    ContextPassage,
    OmittedPassage,
    PackedPassage,
    context_passages,
)

__all__ = [
    "Context",
    "ContextBuilder",
    "ContextPassage",
    "OmittedPassage",
    "PackedPassage",
    "context_passages",
]
