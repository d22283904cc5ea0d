"""Power lost at any step of a save: the old index or the new one, and the new one once it returned.

Each test of a flush left out shows that the model above would see it missing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from disk import Disk, Step, recorded

from rerank_plugins.errors import IndexNotFoundError, StorageError
from rerank_plugins.first_stage import BM25
from rerank_plugins.first_stage.conformance import PASSAGES
from rerank_plugins.scoring import converted

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"),  # noqa: PTH112
    reason="which file a descriptor is of is read from /proc",
)
OLD, NEW = BM25(PASSAGES[:4], language="en"), BM25(PASSAGES, language="en")


def found(path: Path) -> int:
    """How many passages the index has; 0 where none is, -1 where it is broken."""
    try:
        return len(BM25.load(path))
    except IndexNotFoundError:
        return 0
    except StorageError:
        return -1


def outcomes(
    root: Path, path: Path, lost: Callable[[str], bool] = lambda _: False
) -> tuple[set[int], set[int]]:
    """What is found after power losses during the save, and after it has returned."""
    before = root.with_name("before")
    shutil.copytree(root, before)
    steps: list[Step] = recorded(root, lambda: NEW.save(path), lost)
    shutil.rmtree(root)
    shutil.copytree(before, root)
    disk = Disk(root)
    known: dict[int, int] = {}

    def now() -> set[int]:
        outcomes = set()
        for state in disk.states():
            name = hash(frozenset(state.items()))
            if name not in known:
                disk.write(state)
                known[name] = found(path)
            outcomes.add(known[name])
        return outcomes

    during: set[int] = set()
    for step in steps:
        during |= now()
        disk.apply(step)
    return during, now()


def test_a_kept_conversion_outlives_a_loss_of_power(tmp_path: Path) -> None:
    """At each step nothing or all of it is found; once it is kept, all of it."""
    root = tmp_path / "root"
    root.mkdir()
    places = [root / "some" / "where"]

    def write(file: Path) -> None:
        file.write_bytes(b"<graph/>")
        file.with_suffix(".bin").write_bytes(b"weights")

    steps = recorded(root, lambda: converted.keep(places, "key", write, {"parameters": 3}))
    shutil.rmtree(root)
    root.mkdir()
    disk = Disk(root)
    for step in steps:
        disk.apply(step)
    for state in disk.states():
        disk.write(state)
        found = converted.find(places, "key")
        assert found is not None
        assert (found.folder / "model.bin").read_bytes() == b"weights"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the old index in it."""
    OLD.save(tmp_path / "root" / "index")
    return tmp_path / "root"


def test_power_lost_at_any_step_leaves_the_old_index_or_the_new(saved: Path) -> None:
    """And once the save has returned, the new one for sure."""
    during, after = outcomes(saved, saved / "index")
    assert during == {len(OLD), len(NEW)}
    assert after == {len(NEW)}


def test_a_new_folder_and_its_new_parents_outlive_a_loss_of_power(tmp_path: Path) -> None:
    """At each step there is nothing or the new index; then the new index."""
    (tmp_path / "root").mkdir()
    during, after = outcomes(tmp_path / "root", tmp_path / "root" / "some" / "where" / "index")
    assert during == {0, len(NEW)}
    assert after == {len(NEW)}


@pytest.mark.parametrize(
    ("unflushed", "moment"),
    [
        (r"index/data-\w+/.+", 1),
        (r"index/manifest\.json\.new", 1),
        (r"index/data-\w+", 1),
        (r"index", 1),
        (r"index", 2),
    ],
    ids=["files", "manifest", "folder of files", "folder before", "folder after"],
)
def test_every_flush_is_needed(saved: Path, unflushed: str, moment: int) -> None:
    """Each of them left out, once before the rename or after it, loses an index."""
    times = [0]

    def lost(path: str) -> bool:
        if not re.fullmatch(unflushed, os.path.relpath(path, saved)):
            return False
        times[0] += 1
        return unflushed != "index" or times[0] == moment

    during, after = outcomes(saved, saved / "index", lost)
    assert times[0]
    assert (during, after) != ({len(OLD), len(NEW)}, {len(NEW)})


def test_the_flush_of_a_new_parent_is_needed(tmp_path: Path) -> None:
    """Without it the whole folder may be gone after the save has returned."""
    root = tmp_path / "root"
    root.mkdir()
    path = root / "some" / "index"
    after = outcomes(root, path, lambda flushed: flushed == str(root))[1]
    assert 0 in after
