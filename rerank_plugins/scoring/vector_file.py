"""Passages' vectors in an SQLite file, for several processes and the next start."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._files import make_file
from rerank_plugins._threads import lock_without_forks
from rerank_plugins.errors import InvalidInputError

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

# "rrvf": tells our files from every other SQLite database.
_APPLICATION_ID: Final = 0x72727666
_LAYOUT: Final = 1
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, entry BLOB NOT NULL)"
# A file that another process holds is not waited for: vectors can be computed.
_WAIT_MS: Final = 50
_KEYS_A_QUERY: Final = 500
_HEAD: Final = 8  # bytes of an entry before the vectors: their number, the checksum


class VectorFile:
    """Vectors by key, float16; the file failing costs time, never a wrong answer.

    Raises:
        InvalidInputError: If the path is not such a file and cannot become one.
    """

    def __init__(self, path: Path) -> None:
        import sqlite3

        self.path = path
        self._lock = lock_without_forks()
        self._warned = False
        try:
            make_file(path)
            with self._connected() as connection:
                self._check(connection)
                with connection:
                    connection.execute(_SCHEMA)
                    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version={_LAYOUT}")
        except (sqlite3.Error, ValueError, OSError) as error:
            raise InvalidInputError(
                f"path must be a file of vectors or a new file, but {str(path)!r} cannot be used: "
                f"{error}. Name another; a damaged file can be deleted"
            ) from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call: nothing is inherited by a forked child."""
        import sqlite3

        connection = sqlite3.connect(self.path, timeout=_WAIT_MS / 1000)
        try:
            yield connection
        finally:
            connection.close()

    def _check(self, connection: sqlite3.Connection) -> None:
        def value(pragma: str) -> int:
            return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])

        ours = value("application_id") == _APPLICATION_ID and value("user_version") == _LAYOUT
        if not ours and (
            value("application_id")
            or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ):
            raise InvalidInputError(
                f"path must be a file of vectors of this version or a new file, but "
                f"{str(self.path)!r} is another SQLite database. Name another file"
            )

    def find(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors whose checksums hold, shape (windows, d)."""
        import sqlite3

        found: dict[bytes, NDArray[np.float32]] = {}
        remaining = iter(keys)
        with self._lock:
            try:
                with self._connected() as connection:
                    while some := list(islice(remaining, _KEYS_A_QUERY)):
                        marks = ",".join("?" * len(some))
                        rows = connection.execute(
                            f"SELECT key, entry FROM vectors WHERE key IN ({marks})",  # noqa: S608
                            some,
                        )
                        for key, entry in rows:
                            if (vectors := _unpacked(key, entry)) is not None:
                                found[key] = vectors
            except sqlite3.Error as error:
                self._warn(error)
        return found

    def keep(self, entries: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Writes vectors; a file that refuses is told of once."""
        import sqlite3

        with self._lock:
            try:
                with self._connected() as connection, connection:
                    connection.executemany(
                        "INSERT OR REPLACE INTO vectors (key, entry) VALUES (?, ?)",
                        [(key, _packed(key, vectors)) for key, vectors in entries.items()],
                    )
            except sqlite3.Error as error:
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "the file of vectors %s failed in process %d (%s); vectors are computed",
                self.path,
                os.getpid(),
                error,
            )


def _packed(key: bytes, vectors: NDArray[np.float32]) -> bytes:
    values = vectors.astype("<f2").tobytes()
    head = len(vectors).to_bytes(4, "little")
    return head + zlib.crc32(key + head + values).to_bytes(4, "little") + values


def _unpacked(key: bytes, entry: object) -> NDArray[np.float32] | None:
    """The vectors, or None when they are not what was written for this key."""
    if not isinstance(entry, bytes) or len(entry) <= _HEAD:
        return None
    head, checksum, values = entry[:4], entry[4:_HEAD], entry[_HEAD:]
    if zlib.crc32(key + head + values).to_bytes(4, "little") != checksum:
        return None
    stored = np.frombuffer(values, dtype="<f2").astype(np.float32)
    return stored.reshape(int.from_bytes(head, "little"), -1)
