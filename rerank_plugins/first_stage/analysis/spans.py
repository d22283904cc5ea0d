"""Where the words of a text stand, for pointing at them."""

from __future__ import annotations

from typing import Final

import regex

# No compound goes over these signs, but for a comma between digits.
_PIECE: Final = regex.compile(r"(?:[^\s,،;؛!?؟()\[\]{}«»“”\"…—|]|(?<=\d),(?=\d))+")
_EDGES: Final = ".:'’‘*-–"


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where words stand in a text: start and end of each piece that analyzers read by itself.

    ``analyzer(text[start:end])`` gives the terms of that piece, as in the whole text, so that a
    caller can point at the words that a query's terms met.
    """
    spans = []
    for piece in _PIECE.finditer(text):
        bare = piece[0].rstrip(_EDGES)
        end = piece.start() + len(bare)
        start = end - len(bare.lstrip(_EDGES.replace(".", "")))
        if start < end:
            spans.append((start, end))
    return spans
