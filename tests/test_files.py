"""Files of predictable names: nobody writes through a link that another planted there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_plugins import ScoreCache
from rerank_plugins._files import make_file, make_folders
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.vector_file import VectorFile

OPENERS: dict[str, Callable[[Path], object]] = {
    "scores": lambda path: ScoreCache(path=path),
    "vectors": VectorFile,
}


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("victim", ["an empty file", "nothing"])
def test_a_planted_link_is_neither_followed_nor_replaced(
    tmp_path: Path, kind: str, victim: str
) -> None:
    """An empty file would become a database, and a missing one would be made."""
    target, path = tmp_path / "victim", tmp_path / "cache.sqlite"
    if victim == "an empty file":
        target.touch()
    path.symlink_to(target)
    with pytest.raises(InvalidInputError, match="link"):
        OPENERS[kind](path)
    assert path.is_symlink()
    assert not target.exists() or not target.stat().st_size


@pytest.mark.parametrize("kind", OPENERS)
def test_a_link_on_the_way_is_the_user_s_own(tmp_path: Path, kind: str) -> None:
    """Only the last name could be guessed and planted in a folder of the user's."""
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    OPENERS[kind](tmp_path / "linked" / "cache.sqlite")
    assert (tmp_path / "real" / "cache.sqlite").stat().st_size


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """Opened again and again."""
    path = tmp_path / "file"
    make_file(path)
    path.write_bytes(b"content")
    make_file(path)
    assert path.read_bytes() == b"content"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_new_file_is_its_owner_s_to_write(tmp_path: Path) -> None:
    """Whatever the mask allows, others may read at most."""
    before = os.umask(0)
    try:
        make_file(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_folders_that_are_made_are_told_parents_first(tmp_path: Path) -> None:
    """Those that were there are not among them."""
    made: list[Path] = []
    make_folders(tmp_path / "a" / "b", made)
    assert made == [tmp_path / "a", tmp_path / "a" / "b"]
    make_folders(tmp_path / "a" / "b", made)
    assert len(made) == 2
