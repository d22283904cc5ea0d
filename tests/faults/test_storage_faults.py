"""Storage when things go wrong: killed, full, refused, shared, damaged and forged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rerank_plugins
from rerank_plugins.errors import (
    IndexDamagedError,
    IndexNotFoundError,
    IndexVersionError,
    IndexWriteError,
    InvalidInputError,
    RerankPluginsError,
    StorageError,
)
from rerank_plugins.first_stage import BM25, Dense, Hybrid, _dense_segments, storage
from rerank_plugins.first_stage.conformance import PASSAGES, QUERY

HERE = Path(__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="forks, and sends signals")


def embed(texts: list[str]) -> Any:
    """Vectors that the text alone decides."""
    return np.asarray([np.random.default_rng(len(text)).normal(size=4) for text in texts])


def trial(name: str, folder: Path, count: int = 1) -> dict[str, Any]:
    """What the trial of that name, in a separate process, found."""
    done = subprocess.run(
        [sys.executable, HERE / "storage_trials.py", name, folder, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(rerank_plugins.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@posix
def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    """Fifty kills at random moments of a save: whole every time, and nothing saved is lost."""
    found = trial("killed", tmp_path, 50)
    assert found["lost"] == 0
    assert found["swept"]
    assert found["advanced"] > 0


@posix
def test_a_full_disk_leaves_the_old_index(tmp_path: Path) -> None:
    """Wherever writing stops, the error is ours, the old index whole, the rest cleared away."""
    found = trial("full", tmp_path, 25)
    assert found == {"tries": 25, "refused": 25, "wrong": 0, "then": 1}


@posix
def test_a_folder_that_cannot_be_written_is_read_all_the_same() -> None:
    """Saving there is an error, loading is not."""
    # Not tmp_path, whose parents only their owner may enter.
    folder = Path(tempfile.mkdtemp())
    try:
        found = trial("read_only", folder)
    finally:
        shutil.rmtree(folder)
    assert all("ermission denied" in message for message in found["messages"])
    assert found["still"] == 0


@posix
def test_processes_that_save_one_path_take_turns(tmp_path: Path) -> None:
    """Every load meanwhile gets one of the indexes whole, and the last save stays."""
    found = trial("together", tmp_path, 10)
    assert found["wrong"] == 0
    assert found["loads"] > 0
    assert found["last"]
    assert found["folders"] == 1


def test_an_error_of_any_system_call_leaves_one_whole_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fsync, rename, open and mkdir of a save fails once: the old is there, or the new."""
    old, new = BM25(PASSAGES[:5]), BM25(PASSAGES)
    sizes = {len(old), len(new)}
    targets = [(os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "mkdir")]
    failures = 0
    for owner, name in targets:
        for failing in range(30):
            old.save(tmp_path / "index")
            call = FailingCall(getattr(owner, name), failing)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, lambda *a, call=call, **k: call(*a, **k))
                try:
                    new.save(tmp_path / "index")
                except StorageError:
                    failures += 1
            assert len(BM25.load(tmp_path / "index")) in sizes
            if call.calls <= failing:
                break
        else:
            pytest.fail(f"a save calls {name} more than 30 times")
    assert failures >= 15


class FailingCall:
    """A function whose call of that number fails as on a full disk."""

    def __init__(self, real: Callable[..., Any], failing: int) -> None:
        self.real = real
        self.failing = failing
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The real call, or the failure."""
        self.calls += 1
        if self.calls == self.failing + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real(*args, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid of words and vectors, with every kind of file."""
    path = tmp_path_factory.mktemp("saved") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dense_segments, "GRAPH_FROM", 0)
        stages = [BM25(PASSAGES), Dense(PASSAGES, embed=embed, index="hnsw")]
    stages[1].remove([3])
    stages[0].remove([3])
    Hybrid(stages).save(path)
    return path


def load(path: Path) -> Hybrid:
    """The index of ``saved``."""
    return Hybrid.load(path, embed=embed)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "index"))


def data(path: Path) -> list[Path]:
    """The files that the manifest names."""
    return sorted(file for folder in path.glob("data-*") for file in folder.iterdir())


def damaged(file: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Contents that differ from the file's: bytes changed, cut off, added."""
    generator = np.random.default_rng(len(content))
    some = {0, len(content) // 2, len(content) - 1, *generator.integers(0, len(content), 12)}
    everywhere = range(len(content)) if file.name == "manifest.json" else sorted(some)
    for at in everywhere:
        bit = 1 << int(generator.integers(8))
        yield f"bit at {at}", content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    yield "cut by one", content[:-1]
    yield "cut in half", content[: len(content) // 2]
    yield "emptied", b""
    yield "longer by one", content + b"\n"


def refused(path: Path) -> bool:
    """Whether loading is one of our errors; any other comes out."""
    try:
        load(path)
    except StorageError:
        return True
    return False


def test_a_changed_byte_in_any_file_is_found(copy: Path) -> None:
    """Every byte of the manifest and many of every other file: only our errors come out."""
    files = [copy / "manifest.json", *data(copy)]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        for what, changed in damaged(file, content):
            file.write_bytes(changed)
            assert refused(copy), f"{file.name}: {what}"
        file.write_bytes(content)
    load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    """Each file, the folder of them, and the manifest."""
    for file in data(copy):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(IndexDamagedError, match=file.name):
            load(copy)
        file.write_bytes(content)
    shutil.rmtree(next(copy.glob("data-*")))
    with pytest.raises(IndexDamagedError):
        load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(IndexNotFoundError):
        load(copy)


@pytest.mark.parametrize("made", ["nothing", "a file", "a folder"])
def test_where_no_index_is_that_is_said(made: str, tmp_path: Path) -> None:
    """A path that is not there, a file, an empty folder."""
    path = tmp_path / "index"
    if made == "a file":
        path.write_text("text")
    elif made == "a folder":
        path.mkdir()
    with pytest.raises(IndexNotFoundError, match="no index"):
        load(path)


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    """Nothing of the user's is overwritten or swept away; nor is a file."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(IndexWriteError, match=r"thesis\.txt"):
        BM25(PASSAGES).save(tmp_path)
    with pytest.raises(IndexWriteError):
        BM25(PASSAGES).save(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("made", ["nothing", "an empty folder"])
def test_a_refused_save_leaves_nothing_behind(tmp_path: Path, made: str) -> None:
    """Neither the folder nor its new parents, and no lock; a folder that was there stays."""

    class Foreign(BM25):
        pass

    path = tmp_path / "some" / "where" / "index"
    if made == "an empty folder":
        path.mkdir(parents=True)
    with pytest.raises(InvalidInputError):
        Hybrid([Foreign(PASSAGES)]).save(path)
    if made == "nothing":
        assert list(tmp_path.iterdir()) == []
    else:
        assert list(path.iterdir()) == []
    Hybrid([BM25(PASSAGES)]).save(path)
    assert len(Hybrid.load(path)) == len(PASSAGES)
    with pytest.raises(InvalidInputError):
        Hybrid([Foreign(PASSAGES[:3])]).save(path)
    assert len(Hybrid.load(path)) == len(PASSAGES)


@posix
@pytest.mark.parametrize("name", ["manifest.json.new", ".lock"])
def test_a_planted_link_is_not_written_through(tmp_path: Path, name: str) -> None:
    """Whoever may write into the folder cannot have us write elsewhere."""
    precious = tmp_path / "thesis.txt"
    precious.write_text("mine")
    path = tmp_path / "index"
    path.mkdir()
    (path / name).symlink_to(precious)
    with contextlib.suppress(IndexWriteError):
        BM25(PASSAGES).save(path)
        assert len(BM25.load(path)) == len(PASSAGES)
    assert precious.read_text() == "mine"


def forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest and gives it a checksum that fits."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    del manifest["sha256"]
    change(manifest)
    (path / "manifest.json").write_bytes(storage.rendered(manifest))


def test_an_older_format_is_named(copy: Path) -> None:
    """Building the index again is the way out, and the message says so."""
    forge(copy, lambda manifest: manifest.update(format=storage.FORMAT - 1))
    with pytest.raises(IndexVersionError, match=r"older version.*build it again"):
        load(copy)


def test_a_newer_format_is_named(copy: Path) -> None:
    """Upgrading is the way out, and the message says so."""
    forge(copy, lambda manifest: manifest.update(format=storage.FORMAT + 1))
    with pytest.raises(IndexVersionError, match="upgrade"):
        load(copy)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "..", ".", "a/../../secret", "a\\b", "", "\0", ".hidden"]
)
def test_names_that_leave_the_folder_are_refused(copy: Path, name: str, tmp_path: Path) -> None:
    """As files of the manifest, and as its folder: nothing outside is opened."""
    (tmp_path / "secret").write_text("{}")
    told = {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    folder = json.loads((copy / "manifest.json").read_bytes())["folder"]
    forge(copy, lambda manifest: manifest["files"].update({name: told}))
    with pytest.raises(IndexDamagedError, match="is not a valid file name"):
        load(copy)
    forge(copy, lambda manifest: manifest["files"].pop(name))
    forge(copy, lambda manifest: manifest.update(folder=name))
    with pytest.raises(IndexDamagedError, match="is not a valid folder name"):
        load(copy)
    forge(copy, lambda manifest: manifest.update(folder=folder))
    load(copy)


@posix
def test_links_are_refused(copy: Path, tmp_path: Path) -> None:
    """A file or a folder of an index that leads elsewhere, and a pipe that would block."""
    file = data(copy)[0]
    content = file.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(content)
    file.unlink()
    file.symlink_to(elsewhere)
    with pytest.raises(IndexDamagedError):
        load(copy)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(IndexDamagedError):
        load(copy)
    file.unlink()
    file.write_bytes(content)
    load(copy)
    folder = next(copy.glob("data-*"))
    folder.rename(tmp_path / folder.name)
    folder.symlink_to(tmp_path / folder.name)
    with pytest.raises(IndexDamagedError, match="is a link"):
        load(copy)


def test_a_huge_manifest_is_not_read(copy: Path) -> None:
    """One of a terabyte (of holes) is refused by its first megabyte."""
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(IndexDamagedError, match="larger"):
        load(copy)


def test_a_size_that_is_a_lie_is_found_before_reading(copy: Path) -> None:
    """A file that became a terabyte (of holes) is refused by its size."""
    with data(copy)[0].open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(IndexDamagedError, match="must be a file of"):
        load(copy)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"{}", b"1", b'{"format": "1"}', b'{"format": 2}', b"[" * 100_000, b"\xff"],
)
def test_a_manifest_of_another_shape_is_refused(copy: Path, content: bytes) -> None:
    """Any JSON, and no JSON."""
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(IndexDamagedError):
        load(copy)


def test_forged_files_give_our_errors_or_an_index(tmp_path: Path) -> None:
    """Files changed with checksums that fit, as an attacker could: nothing else comes out.

    Of faiss's own file this is not promised.
    """
    path = tmp_path / "index"
    generator = np.random.default_rng(0)
    for engine in ("rank-bm25", "bm25s"):
        BM25([*PASSAGES, "more"], engine=engine).save(path)
        for file in data(path):
            content = file.read_bytes()
            for _ in range(25):
                changed = bytearray(content)
                for at in generator.integers(0, len(content), int(generator.integers(1, 4))):
                    changed[at] = int(generator.integers(256))
                file.write_bytes(changed)
                digest = hashlib.sha256(changed).hexdigest()
                forge(path, lambda m, d=digest, n=file.name: m["files"][n].update(sha256=d))
                try:
                    stage = BM25.load(path)
                    stage.search(QUERY, 5)
                    stage.add(["again"])
                    stage.remove([1])
                    stage.search(QUERY, 5)
                except RerankPluginsError:
                    pass
            file.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            forge(path, lambda m, d=digest, n=file.name: m["files"][n].update(sha256=d))


def test_a_load_that_meets_a_save_starts_again(tmp_path: Path) -> None:
    """The index is replaced, its files gone, between the manifest and the files."""
    path = tmp_path / "index"
    BM25(PASSAGES[:3]).save(path)
    seen = []

    def make(part: storage.Reader) -> BM25:
        seen.append(part.path("texts.jsonl"))
        if len(seen) == 1:
            BM25(PASSAGES).save(path)
        return BM25.restore(part)

    assert len(storage.load(path, "BM25", make)) == len(PASSAGES)
    assert len(seen) == 2
    assert not seen[0].exists()
