"""The score cache: what it may answer, what it must not, and what a file may do to it."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import AnsweringScorer, TableScorer
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Reranker, load_reranker
from rerank_plugins.errors import InvalidInputError, NonFiniteScoreError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import score_file
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer
from rerank_plugins.scoring.cache import CachedScorer, ScoreCache
from rerank_plugins.testing import OverlapScorer, ScorerConformance

OPTIONS = ScoreOptions()
PAIRS = [("museum hours", "The museum opens at nine."), ("museum hours", "A ferry."), ("q", "")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a cache may be kept."""
    return tmp_path / "scores.sqlite"


def cached(file: Path | None = None, identity: str = "one", **bounds: int) -> CachedScorer:
    """A cache over a fake that counts what it is asked."""
    return CachedScorer(OverlapScorer(), ScoreCache(path=file, **bounds), identity=identity)


def asked(scorer: CachedScorer, pairs: Sequence[tuple[str, str]] = PAIRS, **how: Any) -> int:
    """How many pairs the scorer behind the cache has to score."""
    before = scorer.scorer.pairs_seen
    scorer.score(pairs, ScoreOptions(**how))
    return scorer.scorer.pairs_seen - before


class TestCachedScorer(ScorerConformance):
    """A cache is a scorer like any other, empty or full, in memory or on disk."""

    @pytest.fixture(params=["memory", "file", "full", "tiny"])
    def scorer(self, request: pytest.FixtureRequest, file: Path) -> Scorer:
        """Over the fake."""
        scorer = cached(
            file if request.param == "file" else None,
            max_pairs=2 if request.param == "tiny" else 100,
        )
        if request.param == "full":
            scorer.score(self._pairs(), OPTIONS)
        return scorer


class TestCachedLocalScorer(ScorerConformance):
    """Over a real model, the second time round."""

    @pytest.fixture
    def scorer(self, tiny_checkpoints: Mapping[str, Path]) -> Scorer:
        """On a tiny checkpoint."""
        return CachedScorer(load_scorer(tiny_checkpoints["camembert"], device="cpu"))


# What is answered.


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_was_scored_is_not_scored_again(file: Path, *, on_disk: bool) -> None:
    """The same logits to the last bit, the truncation mark, and the mark that they were kept."""
    table = {"a": 1 / 3, "b": -1e-300, "c": 1e300}
    scorer = CachedScorer(
        TableScorer(table, truncated=["b"]),
        ScoreCache(path=file if on_disk else None),
        identity="table",
    )
    pairs = [("q", text) for text in "abc"]
    first, second = scorer.score(pairs, OPTIONS), scorer.score(pairs[::-1], OPTIONS)
    assert first.cached.tolist() == [False] * 3
    assert second.cached.tolist() == [True] * 3
    assert second.logits.tolist() == [1e300, -1e-300, 1 / 3]
    assert second.truncated.tolist() == [False, True, False]
    assert len(scorer.scorer.calls) == 1


def test_only_what_is_missing_is_scored_and_the_same_pair_once() -> None:
    """In the order of the call, whichever is known."""
    scorer = CachedScorer(TableScorer({"a": 1.0, "b": 2.0, "c": 3.0}))
    scorer.score([("q", "b")], OPTIONS)
    found = scorer.score([("q", text) for text in "cabca"], OPTIONS)
    assert scorer.scorer.calls[1][0] == [("q", "c"), ("q", "a")]
    assert found.logits.tolist() == [3.0, 1.0, 2.0, 3.0, 1.0]
    assert found.cached.tolist() == [False, False, True, False, False]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("xyz"), st.text(max_size=3)), max_size=8), max_size=6
    ),
    st.integers(1, 6),
)
def test_with_a_cache_as_without(calls: list[list[tuple[str, str]]], bound: int) -> None:
    """Whatever was asked before, and however little the cache may keep."""
    scorer = cached(max_pairs=bound)
    for pairs in calls:
        np.testing.assert_array_equal(
            scorer.score(pairs, OPTIONS).logits, OverlapScorer().score(pairs, OPTIONS).logits
        )
        assert len(scorer.cache) <= bound


@settings(max_examples=15)
@given(st.lists(st.lists(st.sampled_from(ALL_PASSAGES), max_size=6), min_size=1, max_size=4))
def test_a_real_model_ranks_with_a_cache_as_without(
    tiny_checkpoints: Mapping[str, Path], lists: list[list[str]]
) -> None:
    """Query after query, the same order and scores."""
    folder = tiny_checkpoints["bge"]
    plain = load_reranker(folder, device="cpu", scale="logit")
    kept = load_reranker(folder, device="cpu", scale="logit", cache=50)
    for passages in [*lists, *lists]:
        expected = plain.rerank(QUESTIONS["ar"], passages)
        found = kept.rerank(QUESTIONS["ar"], passages)
        assert found.scores == pytest.approx(expected.scores, abs=1e-4)
        by_key = {item.candidate.key: item.score for item in expected}
        assert all(
            item.score == pytest.approx(by_key[item.candidate.key], abs=1e-4) for item in found
        )


def test_the_longest_unused_is_forgotten_first() -> None:
    """Use counts, not age."""
    scorer = cached(max_pairs=2)
    a, b, c = (("q", text) for text in "abc")
    for pair in (a, b, a, c):
        scorer.score([pair], OPTIONS)
    assert asked(scorer, [a]) == 0
    assert asked(scorer, [b]) == 1


def test_more_pairs_in_one_call_than_the_cache_holds_are_all_answered() -> None:
    """The bound is on what is kept, not on what can be asked."""
    scorer = cached(max_pairs=3)
    pairs = [("museum", f"museum {number}") for number in range(10)]
    assert len(np.unique(scorer.score(pairs, OPTIONS).logits)) == 1
    assert len(scorer.cache) == 3


# What must not be answered.


@pytest.mark.parametrize(
    "other",
    [
        ("museum hours ", "The museum opens at nine."),
        ("museum hours", "The museum opens at nine. "),
        ("museum", " hoursThe museum opens at nine."),
        ("museum hoursT", "he museum opens at nine."),
        ("", "museum hoursThe museum opens at nine."),
        ("The museum opens at nine.", "museum hours"),
        ("museum hours", "The museum opens at nine.\ud800"),
        ("museum hours", "THE MUSEUM OPENS AT NINE."),
    ],
)
def test_texts_that_differ_at_all_are_different_pairs(other: tuple[str, str]) -> None:
    """One space, the border between the two, the letters' case."""
    scorer = cached()
    scorer.score(PAIRS[:1], OPTIONS)
    assert asked(scorer, [other]) == 1


@pytest.mark.parametrize("length", [4095, 4096, 4097, 100_000])
def test_long_passages_that_differ_in_one_letter_are_different_pairs(length: int) -> None:
    """The shorter ones' digests are kept, the longer ones' are made each time."""
    scorer = cached()
    passages = [letter + "\u0628" * (length - 2) + other for letter, other in ("xy", "xz", "zy")]
    pairs = [("q", passage) for passage in passages]
    assert asked(scorer, pairs) == 3
    assert asked(scorer, pairs) == 0


def test_windows_are_part_of_the_key_and_batches_are_not() -> None:
    """What changes a score, and what does not."""
    scorer = cached()
    assert asked(scorer) == 3
    assert asked(scorer, long_passages="max") == 3
    assert asked(scorer, long_passages="mean") == 3
    assert asked(scorer, batch_tokens=7) == 0


def test_scorers_that_share_a_cache_do_not_share_scores() -> None:
    """Two fakes of one name, of which nobody can tell whether they are the same."""
    cache = ScoreCache()
    one = CachedScorer(TableScorer({"a": 1.0}), cache)
    other = CachedScorer(TableScorer({"a": 2.0}), cache)
    assert one.score([("q", "a")], OPTIONS).logits.tolist() == [1.0]
    assert other.score([("q", "a")], OPTIONS).logits.tolist() == [2.0]


class Described(OverlapScorer):
    """A scorer that says what it is told to say."""

    def __init__(self, weights: str = "w", **settings: Any) -> None:
        super().__init__()
        self.weights, self.settings = weights, settings

    def fingerprint(self) -> str:
        """Of its weights."""
        return self.weights

    def describe(self) -> dict[str, Any]:
        """Its settings."""
        return self.settings


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": "v"},
        {"max_length": 128},
        {"precision": "int8"},
        {"engine": "openvino"},
        {"device": "cuda"},
        {"model": "another"},
    ],
)
def test_other_weights_or_settings_are_other_scores(file: Path, changed: dict[str, Any]) -> None:
    """In one file, one process after the other."""
    base = {"max_length": 512, "precision": "fp32", "engine": "torch", "model": "m"}
    first = CachedScorer(Described(**base), file)
    assert asked(first) == 3
    assert asked(CachedScorer(Described(**base), file)) == 0
    assert asked(CachedScorer(Described(**(base | changed)), file)) == 3


def test_another_version_of_the_library_starts_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release may encode pairs another way."""
    assert asked(CachedScorer(Described(), file)) == 3
    monkeypatch.setattr("rerank_plugins.__version__", "999.0.0")
    assert asked(CachedScorer(Described(), file)) == 3


def test_a_checkpoint_that_was_trained_on_is_another_checkpoint(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """One byte of weights, tokenizer or configuration; the name and place are the same."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoints["camembert"], folder)
    before = load_scorer(folder, device="cpu").fingerprint()
    assert load_scorer(folder, device="cpu").fingerprint() == before
    assert load_scorer(tiny_checkpoints["camembert"], device="cpu").fingerprint() == before
    (folder / "notes.md").write_text("no part of the model")
    assert load_scorer(folder, device="cpu").fingerprint() == before
    seen = {before}
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        raw = (folder / name).read_bytes()
        # A byte that leaves the file readable: white space in JSON, the last weight.
        changed = raw + b"\n" if name.endswith("json") else raw[:-1] + bytes([raw[-1] ^ 1])
        (folder / name).write_bytes(changed)
        seen.add(load_scorer(folder, device="cpu").fingerprint())
    assert len(seen) == 4


def test_a_failed_or_unusable_score_is_not_kept() -> None:
    """The next call asks again."""
    scorer = cached()
    scorer.scorer.error = RuntimeError("down")
    with pytest.raises(RuntimeError, match="down"):
        scorer.score(PAIRS, OPTIONS)
    scorer.scorer.error = None
    assert asked(scorer) == 3
    with pytest.raises(NonFiniteScoreError):
        CachedScorer(AnsweringScorer(np.asarray([np.nan]))).score(PAIRS[:1], OPTIONS)


# The file.


def test_a_file_serves_the_next_process(file: Path) -> None:
    """The very scores, in another interpreter, with the file's bound in `describe`."""
    first = cached(file).score(PAIRS, OPTIONS)
    code = f"""
import json
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.cache import CachedScorer, ScoreCache
from rerank_plugins.testing import OverlapScorer
scorer = CachedScorer(OverlapScorer(), {str(file)!r}, identity="one")
found = scorer.score({PAIRS!r}, ScoreOptions())
print(json.dumps([found.logits.tolist(), found.cached.tolist(), scorer.scorer.pairs_seen]))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [first.logits.tolist(), [True] * 3, 0]


def test_several_processes_share_a_file(file: Path) -> None:
    """Four write at once, from the moment there is no file; none fails, all is kept."""
    code = """
import sys, logging
logging.basicConfig(level=logging.WARNING)
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.cache import CachedScorer
from rerank_plugins.testing import OverlapScorer
scorer = CachedScorer(OverlapScorer(), sys.argv[1], identity="one")
for number in range(25):
    scorer.score([("q", f"{sys.argv[2]} {number}"), ("q", f"shared {number}")], ScoreOptions())
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file), str(name)], stderr=subprocess.PIPE, text=True
        )
        for name in range(4)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    pairs = [("q", f"{name} {number}") for name in [*range(4), "shared"] for number in range(25)]
    assert asked(cached(file), pairs) == 0


def test_the_file_keeps_to_its_bound(file: Path) -> None:
    """The oldest go; the newest stay, rewritten ones too."""
    scorer = cached(file, max_pairs=10)
    pairs = [("q", str(number)) for number in range(100)]
    for start in range(0, 100, 7):
        scorer.score(pairs[start : start + 7], OPTIONS)
    del scorer
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM scores").fetchone()[0] <= 10
    connection.close()
    assert asked(cached(file), pairs[95:]) == 0
    assert asked(cached(file), pairs[:20]) == 20


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
        lambda entry: bytes([entry[0] ^ 1]) + entry[1:],
        lambda entry: entry[:8] + b"\x01" + entry[9:],
        lambda entry: entry[:-1],
        lambda entry: b"",
        lambda entry: "text",
        lambda entry: 1.5,
    ],
    ids=["checksum", "logit", "mark", "cut", "empty", "text", "number"],
)
def test_a_spoilt_entry_is_scored_again_and_mended(file: Path, spoil: Any) -> None:
    """Whatever is wrong with it; the others stay good."""
    expected = cached(file).score(PAIRS, OPTIONS).logits
    connection = sqlite3.connect(file)
    number, entry = connection.execute("SELECT number, entry FROM scores LIMIT 1").fetchone()
    connection.execute("UPDATE scores SET entry=? WHERE number=?", (spoil(entry), number))
    connection.commit()
    connection.close()
    scorer = cached(file)
    np.testing.assert_array_equal(scorer.score(PAIRS, OPTIONS).logits, expected)
    assert scorer.scorer.pairs_seen == 1
    assert asked(cached(file)) == 0


def test_an_entry_under_another_key_is_not_believed(file: Path) -> None:
    """The checksum holds the key as well: two rows that changed places are both missing."""
    cached(file).score(PAIRS[:2], OPTIONS)
    connection = sqlite3.connect(file)
    (a, one), (b, two) = connection.execute("SELECT number, entry FROM scores").fetchall()
    connection.execute("UPDATE scores SET entry=? WHERE number=?", (two, a))
    connection.execute("UPDATE scores SET entry=? WHERE number=?", (one, b))
    connection.commit()
    connection.close()
    assert asked(cached(file), PAIRS[:2]) == 2


def foreign(file: Path) -> None:
    """Another program's database."""
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE scores (key, entry)")
    connection.commit()
    connection.close()


def newer(file: Path) -> None:
    """A cache of a layout to come."""
    cached(file)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version=99")
    connection.close()


def halved(file: Path) -> None:
    """A cache of which the end is missing."""
    cached(file).score([("q", str(number)) for number in range(2000)], OPTIONS)
    sqlite3.connect(file).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])


def scrambled(file: Path) -> None:
    """A cache with a page of noise in it."""
    cached(file).score([("q", str(number)) for number in range(2000)], OPTIONS)
    sqlite3.connect(file).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = file.read_bytes()
    file.write_bytes(raw[:8192] + b"\xa5" * 8192 + raw[16384:])


@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.write_text("my notes, by no means to be lost " * 100),
        lambda file: file.mkdir(),
        foreign,
        newer,
        halved,
        scrambled,
    ],
    ids=["text", "folder", "foreign", "newer", "halved", "scrambled"],
)
def test_a_file_that_is_no_whole_cache_is_named_and_left_as_it_was(file: Path, make: Any) -> None:
    """Said when the cache is made; nobody's data are overwritten."""
    make(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(InvalidInputError, match=r"a cache.s (path|file) must") as raised:
        ScoreCache(path=file)
    assert str(file) in str(raised.value)
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Nothing is made where nobody asked for it."""
    with pytest.raises(InvalidInputError, match="cannot be used"):
        ScoreCache(path=tmp_path / "missing" / "scores.sqlite")


def test_an_empty_file_becomes_a_cache(file: Path) -> None:
    """As `tempfile` makes them."""
    file.touch()
    assert asked(cached(file)) == 3
    assert asked(cached(file)) == 0


def test_a_file_that_breaks_later_fails_no_query(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; the scores come from the model and from memory."""
    scorer = cached(file)
    scorer.score(PAIRS[:1], OPTIONS)
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE scores")
    connection.commit()
    connection.close()
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        assert asked(scorer) == 2
        assert asked(scorer) == 0
        assert asked(scorer, [("q", "more")]) == 1
    assert len(caplog.records) == 1
    assert str(file) in caplog.text


def test_a_file_that_another_process_holds_fails_no_query(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be written now is written another time."""
    scorer = cached(file)
    scorer.cache._file._connection.execute("PRAGMA busy_timeout=1")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        assert asked(scorer) == 3
        assert asked(scorer) == 0
    assert "locked" in caplog.text
    holder.execute("ROLLBACK")
    holder.close()
    scorer.cache._file._alone_until = 0.0  # the while for which it is left alone
    assert asked(scorer, [("q", "later")]) == 1
    assert asked(cached(file), [("q", "later")]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_uses_a_connection_of_its_own(file: Path) -> None:
    """As servers do that load first and fork then; both write, and both find it."""
    scorer = cached(file)
    scorer.score(PAIRS[:1], OPTIONS)
    child = os.fork()
    if child == 0:
        try:
            scorer.score(PAIRS[1:2], OPTIONS)
            os._exit(0 if scorer.cache._file._process == os.getpid() else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asked(scorer, PAIRS[2:]) == 1
    assert asked(cached(file)) == 0


# Threads, copies, options.


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_share_a_cache(file: Path, *, on_disk: bool) -> None:
    """Sixteen at once, over a bound that keeps everything moving; every score is right."""
    scorer = cached(file if on_disk else None, max_pairs=20)
    start = threading.Barrier(16)

    def call(number: int) -> None:
        start.wait()
        for turn in range(10):
            pairs = [("a b c", f"a {'b ' * ((number + turn + at) % 30)}") for at in range(12)]
            np.testing.assert_array_equal(
                scorer.score(pairs, OPTIONS).logits, OverlapScorer().score(pairs, OPTIONS).logits
            )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(16)))
    assert len(scorer.cache) <= 20


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_keeps_the_file_and_forgets_the_memory(file: Path, copied: Any) -> None:
    """Locks and connections do not travel; settings do."""
    cache = ScoreCache(7, path=file)
    other = copied(cache)
    assert (other.max_pairs, other.path, len(other)) == (7, file, 0)
    scorer = cached()
    scorer.score(PAIRS, OPTIONS)
    assert asked(copied(scorer)) == 3


def test_a_reranker_takes_a_cache_in_every_form(
    tiny_checkpoints: Mapping[str, Path], file: Path
) -> None:
    """A number, a file as text or path, or a cache that others use too."""
    folder = tiny_checkpoints["bge"]
    shared = ScoreCache()
    for form in (100, str(file), file, shared):
        reranker = load_reranker(folder, device="cpu", cache=form)
        assert isinstance(reranker.scorer, CachedScorer)
        json.dumps(reranker.describe())
    assert load_reranker(folder, device="cpu", cache=shared).scorer.cache is shared
    passages = ["The museum opens at nine.", "A ferry."]
    load_reranker(folder, device="cpu", cache=shared).rerank("When?", passages)
    assert len(shared) == 2
    other = load_reranker(folder, device="cpu", cache=shared, max_length=8)
    other.rerank("When?", passages)
    assert len(shared) == 4


def test_nothing_is_loaded_before_the_first_query(tiny_checkpoints: Mapping[str, Path]) -> None:
    """A cache does not make start-up slow."""
    reranker = load_reranker(tiny_checkpoints["bge"], device="cpu", cache=10)
    assert reranker.scorer.scorer._ready is None
    assert reranker.scorer.count_tokens("word") >= 1


@pytest.mark.parametrize("bad", [True, 0, -1, 1.5, b"bytes", ["a"]])
def test_what_is_no_cache_is_refused(bad: Any) -> None:
    """When the reranker is made."""
    with pytest.raises(InvalidInputError, match=r"cache must be|max_pairs must be"):
        Reranker(OverlapScorer(), cache=bad)


def test_a_file_needs_to_know_whose_scores_they_are(file: Path) -> None:
    """A name alone would serve last month's weights; in memory no harm can come of it."""
    with pytest.raises(InvalidInputError, match="OverlapScorer has no fingerprint"):
        Reranker(OverlapScorer(), cache=file)
    Reranker(CachedScorer(OverlapScorer(), file, identity="overlap 1"))
    Reranker(OverlapScorer(), cache=10)


def test_what_cannot_score_cannot_be_cached() -> None:
    """The rule and the type are in the message."""
    with pytest.raises(InvalidInputError, match="Scorer protocol, but got str"):
        CachedScorer("bundled")


def test_the_scorer_s_own_words_come_through() -> None:
    """Name, blend, and an error of the scorer behind."""
    scorer = CachedScorer(OverlapScorer("mine", first_stage_weight=0.3))
    assert (scorer.name, scorer.first_stage_weight) == ("mine", 0.3)
    assert scorer.describe()["cache"] == {"max_pairs": 100_000, "path": None}
    assert isinstance(scorer.score([], OPTIONS), PairScores)


def test_a_locked_file_is_left_alone_for_a_growing_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query in a while tries it; the others do without at once, and at the end it serves."""
    clock = 1000.0
    monkeypatch.setattr(score_file, "monotonic", lambda: clock)
    cache = ScoreCache(10, path=tmp_path / "scores.sqlite")
    blocker = sqlite3.connect(tmp_path / "scores.sqlite", isolation_level=None)
    blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    tried: list[float] = []
    run = cache._file._connection

    class Counted:
        """Notes when the file was tried."""

        def execute(self, *arguments: object) -> object:
            """Notes when."""
            tried.append(clock)
            return run.execute(*arguments)

        def close(self) -> None:
            """The connection's own."""
            run.close()

    cache._file._connection = Counted()
    for _ in range(100):
        assert cache.find([b"key"]) == [None]
        clock += 0.5
    pauses = [b - a for a, b in pairwise(tried)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    blocker.close()
    clock += 1000
    cache._file._connection = run
    cache._file.keep({b"key": (1.0, False, 0, 3)})
    assert cache.find([b"key"]) == [(1.0, False, 0, 3)]


def test_callers_of_a_slow_file_do_not_queue_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits for it, the others have their answer without it."""
    monkeypatch.setattr(score_file, "_PATIENCE", 0.01)
    cache = ScoreCache(10, path=tmp_path / "scores.sqlite")
    cache._file.keep({b"key": (1.0, False, 0, 3)})
    with cache._file._lock:
        assert cache.find([b"key"]) == [None]
    assert cache.find([b"key"]) == [(1.0, False, 0, 3)]
