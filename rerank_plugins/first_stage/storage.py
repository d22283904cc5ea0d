"""Indexes on disk: written whole or not at all, checked before use, never pickled.

An index is a folder::

    manifest.json        format, kind, settings, versions, and each file's size and SHA-256
    data-<32 hex>/       the files: JSON lines, .npy arrays, faiss's own format

``manifest.json`` names the folder of its files, so replacing that one file replaces the index:
a save writes a new ``data-`` folder, flushes it to the disk, then renames a new manifest over
the old. Whenever the process or the machine stops, the manifest that is there belongs to files
that are whole. Folders that no manifest names are swept by the next save. Saves of one path
wait for each other; a load that meets a save starts again on the new index.

Checksums find damage, not malice: who can write the files can write their checksums too.
Nothing in them is executed, and sizes and names are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import (
    IndexDamagedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexVersionError,
    IndexWriteError,
    InvalidInputError,
    RerankPluginsError,
    StorageError,
)

T = TypeVar("T")

FORMAT: Final = 1
"""Raised by every change that an older version of the library could not read."""

_MANIFEST: Final = "manifest.json"
_NEW_MANIFEST: Final = "manifest.json.new"
_LOCK: Final = ".lock"
_FOLDER: Final = re.compile(r"data-[0-9a-f]{32}")
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Numpy's .npy format, version 1.0, with so short a header.
_ARRAY_STARTS_AT: Final = 128
# A manifest has some kilobytes; what is larger is no manifest, and is not read.
_LARGEST_MANIFEST: Final = 1 << 20
_LIBRARIES: Final = ("numpy", "faiss-cpu", "bm25s", "rank-bm25", "PyStemmer", "stopwordsiso")
# What parsing hostile or broken content raises, here, in numpy and in faiss.
_BROKEN: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # faiss's; RecursionError is one too
    TypeError,
    ValueError,
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
        """A writer for an index inside this one, with names and settings of its own."""
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
            InvalidInputError: A value would not come back as it is; names its position.
        """
        self.file(name, lambda out: out.writelines(map(_line, range(sys.maxsize), values)))


class _Plain:
    """A file by its ``write`` alone.

    Numpy hands a true file to C, where what a full disk cuts off when closing is no error.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.write = out.write


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
            IndexDamagedError: It has another type or shape.
        """
        path, kind = self.path(name), np.dtype(dtype)
        with path.open("rb") as file:
            start = file.read(_ARRAY_STARTS_AT)
        found = (path.stat().st_size - len(start)) // kind.itemsize
        # Compared and not parsed: numpy reads the start of a file as Python source.
        if start != _array_start(kind, found) or length not in (None, found):
            raise IndexDamagedError(
                f"{name} must hold {'' if length is None else f'{length} '}{kind} "
                "in one dimension, but does not"
            )
        return np.memmap(path, dtype=kind, mode="r", offset=_ARRAY_STARTS_AT, shape=(found,))

    def lines(self, name: str) -> Iterator[Any]:
        """The JSON values of a file, one at a time."""
        with self.path(name).open("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def texts(self, name: str, count: int | None = None) -> list[str]:
        """The texts of a file of JSON lines.

        Raises:
            IndexDamagedError: A value is no text, or there are more or fewer than ``count``.
        """
        texts = list(self.lines(name))
        if count not in (None, len(texts)):
            raise IndexDamagedError(f"{name} must hold {count} texts, but holds {len(texts)}")
        if not all(isinstance(text, str) for text in texts):
            raise IndexDamagedError(f"{name} must hold texts alone, but does not")
        return texts


def save(path: str | os.PathLike[str], kind: str, fill: Callable[[Writer], object]) -> None:
    """Writes an index to a folder, in place of the one that may be there.

    At every moment, whatever stops the process or the machine, the folder holds the old index
    whole or the new one whole.

    Args:
        path: The folder. It is made if need be, and may hold nothing but an index.
        kind: What the index is; `load` asks for the same.
        fill: Gives the files and settings to a writer.

    Raises:
        IndexWriteError: The folder holds other things, the disk is full, or the system
            refuses for another reason.
        InvalidInputError: What is to be stored is no JSON.
    """
    from filelock import FileLock

    root = Path(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_target(root)
        with FileLock(root / _LOCK):
            _sweep(root)
            _replace(root, kind, fill)
            _sweep(root)
    except OSError as error:
        raise IndexWriteError(
            f"the index could not be written to {root}: {error}; "
            "if there was one before, it is still there and whole"
        ) from error


def load(path: str | os.PathLike[str], kind: str, make: Callable[[Reader], T]) -> T:
    """Reads an index that `save` wrote, once all of its files are checked.

    Args:
        path: The folder.
        kind: What the index must be.
        make: Builds the object; called again if another process saves meanwhile.

    Raises:
        IndexNotFoundError: There is no index.
        IndexDamagedError: A file is missing, altered, or not what such a file must be.
        IndexVersionError: The format is newer than this library.
        IndexMismatchError: It is an index of another kind.
        StorageError: The system does not let it be read.
    """
    root = Path(path)
    while True:
        raw = _read_manifest(root)
        try:
            folder, settings = _checked(root, raw, kind)
            return make(Reader(folder, settings))
        except (RerankPluginsError, OSError, *_BROKEN) as error:
            if raw != _read_manifest(root):
                continue  # replaced while it was read
            if isinstance(error, RerankPluginsError):
                raise
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise StorageError(f"the index in {root} could not be read: {error}") from error
            raise IndexDamagedError(
                f"the index in {root} is damaged ({type(error).__name__}: {error}): "
                "restore it from a copy, or build it again"
            ) from error


def _replace(root: Path, kind: str, fill: Callable[[Writer], object]) -> None:
    """Writes the files, then the manifest that makes them the index."""
    folder = root / f"data-{uuid.uuid4().hex}"
    fresh = root / _NEW_MANIFEST
    try:
        folder.mkdir()
        settings: dict[str, Any] = {}
        fill(Writer(folder, settings))
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(folder.iterdir())
        }
        _flush(folder)
        with fresh.open("wb") as out:
            out.write(
                _rendered(
                    {
                        "format": FORMAT,
                        "kind": kind,
                        "settings": settings,
                        "versions": _versions(),
                        "folder": folder.name,
                        "files": files,
                    }
                )
            )
            out.flush()
            os.fsync(out.fileno())
        _flush(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # From here on the new files must stay: the rename may be done whatever comes after.
    fresh.replace(root / _MANIFEST)
    _flush(root)
    _flush(root.parent)


def _check_target(root: Path) -> None:
    for entry in root.iterdir():
        if entry.name not in (_MANIFEST, _NEW_MANIFEST, _LOCK) and not _FOLDER.fullmatch(
            entry.name
        ):
            raise IndexWriteError(
                f"a folder for an index may hold nothing else, but {root} has {entry.name!r}: "
                "name a new folder"
            )


def _sweep(root: Path) -> None:
    """Removes the files of replaced indexes and of saves that did not finish."""
    try:
        kept = json.loads(_read_manifest(root))["folder"]
    except IndexNotFoundError:
        kept = None
    except (StorageError, *_BROKEN):
        return  # damaged: nothing is thrown away until a new index is there
    for entry in root.iterdir():
        if _FOLDER.fullmatch(entry.name) and entry.name != kept:
            # Windows keeps files that are mapped; the next save tries again.
            shutil.rmtree(entry, ignore_errors=True)


def _read_manifest(root: Path) -> bytes:
    try:
        with (root / _MANIFEST).open("rb") as file:
            raw = file.read(_LARGEST_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexNotFoundError(f"there is no index in {root}: it has no {_MANIFEST}") from error
    except OSError as error:
        raise StorageError(f"the index in {root} could not be read: {error}") from error
    if len(raw) > _LARGEST_MANIFEST:
        raise IndexDamagedError(
            f"{root / _MANIFEST} must be of at most {_LARGEST_MANIFEST} bytes, but is larger"
        )
    return raw


def _checked(root: Path, raw: bytes, kind: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder and the settings, once manifest and files are what they were when saved."""
    manifest = json.loads(raw)
    if manifest["format"] > FORMAT:
        raise IndexVersionError(
            f"the index in {root} has format {manifest['format']}, and this version of "
            f"rerank-plugins reads up to {FORMAT}: upgrade it"
        )
    said = manifest.pop("sha256")
    if _rendered(manifest) != raw:
        raise IndexDamagedError(
            f"{root / _MANIFEST} was altered: its checksum is not {str(said)[:64]!r}"
        )
    if manifest["kind"] != kind:
        raise IndexMismatchError(
            f"the index in {root} must be of the kind {kind}, but is of {manifest['kind']!r}"
        )
    if not _FOLDER.fullmatch(manifest["folder"]):
        raise IndexDamagedError(f"{manifest['folder']!r} is no name for a folder of an index")
    folder = root / manifest["folder"]
    _check_files(folder, manifest["files"])
    return folder, manifest["settings"]


def _check_files(folder: Path, files: Mapping[str, Any]) -> None:
    if folder.is_symlink():
        raise IndexDamagedError(f"{folder} must be a folder, but is a link")
    # All names and sizes before the first byte is read.
    for name, told in files.items():
        if not _FILE.fullmatch(name):
            raise IndexDamagedError(f"{name!r} is no name for a file of an index")
        found = (folder / name).lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != told["bytes"]:
            raise IndexDamagedError(
                f"{folder / name} must be a file of {told['bytes']} bytes, but has {found.st_size}"
            )
    for name, told in files.items():
        if _sha256(folder / name) != told["sha256"]:
            raise IndexDamagedError(f"{folder / name} was altered: its checksum is another")


def _rendered(manifest: dict[str, Any]) -> bytes:
    """The manifest's bytes, its own checksum among them: one spelling, so any change shows."""
    body = json.dumps(manifest, indent=1, sort_keys=True)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps(manifest | {"sha256": checksum}, indent=1, sort_keys=True).encode()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _array_start(kind: np.dtype[Any], length: int) -> bytes:
    """How a ``.npy`` file of that type and length starts."""
    start = BytesIO()
    told = {"descr": kind.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(start, told)
    return start.getvalue()


def _flush(folder: Path) -> None:
    """Makes the names in a folder outlive a loss of power."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    """Those of Python, this package and the libraries under it, for people who look for causes."""
    installed = {name: _version(name) for name in ("rerank-plugins", *_LIBRARIES)}
    return {
        "python": platform.python_version(),
        **{name: version for name, version in installed.items() if version is not None},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_json(name: str, value: Any) -> None:
    """Checks that a setting will come back as it is.

    Raises:
        InvalidInputError: It would not.
    """
    try:
        _check_json(value)
    except TypeError as error:
        raise InvalidInputError(
            f"{name} must be made of JSON values to be stored, but {error}"
        ) from error


def _line(position: int, value: Any) -> bytes:
    """One JSON value and a line's end."""
    try:
        _check_json(value)
        try:
            return json.dumps(value, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # half of a surrogate pair, which ASCII escapes can carry
            return json.dumps(value).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            "what is stored must be made of dicts with text keys, lists, texts, numbers, "
            f"booleans and None, but number {position} is not: {error}"
        ) from error


def _check_json(value: Any) -> None:
    """Refuses what JSON would give back as something else, or not at all."""
    kind = type(value)
    if kind is dict:
        for name, held in value.items():
            if type(name) is not str:
                raise TypeError(f"the key {name!r} is {type(name).__name__}")
            _check_json(held)
    elif kind is list:
        for held in value:
            _check_json(held)
    elif kind not in (str, int, float, bool, type(None)):
        raise TypeError(f"{str(value)[:100]!r} is {kind.__name__}")
