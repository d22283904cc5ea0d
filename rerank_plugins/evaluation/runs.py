"""Runs on disk: one line per query, kept as soon as it is known: an interrupt loses nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.data import QuestionSet
from rerank_plugins.scoring.cache import CachedScorer

_FORMAT: Final = 1
_PLAIN = (str, int, float, bool, type(None))
_LONGEST_LIST: Final = 64
# Where results and downloads are kept; no answer depends on it.
_PLACES: Final = frozenset({"cache", "cache_folder"})


class RunFile:
    """What one system answered, by query id; a file of JSON lines when there is a folder.

    The file's name ends in a digest of the settings, so a run with other settings is another
    file and an old one is never taken for it. An unfinished last line is dropped.

    Args:
        folder: Where runs are kept; None for memory alone.
        name: Begins the file's name.
        settings: Everything that the answers depend on, as `settings_of` gives it.

    Raises:
        InvalidInputError: If the file exists and is not a run.
        OSError: If the folder cannot be made, or the file cannot be read.
    """

    def __init__(self, folder: str | Path | None, name: str, settings: Any) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.path: Path | None = None
        if folder is None:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60]
        self.path = folder / f"{slug}-{digest([_FORMAT, settings])}.jsonl"
        if self.path.exists():
            self._read(self.path)
        else:
            _write_whole(self.path, json.dumps({"run": name, "settings": settings}) + "\n")

    def _read(self, path: Path) -> None:
        content = path.read_text(encoding="utf-8", errors="replace")
        whole, _, unfinished = content.rpartition("\n")
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            self.answers = {record["query"]: record for record in records[1:]}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path} is not a run of this library ({error}): delete it to start again"
            ) from error
        if unfinished:
            _write_whole(path, whole + "\n")

    def missing(self, asked: Mapping[str, str]) -> list[str]:
        """The queries without an answer to just what is asked: their text, their candidates."""
        return [
            query
            for query, digest_of_it in asked.items()
            if self.answers.get(query, {}).get("asked") != digest_of_it
        ]

    def add(self, query: str, answer: Mapping[str, Any]) -> None:
        """Keeps an answer; on disk too before this returns."""
        self.answers[query] = {"query": query, **answer}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.answers[query]) + "\n")


def digest(value: Any) -> str:
    """Of a value's JSON: 64 bits of SHA-256, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def data_digest(data: QuestionSet) -> str:
    """Changes with any passage: what a first stage indexes."""
    known = hashlib.sha256()
    for passage, text in data.corpus.items():
        known.update(json.dumps([passage, text]).encode())
    return known.hexdigest()


def settings_of(thing: Any, depth: int = 4) -> Any:
    """What can be told of an object's settings, as JSON has it.

    Its class, its plain attributes (and plain ones of its attributes' objects), and of every
    local folder that one of them names the files' sizes and times, so that new weights under
    an old name are seen. Caches of scores change no answer and do not count. Long lists
    (indexed texts) and functions' insides are not looked at: give a system another name when
    only those change.
    """
    if isinstance(thing, CachedScorer):
        thing = thing.scorer
    if isinstance(thing, Path):
        thing = str(thing)
    if isinstance(thing, _PLAIN):
        folder = _folder(thing)
        return thing if folder is None else [thing, _files(folder)]
    is_code = isinstance(thing, type) or hasattr(thing, "__qualname__")
    kind = thing if is_code else type(thing)
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
    if depth == 0 or is_code:
        return name
    if isinstance(thing, Mapping):
        return _of_mapping(thing, name, depth)
    if isinstance(thing, (list, tuple, set, frozenset)):
        parts = [] if len(thing) > _LONGEST_LIST else list(thing)
        # Sets have no order: sorted, they give the same digest in every process.
        listed = sorted((settings_of(part, depth - 1) for part in parts), key=json.dumps)
        ordered = [settings_of(part, depth - 1) for part in parts]
        return [len(thing), *(listed if isinstance(thing, (set, frozenset)) else ordered)]
    return {"class": name, **_of_mapping(_attributes(thing), name, depth)}


def _of_mapping(mapping: Mapping[Any, Any], name: str, depth: int) -> dict[str, Any]:
    if len(mapping) > _LONGEST_LIST:
        return {name: len(mapping)}
    return {
        str(key): settings_of(value, depth - 1)
        for key, value in mapping.items()
        if key not in _PLACES
    }


def _attributes(thing: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(thing):
        return {one.name: getattr(thing, one.name) for one in dataclasses.fields(thing)}
    # Hidden attributes hold caches and states more often than settings: only plain numbers,
    # texts and records of settings count among them.
    return {
        key: value
        for key, value in getattr(thing, "__dict__", {}).items()
        if not key.startswith("_")
        or (isinstance(value, (str, int, float)) and not isinstance(value, bool))
        or dataclasses.is_dataclass(value)
    }


def _folder(name: object) -> Path | None:
    """The local folder that a text names, if it does."""
    try:
        path = Path(name) if isinstance(name, str) else None
        return path if path is not None and path.is_absolute() and path.is_dir() else None
    except (OSError, ValueError):
        return None


def _files(folder: Path) -> list[list[Any]]:
    return [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]


def _write_whole(path: Path, content: str) -> None:
    """The file with that content, or as it was: never a part of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
