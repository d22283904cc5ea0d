"""Reading an index: nothing before every file of it is checked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import (
    IndexDamagedError,
    IndexMismatchError,
    IndexVersionError,
    RerankPluginsError,
    StorageError,
)
from rerank_plugins.first_stage.storage._manifest import (
    ARRAY_STARTS_AT,
    BROKEN,
    FILE,
    FOLDER,
    FORMAT,
    MANIFEST,
    array_start,
    read_manifest,
    rendered,
    sha256_of,
)

T = TypeVar("T")


class Reader:
    """Gives the files and settings of an index whose files were all checked.

    Attributes:
        settings: What the manifest says.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], prefix: str = "") -> None:
        self.settings = settings
        self._folder = folder
        self._prefix = prefix

    def part(self, name: str) -> Reader:
        """A reader for an index inside this one."""
        return Reader(self._folder, self.settings[name], f"{self._prefix}{name}.")

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / (self._prefix + name)

    def array(self, name: str, dtype: Any, length: int | None = None) -> NDArray[Any]:
        """A one-dimensional array, memory-mapped and read-only.

        Raises:
            IndexDamagedError: If it has another type or shape.
        """
        path, kind = self.path(name), np.dtype(dtype)
        with path.open("rb") as file:
            start = file.read(ARRAY_STARTS_AT)
        found = (path.stat().st_size - len(start)) // kind.itemsize
        # Compared and not parsed: numpy reads the start of a file as Python source.
        if start != array_start(kind, found) or length not in (None, found):
            raise IndexDamagedError(
                f"{name} must hold {'' if length is None else f'{length} '}{kind} "
                "in one dimension, but does not"
            )
        return np.memmap(path, dtype=kind, mode="r", offset=ARRAY_STARTS_AT, shape=(found,))

    def lines(self, name: str) -> Iterator[Any]:
        """The JSON values of a file, one at a time."""
        with self.path(name).open("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def texts(self, name: str, count: int | None = None) -> list[str]:
        """The texts of a file of JSON lines.

        Raises:
            IndexDamagedError: If a value is not text, or there are more or fewer than ``count``.
        """
        texts = list(self.lines(name))
        if count not in (None, len(texts)):
            raise IndexDamagedError(f"{name} must hold {count} texts, but holds {len(texts)}")
        if not all(isinstance(text, str) for text in texts):
            raise IndexDamagedError(f"{name} must hold texts alone, but does not")
        return texts


def load(path: str | os.PathLike[str], kind: str, make: Callable[[Reader], T]) -> T:
    """Reads an index that `save` wrote, once all of its files are checked.

    Args:
        path: The folder.
        kind: What the index must be.
        make: Builds the object; called again if another process saves meanwhile.

    Raises:
        IndexNotFoundError: If there is no index.
        IndexDamagedError: If a file is missing, altered, or not what such a file must be.
        IndexVersionError: Another version of this library wrote another format.
        IndexMismatchError: If it is an index of another kind.
        StorageError: If the system does not let it be read, or has not the memory for it.
    """
    root = Path(path)
    while True:
        raw = read_manifest(root)
        try:
            folder, settings = _checked(root, raw, kind)
            return make(Reader(folder, settings))
        except (RerankPluginsError, OSError, *BROKEN) as error:
            if raw != read_manifest(root):
                continue  # replaced while it was read
            if isinstance(error, RerankPluginsError):
                raise
            if isinstance(error, MemoryError):  # a good index may be too large for this machine
                raise StorageError(f"the index in {root} does not fit into memory") from error
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise StorageError(f"the index in {root} could not be read: {error}") from error
            raise IndexDamagedError(
                f"the index in {root} is damaged ({type(error).__name__}: {error}): "
                "restore it from a copy, or build it again"
            ) from error


def _checked(root: Path, raw: bytes, kind: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder and the settings, once manifest and files are what they were when saved."""
    manifest = json.loads(raw)
    if manifest["format"] < FORMAT:
        raise IndexVersionError(
            f"the index in {root} has format {manifest['format']}, which an older version of "
            f"rerank-plugins wrote; this version reads format {FORMAT}: build it again"
        )
    if manifest["format"] > FORMAT:
        raise IndexVersionError(
            f"the index in {root} has format {manifest['format']}, and this version of "
            f"rerank-plugins reads up to {FORMAT}: upgrade it"
        )
    said = manifest.pop("sha256")
    if rendered(manifest) != raw:
        raise IndexDamagedError(
            f"{root / MANIFEST} was altered: its checksum is not {str(said)[:64]!r}"
        )
    if manifest["kind"] != kind:
        raise IndexMismatchError(
            f"the index in {root} must be of the kind {kind}, but is of {manifest['kind']!r}"
        )
    if not FOLDER.fullmatch(manifest["folder"]):
        raise IndexDamagedError(f"{manifest['folder']!r} is not a valid folder name of an index")
    folder = root / manifest["folder"]
    _check_files(folder, manifest["files"])
    return folder, manifest["settings"]


def _check_files(folder: Path, files: Mapping[str, Any]) -> None:
    if folder.is_symlink():
        raise IndexDamagedError(f"{folder} must be a folder, but is a link")
    # All names and sizes before the first byte is read.
    for name, told in files.items():
        if not FILE.fullmatch(name):
            raise IndexDamagedError(f"{name!r} is not a valid file name of an index")
        found = (folder / name).lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != told["bytes"]:
            raise IndexDamagedError(
                f"{folder / name} must be a file of {told['bytes']} bytes, but has {found.st_size}"
            )
    for name, told in files.items():
        if sha256_of(folder / name) != told["sha256"]:
            raise IndexDamagedError(f"{folder / name} was altered: its checksum is another")
