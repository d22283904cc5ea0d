"""The folder of Parquet files: each written atomically, and only by one call at a time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from rerank_plugins.errors import InvalidInputError

_SETTINGS: Final = b"rerank_plugins"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a lock that the system releases when the process ends, however it ends."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InvalidInputError(
            f"only one call at a time can write to a folder, but another is writing to {folder}"
        ) from error


def write(table: pa.Table, folder: Path, settings: str) -> Path:
    """Writes one Parquet file atomically."""
    path = folder / f"part-{uuid.uuid4().hex}.parquet"
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(
            table.replace_schema_metadata({_SETTINGS: settings}), file, write_page_checksum=True
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name != "nt":  # Windows cannot open a folder to sync the rename
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return path


def done_in(folder: Path, settings: str) -> Iterator[str]:
    """Ids of the queries in the folder; deletes files that a crash left incomplete."""
    for leftover in folder.glob(".part-*.tmp"):
        leftover.unlink()
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["query_id"], page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(
                f"{path} must be a Parquet file of rerank_dataset, but cannot be read ({error}); "
                "delete it and its queries are reranked again"
            ) from error
        written = (table.schema.metadata or {}).get(_SETTINGS, b"{}").decode()
        if written != settings:
            raise InvalidInputError(
                f"a folder holds results of one reranker: {path} was written with {written}, but "
                f"this call has {settings}; use another folder"
            )
        yield from table.column("query_id").to_pylist()
