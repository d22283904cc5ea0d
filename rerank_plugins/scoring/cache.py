"""A bounded cache of scores: in memory, on disk too when it is given a file."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer, checked, no_spans
from rerank_plugins.scoring.score_file import Entry, ScoreFile

_numbers = count(1)

# Reading a passage takes longer than all else about a kept score, and a corpus's passages come
# again as the same objects. These bounds hold some 10 MB of usual passages, 70 MB at the worst.
_PASSAGES = 8192
_SHORT = 4096  # characters


class ScoreCache:
    """Scores by key, the longest unused forgotten first. Safe to share between threads.

    Memory holds about 320 bytes per pair. A file holds about 120, is read where memory has
    nothing, and forgets the oldest first. Several processes may share a file on a local
    disk (SQLite's write-ahead log, which network file systems do not carry). Every entry has
    a checksum; one that fails counts as missing. When the file cannot be used later on, a
    warning is logged once and memory serves alone: a cache never fails a query.

    Args:
        max_pairs: How many scores to keep, in memory and in the file each.
        path: The file, created if missing; None to cache in memory only.

    Raises:
        InvalidInputError: ``max_pairs`` is not a whole number of at least 1; or the file cannot
            be opened, is damaged, or is something else than a cache of scores. It is never
            overwritten then.
    """

    def __init__(self, max_pairs: int = 100_000, *, path: str | Path | None = None) -> None:
        self.max_pairs = check_count("max_pairs", max_pairs, minimum=1)
        self.path = None if path is None else Path(path).expanduser().absolute()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._lock = fork_safe_lock()
        self._file = None if self.path is None else ScoreFile(self.path, self.max_pairs)

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
            for key, entry in zip(keys, found, strict=True):
                if entry is not None:
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
        InvalidInputError: ``cache`` is something else, or invalid for `ScoreCache`; or it
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

    @property
    def keeps_deadlines(self) -> bool:
        """As the scorer does."""
        return bool(getattr(self.scorer, "keeps_deadlines", False))

    def warm_up(self) -> None:
        """The scorer's, where it has one."""
        warm_up = getattr(self.scorer, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit per pair; a pair that comes twice is scored once."""
        keys = self._keys(pairs, options)
        found = self.cache.find(keys)
        cached = np.asarray([entry is not None for entry in found], dtype=np.bool_)
        known = {key: entry for key, entry in zip(keys, found, strict=True) if entry is not None}
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        left_out = set[bytes]()
        if new:
            scores = checked(self.scorer.score(list(new.values()), options), len(new))
            spans = no_spans(len(new)) if scores.spans is None else scores.spans
            values = zip(
                scores.logits.tolist(), scores.truncated.tolist(), *spans.T.tolist(), strict=True
            )
            scored, whole = _of(scores.scored, len(new)), _of(scores.whole, len(new))
            lasting = {}
            for key, entry, there, all_read in zip(new, values, scored, whole, strict=True):
                known[key] = entry
                if not there:
                    left_out.add(key)
                elif all_read:  # what a limit of this call cut short holds for this call alone
                    lasting[key] = entry
            self.cache.keep(lasting)
        entries = [known[key] for key in keys]
        return PairScores(
            np.asarray([entry[0] for entry in entries], dtype=np.float64),
            np.asarray([entry[1] for entry in entries], dtype=np.bool_),
            cached,
            np.asarray([entry[2:] for entry in entries], dtype=np.int64).reshape(-1, 2),
            scored=np.asarray([key not in left_out for key in keys], dtype=np.bool_),
        )

    def _keys(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> list[bytes]:
        """32 bytes per pair: BLAKE2b of settings and query, and of the passage."""
        if self._base is None:
            self._base = self._settings()
        how = options.long_passages
        # The number of windows changes what `best` reads; None may stand for it.
        windows = options.windows if how in (None, "best") else None
        start = self._base + _field(f"{how} {windows}")
        asked = {query: _digest(start + _bytes(query)) for query in {pair[0] for pair in pairs}}
        return [
            asked[query]
            + (_passage_digest(passage) if len(passage) <= _SHORT else _digest(_bytes(passage)))
            for query, passage in pairs
        ]

    def _settings(self) -> bytes:
        # The package's lazy imports lead everywhere; an import statement here would follow them.
        version = import_module("rerank_plugins").__version__
        told = [version, self.fingerprint(), self.scorer.describe()]
        return _field(json.dumps(told, sort_keys=True, default=str))


def _of(mask: NDArray[np.bool_] | None, pairs: int) -> NDArray[np.bool_]:
    return np.ones(pairs, dtype=np.bool_) if mask is None else mask


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


@lru_cache(_PASSAGES)
def _passage_digest(passage: str) -> bytes:
    return _digest(_bytes(passage))


def _bytes(text: str) -> bytes:
    """UTF-8; half of a surrogate pair has bytes too, which takes a slower codec."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _field(text: str) -> bytes:
    raw = _bytes(text)
    return len(raw).to_bytes(8, "little") + raw


def as_cache(cache: ScoreCache | int | str | Path | None) -> ScoreCache:
    """A cache from what users give; see `CachedScorer`.

    Raises:
        InvalidInputError: If it is something else.
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
