"""What the commands read and write: JSON lines in, results on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final, TextIO

from rerank_plugins._lines import json_objects
from rerank_plugins.errors import InvalidInputError

EXIT_NOTHING_FOUND: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_MODEL: Final = 3
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

# The library's word, and the one that many other programs have for it.
TOP_N: Final = ("--top-n", "--top-k")


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, gzipped or not, each with a text ``text``.

    Raises:
        InvalidInputError: If there is none, or a line is not such an object; the message has its
            number.
        OSError: If the file cannot be read.
    """
    from tqdm import tqdm

    records = []
    for where, record in tqdm(json_objects(path), unit="line", disable=None, leave=False):
        if not isinstance(record.get("text"), str):
            raise InvalidInputError(f'{where}: each line must be an object with a text "text"')
        records.append(dict(record))
    if not records:
        raise InvalidInputError(f'{path} holds no passages: it needs lines of {{"text": ...}}')
    return records


def read_lines(file: TextIO | None, name: str) -> list[tuple[int, Any]]:
    """Line numbers and parsed values; blank lines are skipped.

    Raises:
        InvalidInputError: If a line is not JSON, the file is not UTF-8, or it is closed.
    """
    if file is None:
        raise InvalidInputError(f"{name} is closed")
    parsed = []
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            # Windows puts a byte order mark before the first.
            text = line.removeprefix("\ufeff") if number == 1 else line
            if text.strip():
                parsed.append((number, json.loads(text)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{name}, line {number}: invalid JSON ({error})") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8 text: {error}") from error
    return parsed


def say(text: str, *, only_on_terminal: bool = False) -> None:
    """A line for people on stderr; ``only_on_terminal`` for progress, which scripts do not need."""
    if not only_on_terminal or sys.stderr.isatty():
        sys.stderr.write(f"rerank-plugins: {text}\n")
        sys.stderr.flush()


def show_log() -> None:
    """Shows the library's log on stderr, with the time of day: for what takes minutes."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("rerank_plugins").setLevel(logging.INFO)


def check_writable(option: str, path: Path) -> None:
    """Refuses a file that cannot be written, before any work is done for it.

    Raises:
        InvalidInputError: Its folder does not exist or is read-only, or it is a folder itself.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidInputError(f"{option} {path}: the folder {folder} does not exist")
    if path.is_dir():
        raise InvalidInputError(f"{option} {path} is a folder: give a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInputError(f"{option} {path} cannot be written: no permission")


def use_threads(threads: int) -> None:
    """Lets this process compute on that many CPUs, with whatever engine."""
    import torch

    torch.set_num_threads(threads)
    if sys.platform == "linux":  # OpenVINO and FAISS look at what the process may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def write(text: str) -> None:
    """One line of results on stdout, flushed, whatever the terminal's encoding."""
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:  # a lone surrogate, or a terminal that is not UTF-8
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def write_json(record: dict[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        line = json.dumps(record)
    write(line)
