"""What an index on disk consists of, and the manifest that says so."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from functools import cache
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from rerank_plugins.errors import (
    IndexDamagedError,
    IndexNotFoundError,
    InvalidInputError,
    StorageError,
)

FORMAT: Final = 2
"""Raised by every change that an older version of the library could not read."""

MANIFEST: Final = "manifest.json"
NEW_MANIFEST: Final = "manifest.json.new"
LOCK: Final = ".lock"
FOLDER: Final = re.compile(r"data-[0-9a-f]{32}")
FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Numpy's .npy format, version 1.0, with so short a header.
ARRAY_STARTS_AT: Final = 128
# A manifest has a few kilobytes; a larger file is not a manifest and is not read.
_LARGEST_MANIFEST: Final = 1 << 20
_LIBRARIES: Final = ("numpy", "faiss-cpu", "rank-bm25", "PyStemmer", "snowballstemmer", "regex")
# What parsing hostile or broken content raises, here, in numpy and in faiss.
BROKEN: Final = (
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


def read_manifest(root: Path) -> bytes:
    try:
        with (root / MANIFEST).open("rb") as file:
            raw = file.read(_LARGEST_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexNotFoundError(f"no index in {root}: {MANIFEST} is missing") from error
    except OSError as error:
        raise StorageError(f"the index in {root} could not be read: {error}") from error
    if len(raw) > _LARGEST_MANIFEST:
        raise IndexDamagedError(
            f"{root / MANIFEST} must be of at most {_LARGEST_MANIFEST} bytes, but is larger"
        )
    return raw


def rendered(manifest: dict[str, Any]) -> bytes:
    """The manifest's bytes, its own checksum among them: one spelling, so any change shows."""
    body = json.dumps(manifest, indent=1, sort_keys=True)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps(manifest | {"sha256": checksum}, indent=1, sort_keys=True).encode()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def array_start(kind: np.dtype[Any], length: int) -> bytes:
    """How a ``.npy`` file of that type and length starts."""
    start = BytesIO()
    told = {"descr": kind.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(start, told)
    return start.getvalue()


def versions() -> dict[str, str]:
    """Those of Python, this package and the libraries under it, for people who look for causes."""
    installed = {name: _version(name) for name in ("rerank-plugins", *_LIBRARIES)}
    return {
        "python": platform.python_version(),
        **{name: version for name, version in installed.items() if version is not None},
    }


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_json(name: str, value: Any) -> None:
    """Checks that a setting will come back as it is.

    Raises:
        InvalidInputError: If it would not.
    """
    try:
        _check_json(value)
    except TypeError as error:
        raise InvalidInputError(
            f"{name} must be made of JSON values to be stored, but {error}"
        ) from error


def line(position: int, value: Any) -> bytes:
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
