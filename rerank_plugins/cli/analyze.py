"""``rerank-plugins analyze``: what a text becomes, step by step, when it is indexed or asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, cast

from rerank_plugins.cli._io import write
from rerank_plugins.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_plugins.first_stage.analysis import LanguageAnalyzer, MixedAnalyzer

_ROW = "{:<24} {:<24} {:<24} {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins analyze``."""
    parser.add_argument("text", nargs="?", help="the text; read from stdin when left out")
    parser.add_argument(
        "--language",
        choices=("auto", "ar", "fr", "pl", "en", "neutral"),
        default="auto",
        help="of the text (default: detected)",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the road of each piece of the text, and the terms that it has as a query.

    Raises:
        InvalidInputError: If the text is blank.
    """
    from rerank_plugins.first_stage.analysis import analyzer_for
    from rerank_plugins.first_stage.analysis.normalization import normalized
    from rerank_plugins.first_stage.analysis.pieces import pieces

    text = _standard_input() if options.text is None else options.text
    if not text.strip():
        raise InvalidInputError("text must not be blank: give it as an argument or on stdin")
    analyzer = cast(
        "LanguageAnalyzer | MixedAnalyzer", analyzer_for(options.language, texts=[text])
    )
    reading = analyzer.reading(text)
    write(f"analyzer: {analyzer.name}, version {analyzer.version}; read as: {reading.name}\n")
    write(_ROW.format("piece", "normalized", "tokens", "terms"))
    for piece in pieces(text):
        tokens = " ".join(text for text, _ in reading.tokens(piece))
        write(_ROW.format(piece, normalized(piece), tokens, " ".join(reading.terms([piece]))))
    kept = reading.query_tokens(text)
    whole = [token for piece in pieces(text) for token in reading.tokens(piece)]
    dropped = dict.fromkeys(token[0] for token in whole if token not in kept)
    write(f"\nas a query: {' '.join(analyzer.query(text))}")
    if dropped:
        write(f"stop words: {' '.join(dropped)}")
    return 0


def _standard_input() -> str:
    try:
        return "" if sys.stdin is None else sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"stdin is not UTF-8 text: {error}") from error
