"""Lines of text files, plain or packed, of which none is taken on trust."""

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
# A thousandth of zeros is what gzip makes of them, a third or a tenth of text. What unpacks to
# more than a hundred times its size, and to a gigabyte, is made to fill the memory.
_MOST_UNPACKED: Final = 100
_UNPACKED_ANYWAY: Final = 1 << 30


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers, from 1, and lines of a UTF-8 file, with their line ends; ``.gz`` is unpacked.

    Raises:
        InvalidInputError: The text is no UTF-8, the packing is damaged, or a line or what a
            packed file unpacks to is beyond all measure; names file and line.
        OSError: The file cannot be read.
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
                        f"{path}, line {number}: a line must have at most {LONGEST_LINE} characters"
                    )
                if packed and read > limit:
                    raise InvalidInputError(
                        f"{path}, line {number}: what is packed here is more than "
                        f"{_MOST_UNPACKED} times as large as the file; unpack it yourself"
                    )
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}, after line {number}: no UTF-8 ({error})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{path}, after line {number}: damaged gzip ({error})") from error


def json_objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The JSON objects of a file, one a line, each with ``file, line n``; blank lines pass.

    Raises:
        InvalidInputError: A line is no JSON object, or as of `text_lines`.
        OSError: The file cannot be read.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{where}: no valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise InvalidInputError(f"{where}: every line must be a JSON object")
        yield where, record
