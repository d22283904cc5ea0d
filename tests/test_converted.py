"""Kept conversions: whole or not there, found where they are, never trusted when damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rerank_plugins.scoring import converted

FACTS = {"parameters": 3}


def forged(**changes: object) -> Callable[[Path], object]:
    """Writes a manifest with other content and the checksum that belongs to it."""

    def write(entry: Path) -> None:
        file = entry / "manifest.json"
        manifest = {**json.loads(file.read_text(encoding="utf-8")), **changes}
        del manifest["checksum"]
        manifest["checksum"] = converted._checksum(manifest)
        file.write_text(json.dumps(manifest), encoding="utf-8")

    return write


def edited(entry: Path) -> None:
    """Changes a number in the manifest and nothing else."""
    file = entry / "manifest.json"
    file.write_text(file.read_text(encoding="utf-8").replace('": 3', '": 4'), encoding="utf-8")


def writer(content: str = "weights") -> Callable[[Path], None]:
    """Writes the two files of a model."""

    def write(file: Path) -> None:
        file.write_text("<graph/>", encoding="utf-8")
        file.with_suffix(".bin").write_text(content, encoding="utf-8")

    return write


def test_what_was_kept_is_found_with_its_facts(tmp_path: Path) -> None:
    """In the first place that takes it, under its key alone."""
    places = [tmp_path / "one", tmp_path / "two"]
    kept = converted.keep(places, "key", writer(), {"parameters": 3})
    assert kept is not None
    assert converted.find(places, "key") == kept
    assert kept.facts == {"parameters": 3}
    assert kept.model == tmp_path / "one" / "key" / "model.xml"
    assert converted.find(places, "other") is None
    assert not places[1].exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "model.bin").write_text("weighty"),
        lambda entry: (entry / "model.bin").unlink(),
        lambda entry: (entry / "model.xml").write_text(""),
        lambda entry: (entry / "manifest.json").unlink(),
        lambda entry: (entry / "manifest.json").write_text("{"),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: (entry / "manifest.json").write_text('{"files": {}, "facts": {}}'),
        lambda entry: (entry / "manifest.json").write_bytes(b"\xff"),
        lambda entry: (entry / "manifest.json").write_text('"text"'),
        lambda entry: (entry / "manifest.json").write_text("[" * 100_000),
        lambda entry: (entry / "manifest.json").write_text(" " * (1 << 21)),
        edited,
        forged(facts={}),
        forged(facts={"parameters": "many"}),
        forged(facts={"parameters": True}),
        forged(facts=[]),
        forged(files={}),
        forged(files={"model.xml": "0" * 64}),
        forged(files={"model.xml": "0" * 64, "../secret": "0" * 64}),
    ],
)
def test_a_damaged_entry_is_not_found_and_can_be_replaced(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """A changed, shortened or missing file, and a manifest of every wrong kind."""
    kept = converted.keep([tmp_path], "key", writer(), FACTS)
    assert kept is not None
    damage(kept.folder)
    assert converted.find([tmp_path], "key") is None
    assert str(kept.folder) in caplog.text
    assert converted.keep([tmp_path], "key", writer(), FACTS) is not None
    assert converted.find([tmp_path], "key") == kept


def test_a_manifest_cannot_point_outside_its_entry(tmp_path: Path) -> None:
    """A name with a path in it is looked for inside."""
    kept = converted.keep([tmp_path], "key", writer(), FACTS)
    assert kept is not None
    secret = tmp_path / "secret"
    secret.write_text("x", encoding="utf-8")
    manifest = json.loads((kept.folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["../secret"] = converted.sha256(secret)
    (kept.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert converted.find([tmp_path], "key") is None


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("cannot write")])
def test_a_write_that_fails_leaves_nothing_and_the_next_place_is_tried(
    tmp_path: Path, error: Exception
) -> None:
    """Half a model is never found."""
    tried = []

    def write(file: Path) -> None:
        writer()(file)
        tried.append(file)
        if len(tried) == 1:
            raise error

    places = [tmp_path / "one", tmp_path / "two"]
    kept = converted.keep(places, "key", write, FACTS)
    assert kept is not None
    assert kept.folder.parent == places[1]
    assert list(places[0].iterdir()) == []


def test_a_place_that_is_no_folder_is_passed_over(tmp_path: Path) -> None:
    """A file stands where the folder should be: the case of a folder that takes no files."""
    (tmp_path / "file").touch()
    places = [tmp_path / "file", tmp_path / "two"]
    assert converted.writable(places)
    kept = converted.keep(places, "key", writer(), FACTS)
    assert kept is not None
    assert converted.find(places, "key") == kept
    assert not converted.writable(places[:1])
    assert converted.keep(places[:1], "key", writer(), FACTS) is None


def test_writers_at_the_same_time_leave_a_whole_entry(tmp_path: Path) -> None:
    """Eight processes' worth of conversions end in one that is whole."""
    with ThreadPoolExecutor(8) as threads:
        jobs = [
            threads.submit(converted.keep, [tmp_path], "key", writer(f"weights {number}"), FACTS)
            for number in range(8)
        ]
        assert all(job.result() is not None for job in jobs)
    assert converted.find([tmp_path], "key") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_keys_differ_by_files_and_settings() -> None:
    """The same in, the same out; anything else, another key."""
    keys = [
        converted.key_of("a", precision="fp32"),
        converted.key_of("b", precision="fp32"),
        converted.key_of("a", precision="int8"),
        converted.key_of("a", precision="fp32", versions={"openvino": "1"}),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == converted.key_of("a", precision="fp32")


def test_a_user_without_home_has_no_cache_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers run user ids that have no passwd entry, with HOME unset."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert converted.places(tmp_path) == [tmp_path / converted.FOLDER]
    package = Path(converted.__file__).parent
    assert converted.places(package) == []
    assert not converted.writable([])
