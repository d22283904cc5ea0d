"""Keeps converted models on disk: found again by the weights' hash, checked before use.

An entry is a folder, named by its key, with OpenVINO's own two files (``model.xml``, the
graph; ``model.bin``, the weights; no pickle) and ``manifest.json``: their checksums and what
is known of the model. It lies beside the checkpoint's weights, so that it is moved and deleted
with them, or under the user's cache where that folder cannot be written to.
"""

from __future__ import annotations

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

logger = logging.getLogger(__name__)

FOLDER = "rerank-plugins-openvino"
MODEL = "model.xml"
_MANIFEST = "manifest.json"
_FORMAT = 1
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


def places(checkpoint: Path) -> list[Path]:
    """Where entries of a checkpoint are looked for and written, the first choice first.

    Nothing is written into this package itself: what an installer put there stays as it is.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    user = Path(home) / "rerank-plugins" / "openvino"
    package = Path(rerank_plugins.__file__).parent
    return [user] if checkpoint.is_relative_to(package) else [checkpoint / FOLDER, user]


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


def find(places: Sequence[Path], key: str) -> Converted | None:
    """The entry of that key if it exists and is intact; a damaged one is logged."""
    for folder in (place / key for place in places):
        if folder.is_dir() and (facts := _facts_if_whole(folder)) is not None:
            return Converted(folder, facts)
    return None


def _facts_if_whole(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        checksums, facts = dict(manifest["files"]), dict(manifest["facts"])
        found = {name: sha256(folder / Path(name).name) for name in checksums}
        problem = "" if MODEL in found and found == checksums else "a checksum differs"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.warning("the converted model in %s is damaged and not used: %s", folder, problem)
        return None
    return facts


def keep(
    places: Sequence[Path], key: str, write: Callable[[Path], None], facts: dict[str, Any]
) -> Converted | None:
    """Writes an entry, whole or not at all, in the first place that takes it.

    Args:
        places: Folders, made when they are missing.
        key: Name of the entry; one of that name is replaced.
        write: Given a path, writes the model there and the weights beside it.
        facts: What to note; JSON types.

    Returns:
        The entry, or None when no place can be written to.
    """
    for place in places:
        if _written(place, key, write, facts):
            return Converted(place / key, facts)
    return None


def _written(place: Path, key: str, write: Callable[[Path], None], facts: dict[str, Any]) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".writing-") as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            write(new / MODEL)
            checksums = {file.name: sha256(file) for file in sorted(new.iterdir())}
            manifest = json.dumps({"files": checksums, "facts": facts}, indent=1)
            (new / _MANIFEST).write_text(manifest, encoding="utf-8")
            _put(new, place / key, Path(temporary))
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
        except OSError:
            if attempt == _ATTEMPTS - 1 or not target.exists():
                raise
        else:
            return
