"""Writing an index: whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from rerank_plugins._files import flush, make_folders
from rerank_plugins.errors import IndexNotFoundError, IndexWriteError, StorageError
from rerank_plugins.first_stage.storage._manifest import (
    BROKEN,
    FOLDER,
    FORMAT,
    LOCK,
    MANIFEST,
    NEW_MANIFEST,
    line,
    read_manifest,
    rendered,
    sha256_of,
    versions,
)


class Writer:
    """Takes the files and settings of an index that is being saved.

    Attributes:
        settings: Goes into the manifest as it is: JSON values.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], prefix: str = "") -> None:
        self.settings = settings
        self._folder = folder
        self._prefix = prefix

    def part(self, name: str) -> Writer:
        """A writer for an index inside this one, with its own names and settings."""
        settings: dict[str, Any] = {}
        self.settings[name] = settings
        return Writer(self._folder, settings, f"{self._prefix}{name}.")

    def file(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """A file with what ``write`` writes."""
        with (self._folder / (self._prefix + name)).open("xb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())

    def array(self, name: str, values: NDArray[Any]) -> None:
        """A ``.npy`` file; never of objects, which would be pickled."""
        self.file(
            name,
            lambda out: np.lib.format.write_array(_Plain(out), values, allow_pickle=False),
        )

    def lines(self, name: str, values: Iterable[Any]) -> None:
        """A file of one JSON value a line.

        Raises:
            InvalidInputError: If a value would not come back as it is; names its position.
        """
        self.file(name, lambda out: out.writelines(map(line, range(sys.maxsize), values)))


class _Plain:
    """A file by its ``write`` alone.

    Numpy hands a true file to C, where a full disk at closing goes unreported.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.write = out.write


def save(path: str | os.PathLike[str], kind: str, fill: Callable[[Writer], object]) -> None:
    """Writes an index to a folder, in place of the one that may be there.

    At every moment, whatever stops the process or the machine, the folder holds the old index
    whole or the new one whole.

    Args:
        path: The folder. It is made if need be, and may hold nothing but an index.
        kind: What the index is; `load` asks for the same.
        fill: Gives the files and settings to a writer.

    Raises:
        IndexWriteError: If the folder holds other things, the disk is full, or the system
            refuses for another reason.
        InvalidInputError: If metadata is not JSON-serializable.
    """
    root = Path(path)
    made: list[Path] = []
    try:
        _check_target(root)
        make_folders(root, made)
        with _locked(root):
            try:
                _sweep(root)
                _replace(root, kind, fill)
                _sweep(root)
            except BaseException:
                _withdraw(root, made)
                raise
    except OSError as error:
        raise IndexWriteError(
            f"the index could not be written to {root}: {error}; "
            "if there was one before, it is still there and whole"
        ) from error


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Held by one save at a time, in all processes."""
    while True:
        with FileLock(root / LOCK):
            if (root / LOCK).exists():  # not withdrawn by the save that held it before
                yield
                return


def _withdraw(root: Path, made: Sequence[Path]) -> None:
    """Leaves nothing of a save that failed where no index was before."""
    if (root / MANIFEST).exists():
        return
    with suppress(OSError):
        (root / LOCK).unlink()
        for folder in reversed(made):
            folder.rmdir()


def _replace(root: Path, kind: str, fill: Callable[[Writer], object]) -> None:
    """Writes the files, then the manifest that makes them the index."""
    folder = root / f"data-{uuid.uuid4().hex}"
    fresh = root / NEW_MANIFEST
    try:
        folder.mkdir()
        settings: dict[str, Any] = {}
        fill(Writer(folder, settings))
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in sorted(folder.iterdir())
        }
        flush(folder)
        # Left by a save that was killed, or a link planted for us to write through: "x" follows
        # none.
        fresh.unlink(missing_ok=True)
        with fresh.open("xb") as out:
            out.write(
                rendered(
                    {
                        "format": FORMAT,
                        "kind": kind,
                        "settings": settings,
                        "versions": versions(),
                        "folder": folder.name,
                        "files": files,
                    }
                )
            )
            out.flush()
            os.fsync(out.fileno())
        flush(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    # From here on the new files must stay: the rename may be done whatever comes after.
    fresh.replace(root / MANIFEST)
    flush(root)
    flush(root.parent)


def _check_target(root: Path) -> None:
    for entry in root.iterdir() if root.exists() else ():
        if entry.name not in (MANIFEST, NEW_MANIFEST, LOCK) and not FOLDER.fullmatch(entry.name):
            raise IndexWriteError(
                f"a folder for an index may hold nothing else, but {root} has {entry.name!r}: "
                "name a new folder"
            )


def _sweep(root: Path) -> None:
    """Removes the files of replaced indexes and of saves that did not finish."""
    try:
        kept = json.loads(read_manifest(root))["folder"]
    except IndexNotFoundError:
        kept = None
    except (StorageError, *BROKEN):
        return  # damaged: nothing is thrown away until a new index is there
    for entry in root.iterdir():
        if FOLDER.fullmatch(entry.name) and entry.name != kept:
            # Windows keeps files that are mapped; the next save tries again.
            shutil.rmtree(entry, ignore_errors=True)
