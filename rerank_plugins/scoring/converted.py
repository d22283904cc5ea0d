"""Keeps converted models on disk: found again by the weights' hash, checked before use.

An entry is a folder, named by its key, with OpenVINO's own two files (``model.xml``, the
graph; ``model.bin``, the weights; no pickle) and ``manifest.json``: their checksums and what
is known of the model. An entry may be facts alone: what was measured of torch's int8. It lies
beside the checkpoint's weights, so that it is moved and deleted with them, or under the user's
cache where that folder cannot be written to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rerank_plugins
from rerank_plugins._files import flush, make_folders

logger = logging.getLogger(__name__)

FOLDER = "rerank-plugins-openvino"
FOLDER_OF_FACTS = "rerank-plugins-torch"
MODEL = "model.xml"
_MANIFEST = "manifest.json"
_FORMAT = 2  # part of every key: entries of older formats are not looked at
_FILES = {MODEL, "model.bin"}
_LARGEST_MANIFEST = 1 << 20  # bytes
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Converted:
    """An entry whose files are what was written.

    Attributes:
        folder: Where it lies.
        facts: What was noted beside the model: JSON types.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def model(self) -> Path:
        """The file that OpenVINO reads; the weights lie beside it."""
        return self.folder / MODEL


def key_of(fingerprint: str, **settings: Any) -> str:
    """Name of the entry for a checkpoint's files and settings of JSON types."""
    told = json.dumps([_FORMAT, fingerprint, settings], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def places(checkpoint: Path, *, model: bool = True) -> list[Path]:
    """Where entries of a checkpoint are looked for and written, the first choice first.

    Nothing is written into this package itself: what an installer put there stays as it is.

    Args:
        checkpoint: Its folder.
        model: Whether the entries hold models for OpenVINO, or facts alone.
    """
    package = Path(rerank_plugins.__file__).parent
    name = FOLDER if model else FOLDER_OF_FACTS
    beside = [] if checkpoint.is_relative_to(package) else [checkpoint / name]
    return [*beside, *_user_cache(name)]


def _user_cache(name: str) -> list[Path]:
    """The user's cache, where there is a user: a container may have neither HOME nor passwd."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(home) if home else Path.home() / ".cache"
    except RuntimeError:
        return []
    return [cache / "rerank-plugins" / name.removeprefix("rerank-plugins-")]


def writable(places: Sequence[Path]) -> bool:
    """Whether an entry could be written in one of the places."""
    return any(_takes_files(place) for place in places)


def _takes_files(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def find(places: Sequence[Path], key: str, *, model: bool = True) -> Converted | None:
    """The entry of that key if it exists and is intact; a damaged one is logged.

    Args:
        places: Where to look, in this order.
        key: Name of the entry.
        model: Whether it holds a model, or facts alone.
    """
    for folder in (place / key for place in places):
        if folder.is_dir() and (facts := _facts_if_whole(folder, model=model)) is not None:
            return Converted(folder, facts)
    return None


def _facts_if_whole(folder: Path, *, model: bool) -> dict[str, Any] | None:
    try:
        facts = _checked(folder, _FILES if model else set())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning(
            "the converted model in %s is damaged and not used: %s: %s",
            folder,
            type(error).__name__,
            error,
        )
        return None
    return facts


def _checked(folder: Path, expected: set[str]) -> dict[str, Any]:
    """The facts of an entry of which every byte is what was written.

    Raises:
        ValueError: Something differs, or is not of its type; or another of the kinds above.
    """
    file = folder / _MANIFEST
    if file.stat().st_size > _LARGEST_MANIFEST:
        raise ValueError(f"the manifest must have at most {_LARGEST_MANIFEST} bytes")
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise TypeError("the manifest must be an object")
    told = manifest.get("checksum")
    manifest = {name: part for name, part in manifest.items() if name != "checksum"}
    if told != _checksum(manifest):
        raise ValueError("the manifest's checksum differs")
    files, facts = manifest["files"], manifest["facts"]
    if not isinstance(files, dict) or set(files) != expected or not isinstance(facts, dict):
        raise ValueError(f"the manifest must tell of {sorted(expected)} and of facts")
    parameters = facts["parameters"]
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise ValueError("the number of parameters must be a whole number of at least 1")
    if any(sha256(folder / name) != checksum for name, checksum in files.items()):
        raise ValueError("a file's checksum differs")
    return facts


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def keep(
    places: Sequence[Path],
    key: str,
    write: Callable[[Path], None] | None,
    facts: dict[str, Any],
) -> Converted | None:
    """Writes an entry, whole or not at all, in the first place that takes it.

    Args:
        places: Folders, made when they are missing.
        key: Name of the entry; one of that name is replaced.
        write: Given a path, writes the model there and the weights beside it; None where
            there are facts alone.
        facts: What to note; JSON types.

    Returns:
        The entry, or None when no place can be written to.
    """
    for place in places:
        if _written(place, key, write, facts):
            return Converted(place / key, facts)
    return None


def _written(
    place: Path, key: str, write: Callable[[Path], None] | None, facts: dict[str, Any]
) -> bool:
    try:
        make_folders(place)
        with tempfile.TemporaryDirectory(dir=place, prefix=".writing-") as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            if write is not None:
                write(new / MODEL)
            checksums = {file.name: sha256(file) for file in sorted(new.iterdir())}
            manifest: dict[str, Any] = {"files": checksums, "facts": facts}
            manifest["checksum"] = _checksum(manifest)
            with (new / _MANIFEST).open("x", encoding="utf-8") as out:
                out.write(json.dumps(manifest, indent=1))
            for path in (*new.iterdir(), new):
                flush(path)
            _put(new, place / key, Path(temporary))
            flush(place)
    except (OSError, RuntimeError) as error:  # OpenVINO tells of a full disk by the latter
        logger.info("no converted model can be kept in %s: %s", place, error)
        return False
    return True


def _put(new: Path, target: Path, aside: Path) -> None:
    """Moves a folder into place and an older one aside; another process may do the same."""
    for attempt in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            target.rename(aside / f"old-{attempt}")
        try:
            new.rename(target)
        except OSError as error:
            # Another process put its own there in between.
            if attempt == _ATTEMPTS - 1 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
