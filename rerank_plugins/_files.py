"""Files and folders that outlive a loss of power, and are nobody else's."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def flush(path: Path) -> None:
    """Puts a file's content, or the names in a folder, on the disk."""
    if os.name == "nt" and path.is_dir():  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, made: list[Path] | None = None) -> None:
    """Makes a folder and its parents, each known to the disk.

    Args:
        folder: May be there already.
        made: Takes those that were missing, parents first.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        if made is not None:
            made.append(one)
        flush(one.parent)


def make_file(path: Path) -> None:
    """Makes an empty file where none is, and never writes through a link.

    A name that others can guess, in a folder where they may write, could be a link of theirs to
    a file of ours.

    Raises:
        OSError: If the path is a link, or the file can neither be made nor opened.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(path, flags, 0o644))
    except FileExistsError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from None
