"""Reads lines of text files, plain or gzipped, with limits against hostile input."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO, cast

from rerank_plugins.errors import InvalidInputError

# Characters; the whole of Tolstoy's War and Peace has three million.
LONGEST_LINE: Final = 1 << 26
# gzip shrinks text to a third or a tenth and zeros to a thousandth. A file that unpacks to more
# than a hundred times its size, and to a gigabyte, was made to exhaust memory.
_MOST_UNPACKED: Final = 100
_UNPACKED_ANYWAY: Final = 1 << 30


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1, and lines of a UTF-8 file, with line ends; ``.gz`` is unpacked.

    Raises:
        InvalidInputError: If the text is not UTF-8, the gzip stream is damaged, or a line or the
            unpacked file exceeds the limits; names file and line.
        OSError: If the file cannot be read.
    """
    packed = path.suffix == ".gz"
    limit = max(_UNPACKED_ANYWAY, _MOST_UNPACKED * path.stat().st_size)
    number = read = 0
    try:
        opener = gzip.open if packed else open
        # newline="" is what the csv module asks for.
        with cast("TextIO", opener(path, "rt", encoding="utf-8-sig", newline="")) as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                read += len(line)
                if len(line) > LONGEST_LINE:
                    raise InvalidInputError(
                        f"{path}, line {number}: a line must not exceed {LONGEST_LINE} characters"
                    )
                if packed and read > limit:
                    raise InvalidInputError(
                        f"{path}, line {number}: the content unpacks to more than "
                        f"{_MOST_UNPACKED} times the file's size; unpack it yourself"
                    )
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}, after line {number}: not UTF-8 ({error})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{path}, after line {number}: damaged gzip ({error})") from error


def json_objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The JSON objects of a file, one per line, each with ``file, line n``; blank lines skipped.

    Raises:
        InvalidInputError: If a line is not a JSON object, or as in `text_lines`.
        OSError: If the file cannot be read.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{where}: invalid JSON ({error})") from error
        if not isinstance(record, dict):
            raise InvalidInputError(f"{where}: every line must be a JSON object")
        yield where, record
