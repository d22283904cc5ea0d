"""The file of a score cache: an SQLite database of which no entry is taken on trust."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from rerank_plugins._files import make_file
from rerank_plugins._threads import fork_safe_lock, lock_without_forks
from rerank_plugins.errors import InvalidInputError

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

# "rrsc": tells our files from every other SQLite database.
_APPLICATION_ID = 0x72727363
_LAYOUT = 2
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS scores (
        number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, entry BLOB NOT NULL
    )
"""
_ENTRY = struct.Struct("<d?ii")
_CHECKSUM = struct.Struct("<I")
# SQLite takes at most 999 parameters a statement where it is old.
_KEYS_A_QUERY = 500

# Logit, whether the pair was truncated, and the span of characters (-1, -1 for none).
# Seconds that a query waits for the file, and for how long it is left alone after it could not be
# had: twice as long each time, so that a query now and then waits, and no other.
_PATIENCE = 0.05
_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0
# A query never opens the file, except the first of a forked child.
_OPENING = 5.0

Entry = tuple[float, bool, int, int]
T = TypeVar("T")


class ScoreFile:
    """The SQLite file behind a `ScoreCache`; one connection a process, used under a lock."""

    def __init__(self, path: Path, max_pairs: int) -> None:
        self.path = path
        self._max_pairs = max_pairs
        self._lock = fork_safe_lock()
        self._inside = lock_without_forks()  # SQLite has locks of the whole process
        self._warned = False
        self._pause = _SHORTEST_PAUSE
        self._alone_until = -math.inf  # on the clock of `monotonic`
        self._inherited: list[sqlite3.Connection | None] = []
        with self._inside:
            self._open(_OPENING)

    def _open(self, patience: float) -> None:
        import sqlite3

        try:
            self._connection: sqlite3.Connection | None = self._connect(patience)
        except InvalidInputError:
            raise
        except (sqlite3.Error, OSError, ValueError) as error:  # a NUL in the name: ValueError
            raise InvalidInputError(
                f"a cache's path must be a cache of scores or a new file, but {str(self.path)!r} "
                f"cannot be used: {error}. Name another; a damaged cache can be deleted"
            ) from error
        self._process = os.getpid()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None and self._process == os.getpid():
            connection.close()

    def _connect(self, patience: float) -> sqlite3.Connection:
        import sqlite3

        make_file(self.path)
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout={round(1000 * patience)}")
            connection.execute("BEGIN IMMEDIATE")
            self._check(connection)
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_LAYOUT}")
            connection.commit()
            # Readers and writers of several processes do not wait for each other; a crash
            # of the machine may lose the last scores, never the file.
            with suppress(sqlite3.OperationalError):  # another process opens it right now
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA busy_timeout={round(1000 * _PATIENCE)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """A file that is not ours, or not whole, is neither read nor written to."""

        def value(pragma: str) -> Any:
            return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

        ours = value("application_id") == _APPLICATION_ID and value("user_version") == _LAYOUT
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not ours and not (empty and value("application_id") == value("user_version") == 0):
            raise InvalidInputError(
                "a cache's path must be a cache of scores of this version or a new file, but "
                f"{str(self.path)!r} is another SQLite database. Name another file"
            )
        told = value("quick_check(1)")
        if told != "ok":
            raise InvalidInputError(
                f"a cache's file must be whole, but {str(self.path)!r} is damaged ({told}). "
                "Delete it"
            )

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries whose checksums hold."""
        found = {}
        for key, raw in self._run(lambda connection: _select(connection, keys)) or ():
            entry = _unpacked(key, raw)
            if entry is not None:
                found[key] = entry
        return found

    def keep(self, entries: Mapping[bytes, Entry]) -> None:
        """Writes entries, and deletes the oldest beyond the bound."""
        rows = [(key, _packed(key, entry)) for key, entry in entries.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(
                    "INSERT OR REPLACE INTO scores (key, entry) VALUES (?, ?)", rows
                )
                # Numbers only grow, so this leaves max_pairs rows or, after a replacement, fewer.
                connection.execute(
                    "DELETE FROM scores WHERE number <= (SELECT max(number) FROM scores) - ?",
                    (self._max_pairs,),
                )
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

        self._run(write)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What the work returns; None if the file fails or is not available in time."""
        import sqlite3

        if monotonic() < self._alone_until:
            return None
        if not self._lock.acquire(timeout=_PATIENCE):
            return None
        try:
            with self._inside:
                if self._process != os.getpid():
                    # A connection must neither be used nor closed across a fork.
                    self._inherited.append(self._connection)
                    self._connection, self._process = None, os.getpid()
                    self._open(_PATIENCE)
                if self._connection is None:
                    return None
                found = work(self._connection)
        except (sqlite3.Error, InvalidInputError) as error:
            self._failed(error)
            return None
        else:
            self._pause = _SHORTEST_PAUSE
            return found
        finally:
            self._lock.release()

    def _failed(self, error: Exception) -> None:
        """Leaves the file alone: for a while when it is locked, or a disk full; else for good."""
        import sqlite3

        if isinstance(error, sqlite3.OperationalError):
            self._alone_until = monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._connection = None
        if not self._warned:
            self._warned = True
            logger.warning(
                "the score cache %s failed (%s); scores are computed or come from memory",
                self.path,
                error,
            )


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    rows: list[tuple[bytes, bytes]] = []
    remaining = iter(keys)
    while some := list(islice(remaining, _KEYS_A_QUERY)):
        marks = ",".join("?" * len(some))
        rows += connection.execute(
            f"SELECT key, entry FROM scores WHERE key IN ({marks})",  # noqa: S608  (marks only)
            some,
        )
    return rows


def _packed(key: bytes, entry: Entry) -> bytes:
    values = _ENTRY.pack(*entry)
    return values + _CHECKSUM.pack(zlib.crc32(key + values))


def _unpacked(key: bytes, raw: object) -> Entry | None:
    """The entry, or None when it is not what was written for this key."""
    if not isinstance(raw, bytes) or len(raw) != _ENTRY.size + _CHECKSUM.size:
        return None
    values = raw[: _ENTRY.size]
    if _CHECKSUM.unpack(raw[_ENTRY.size :])[0] != zlib.crc32(key + values):
        return None
    entry: Entry = _ENTRY.unpack(values)
    return entry if math.isfinite(entry[0]) else None
