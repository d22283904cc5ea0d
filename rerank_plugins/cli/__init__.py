"""The ``rerank-plugins`` command line: one file per command.

Each file defines ``add_arguments(parser)``, which must import nothing heavy, and
``run(options)``, which returns the exit code. Only results are written to stdout; progress,
logs and errors go to stderr. Exit codes: 0 done, 1 nothing found, 2 bad input or usage,
3 the model could not be loaded or failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rerank_plugins import __version__
from rerank_plugins.cli import (
    analyze,
    calibrate,
    demo,
    evaluate,
    models,
    quantize,
    rerank,
    search,
    train,
    warm_up,
)
from rerank_plugins.cli._io import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_MODEL, EXIT_NOTHING_FOUND
from rerank_plugins.errors import ModelError, RerankPluginsError, ScoringError

__all__ = ["EXIT_BAD_INPUT", "EXIT_MODEL", "EXIT_NOTHING_FOUND", "main"]

_COMMANDS = {
    "search": (search, "search a corpus of JSON lines and rerank"),
    "rerank": (
        rerank,
        'JSON lines in and out: {"query": ..., "passages": [text or {"text": ...}, ...]}',
    ),
    "analyze": (analyze, "print what a text becomes, step by step, when it is indexed or searched"),
    "models": (models, "list the models that load by name"),
    "demo": (demo, "retrieve, rerank and assemble on the sample corpus"),
    "train": (train, "fine-tune a cross-encoder on your own questions"),
    "evaluate": (evaluate, "compare first stages and rerankers on your own questions"),
    "warm-up": (warm_up, "fetch, convert and load models before they are needed"),
    "calibrate": (calibrate, "fit probabilities and a threshold on your own judgements"),
    "quantize": (quantize, "make an int8 model and measure it"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    if arguments is None:
        arguments = _utf8_whatever_the_locale()
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ModelError, ScoringError) as error:
        return _fail(error, EXIT_MODEL)
    except KeyboardInterrupt as stopped:
        return _fail(KeyboardInterrupt(str(stopped) or "interrupted"), EXIT_INTERRUPTED)
    except BrokenPipeError:
        return 0
    except OSError as error:
        plain = f"{error.filename}: {error.strerror}" if error.filename else error
        return _fail(plain, EXIT_BAD_INPUT)
    except RerankPluginsError as error:
        return _fail(error, EXIT_BAD_INPUT)


def parser() -> argparse.ArgumentParser:
    """The parser of every command, which the documentation is made from."""
    whole = argparse.ArgumentParser(
        prog="rerank-plugins",
        description="Search, rerank, evaluate and fine-tune from the command line.",
    )
    whole.add_argument("--version", action="version", version=__version__)
    commands = whole.add_subparsers(dest="command", required=True)
    for name, (command, text) in _COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text)
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    return whole


def _utf8_whatever_the_locale() -> list[str]:
    """Sets the standard streams to UTF-8; gives the arguments, read as UTF-8 too.

    Containers often have an ASCII locale, and what comes through a pipe is UTF-8 all the same.
    """
    if sys.stdout is None:  # closed by the caller, as a broken pipe
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    return [os.fsencode(one).decode("utf-8", "surrogateescape") for one in sys.argv[1:]]


def _fail(error: BaseException | str, code: int) -> int:
    sys.stderr.write(f"rerank-plugins: {error}\n")
    return code
