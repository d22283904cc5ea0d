"""A bounded cache of scores: in memory, on disk too when it is given a file."""

from __future__ import annotations

import json
import logging
import math
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.ordering import check_count
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer, checked

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

# "rrsc": tells our files from every other SQLite database.
_APPLICATION_ID = 0x72727363
_LAYOUT = 1
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS scores (
        number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, entry BLOB NOT NULL
    )
"""
_ENTRY = struct.Struct("<d?")
_CHECKSUM = struct.Struct("<I")
# SQLite takes at most 999 parameters a statement where it is old.
_KEYS_A_QUERY = 500

Entry = tuple[float, bool]  # logit, and whether the pair was truncated
T = TypeVar("T")

_numbers = count(1)


class ScoreCache:
    """Scores by key, the longest unused forgotten first. Safe to share between threads.

    Memory holds about 300 bytes a pair. A file holds about 150, is read where memory has
    nothing, and forgets the oldest first. Several processes may share a file on a local
    disk (SQLite's write-ahead log, which network file systems do not carry). Every entry has
    a checksum; one that fails counts as missing. When the file cannot be used later on, a
    warning is logged once and memory serves alone: a cache never fails a query.

    Args:
        max_pairs: How many scores to keep, in memory and in the file each.
        path: The file, made when there is none; None for memory alone.

    Raises:
        InvalidInputError: ``max_pairs`` is no whole number of at least 1; or the file cannot
            be opened, is damaged, or is something else than a cache of scores. It is never
            overwritten then.
    """

    def __init__(self, max_pairs: int = 100_000, *, path: str | Path | None = None) -> None:
        self.max_pairs = check_count("max_pairs", max_pairs, minimum=1)
        self.path = None if path is None else Path(path).expanduser().absolute()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._file = None if self.path is None else _ScoreFile(self.path, self.max_pairs)

    def __len__(self) -> int:
        """How many scores are in memory."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """An empty cache is a cache."""
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process has the same file and an empty memory."""
        return _remade, (self.max_pairs, self.path)

    def find(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """What is known of each key; None for nothing."""
        entries = self._entries
        with self._lock:
            found = [entries.get(key) for key in keys]
            for key in keys:
                if key in entries:
                    entries.move_to_end(key)
        if self._file is None or None not in found:
            return found
        missing = [key for key, entry in zip(keys, found, strict=True) if entry is None]
        from_file = self._file.find(missing)
        self._remember(from_file)
        return [
            from_file.get(key) if entry is None else entry
            for key, entry in zip(keys, found, strict=True)
        ]

    def keep(self, entries: Mapping[bytes, Entry]) -> None:
        """Adds scores, and forgets what is beyond the bound."""
        self._remember(entries)
        if self._file is not None:
            self._file.keep(entries)

    def _remember(self, entries: Mapping[bytes, Entry]) -> None:
        with self._lock:
            self._entries.update(entries)
            for key in entries:
                self._entries.move_to_end(key)
            while len(self._entries) > self.max_pairs:
                self._entries.popitem(last=False)


def _remade(max_pairs: int, path: Path | None) -> ScoreCache:
    return ScoreCache(max_pairs, path=path)


class _ScoreFile:
    """The SQLite file behind a `ScoreCache`; one connection a process, used under a lock."""

    def __init__(self, path: Path, max_pairs: int) -> None:
        self.path = path
        self._max_pairs = max_pairs
        self._lock = threading.Lock()
        self._warned = False
        self._inherited: list[sqlite3.Connection | None] = []
        self._open()

    def _open(self) -> None:
        import sqlite3

        try:
            self._connection: sqlite3.Connection | None = self._connect()
        except sqlite3.Error as error:
            raise InvalidInputError(
                f"a cache's path must be a cache of scores or a new file, but {str(self.path)!r} "
                f"cannot be used: {error}. Delete it, or name another"
            ) from error
        self._process = os.getpid()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None and self._process == os.getpid():
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA busy_timeout=5000")
            connection.execute("BEGIN IMMEDIATE")
            self._check(connection)
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_LAYOUT}")
            connection.execute("COMMIT")
            # Readers and writers of several processes do not wait for each other; a crash
            # of the machine may lose the last scores, never the file.
            with suppress(sqlite3.OperationalError):  # another process opens it right now
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
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
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

        self._run(write)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What the work gives; None, and a warning once, when the file fails it."""
        import sqlite3

        with self._lock:
            try:
                if self._process != os.getpid():
                    # A connection must neither be used nor closed across a fork.
                    self._inherited.append(self._connection)
                    self._open()
                return None if self._connection is None else work(self._connection)
            except (sqlite3.Error, InvalidInputError) as error:
                # A lock or a full disk may pass; a file that is no database any more does not.
                if not isinstance(error, sqlite3.OperationalError):
                    self._connection = None
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "the score cache %s failed (%s); scores are computed or come from memory",
                        self.path,
                        error,
                    )
                return None


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
    logit, truncated = _ENTRY.unpack(values)
    return (logit, truncated) if math.isfinite(logit) else None


class CachedScorer:
    """A scorer that asks another only for what the cache does not know.

    What decides a score decides the key: the weights, the configuration and the tokenizer
    (the scorer's ``fingerprint()``), its settings (``describe()``), the version of this
    library, ``long_passages``, and both texts to the last character.

    Args:
        scorer: What scores.
        cache: A `ScoreCache`, which several scorers may share; a number of pairs to keep in
            memory; or a file. None for 100,000 pairs in memory.
        identity: Tells this scorer's scores from all others', for scorers that have no
            ``fingerprint()``; a name and version of the weights, say.

    Raises:
        InvalidInputError: ``cache`` is none of these or breaks a rule of `ScoreCache`; or it
            has a file, and nothing tells which weights the scorer has.
    """

    def __init__(
        self,
        scorer: Scorer,
        cache: ScoreCache | int | str | Path | None = None,
        *,
        identity: str | None = None,
    ) -> None:
        if not isinstance(scorer, Scorer):
            raise InvalidInputError(
                f"scorer must follow the Scorer protocol, but got {type(scorer).__name__}"
            )
        self.scorer = scorer
        self.cache = as_cache(cache)
        if identity is None and not hasattr(scorer, "fingerprint"):
            if self.cache.path is not None:
                raise InvalidInputError(
                    "scores outlive the process in a file, so a scorer must say which weights "
                    f"they come from, but {type(scorer).__name__} has no fingerprint(): "
                    "give identity="
                )
            # Two such scorers may differ in what describe() does not tell.
            identity = f"scorer {next(_numbers)} of this process"
        self._identity = identity
        self._base: bytes | None = None

    @property
    def name(self) -> str:
        """The scorer's."""
        return self.scorer.name

    @property
    def first_stage_weight(self) -> float:
        """The scorer's."""
        return self.scorer.first_stage_weight

    def count_tokens(self, text: str) -> int:
        """The scorer's, where it has one."""
        return int(self.scorer.count_tokens(text))  # type: ignore[attr-defined]

    def fingerprint(self) -> str:
        """The scorer's."""
        identity = self._identity
        return self.scorer.fingerprint() if identity is None else identity  # type: ignore[attr-defined]

    def describe(self) -> dict[str, Any]:
        """The scorer's own, and the cache's bound and file."""
        path = self.cache.path
        bounds = {"max_pairs": self.cache.max_pairs, "path": None if path is None else str(path)}
        return {**self.scorer.describe(), "cache": bounds}

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit a pair; a pair that comes twice is scored once."""
        keys = self._keys(pairs, options)
        found = self.cache.find(keys)
        cached = np.asarray([entry is not None for entry in found], dtype=np.bool_)
        entries = [entry for entry in found if entry is not None]
        if len(entries) < len(keys):
            rows = zip(keys, pairs, found, strict=True)
            new = {key: pair for key, pair, entry in rows if entry is None}
            scores = checked(self.scorer.score(list(new.values()), options), len(new))
            values = zip(scores.logits.tolist(), scores.truncated.tolist(), strict=True)
            added = dict(zip(new, values, strict=True))
            self.cache.keep(added)
            known = zip(keys, found, strict=True)
            entries = [added[key] if entry is None else entry for key, entry in known]
        return PairScores(
            np.asarray([logit for logit, _ in entries], dtype=np.float64),
            np.asarray([truncated for _, truncated in entries], dtype=np.bool_),
            cached,
        )

    def _keys(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> list[bytes]:
        """16 bytes of BLAKE2b a pair; lengths stand before texts, so that none run together."""
        if self._base is None:
            self._base = self._settings()
        start = blake2b(self._base, digest_size=16)
        start.update(_field(str(options.long_passages)))
        by_query: dict[str, Any] = {}
        keys = []
        for query, passage in pairs:
            asked = by_query.get(query)
            if asked is None:
                asked = by_query[query] = start.copy()
                asked.update(_field(query))
            digest = asked.copy()
            digest.update(passage.encode("utf-8", "surrogatepass"))
            keys.append(digest.digest())
        return keys

    def _settings(self) -> bytes:
        # The package's lazy imports lead everywhere; an import statement here would follow them.
        version = import_module("rerank_plugins").__version__
        told = [version, self.fingerprint(), self.scorer.describe()]
        return _field(json.dumps(told, sort_keys=True, default=str))


def _field(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw


def as_cache(cache: ScoreCache | int | str | Path | None) -> ScoreCache:
    """A cache from what users give; see `CachedScorer`.

    Raises:
        InvalidInputError: It is none of these.
    """
    if isinstance(cache, ScoreCache):
        return cache
    if cache is None:
        return ScoreCache()
    if isinstance(cache, (str, Path)):
        return ScoreCache(path=cache)
    if isinstance(cache, (int, np.integer)) and not isinstance(cache, bool):
        return ScoreCache(cache)
    raise InvalidInputError(
        "cache must be a ScoreCache, a number of pairs or a file's path, but got "
        f"{type(cache).__name__}"
    )
