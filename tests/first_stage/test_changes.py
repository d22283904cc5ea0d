"""Stages that change: at every moment they are what an index built anew would be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from first_stage_tools import embed_words
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rerank_plugins.first_stage import BM25, Dense, Hybrid, _dense_segments, _merging, _postings

WORDS = tuple("abcdefgh")
TEXT = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
QUERIES = ("a b c", "h", "d d e", "f g a h")
LONG = os.environ.get("RERANK_PLUGINS_LONG_TESTS") == "1"  # 3,000 steps for each stage


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments merge, graphs are built and postings are moved in parts with few passages too."""
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


SMALL = (
    (_merging, "SMALL", 3),
    (_postings, "_BUILT_TOGETHER", 5),
    (_postings, "_MOVED_TOGETHER", 7),
    (_dense_segments, "GRAPH_FROM", 12),
    (_dense_segments, "_BESIDE", 6),
)


def bm25(texts: Any = (), **options: Any) -> BM25:
    """Over words as they stand."""
    return BM25(texts, analyzer=str.split, **options)


def dense(texts: Any = (), **options: Any) -> Dense:
    """Over words' vectors."""
    return Dense(texts, embed=embed_words, **options)


def hybrid(texts: Any = ()) -> Hybrid:
    """Both."""
    listed = list(texts)
    return Hybrid([bm25(listed), dense(listed)])


STAGES: dict[str, tuple[Callable[..., Any], float]] = {
    "bm25": (bm25, 1e-9),
    "rank-bm25": (lambda texts=(): bm25(texts, engine="rank-bm25"), 1e-9),
    "dense": (dense, 1e-9),
    "l2": (lambda texts=(): dense(texts, metric="l2"), 1e-9),
    "hybrid": (hybrid, 1e-5),  # mean and deviation of cosines are sums in float32
}


def same_as_fresh(stage: Any, texts: dict[int, str], make: Callable[..., Any], near: float) -> None:
    """What it finds is what a stage over these texts alone finds, ties included."""
    keys = sorted(texts)
    fresh = make([texts[key] for key in keys])
    assert stage.keys == keys
    for query in QUERIES:
        found, wanted = (one.search(query, len(keys) + 1) for one in (stage, fresh))
        if near == 1e-9:
            assert [c.key for c in found] == [keys[c.key] for c in wanted]
            assert [c.score for c in found] == pytest.approx([c.score for c in wanted], abs=near)
        else:
            scores = {keys[c.key]: c.score for c in wanted}
            assert {c.key: c.score for c in found} == pytest.approx(scores, abs=near)


class Changes(RuleBasedStateMachine):
    """Additions, replacements, removals, saves, copies, in any order."""

    make: Callable[..., Any]
    near: float

    @initialize(texts=st.lists(TEXT, max_size=20))
    def built(self, texts: list[str]) -> None:
        """Starts with some."""
        self.texts = dict(enumerate(texts))
        self.stage = self.make(texts)
        self.given = len(texts)

    @rule(texts=st.lists(TEXT, min_size=1, max_size=8))
    def add(self, texts: list[str]) -> None:
        """Some more."""
        keys = self.stage.add(texts)
        assert keys == list(range(self.given, self.given + len(texts)))
        self.given += len(texts)
        self.texts.update(zip(keys, texts, strict=True))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Some fewer."""
        if self.texts:
            gone = data.draw(st.lists(st.sampled_from(sorted(self.texts)), unique=True))
            self.stage.remove(gone)
            for key in gone:
                del self.texts[key]

    @rule(data=st.data(), text=TEXT)
    def replace(self, data: st.DataObject, text: str) -> None:
        """One for another."""
        if self.texts:
            gone = data.draw(st.sampled_from(sorted(self.texts)))
            self.stage.remove([gone])
            del self.texts[gone]
            self.add([text])

    @invariant()
    def as_new(self) -> None:
        """It is what a new one would be."""
        if hasattr(self, "stage"):
            same_as_fresh(self.stage, self.texts, type(self).make, self.near)


@pytest.mark.parametrize("name", STAGES)
def test_any_changes_leave_what_an_index_built_anew_would_be(name: str) -> None:
    """Scores to 1e-9, order and ties, for every stage; segments are made, merged, cleared."""
    make, near = STAGES[name]

    class Machine(Changes):
        pass

    Machine.make, Machine.near = staticmethod(make), near
    case = Machine.TestCase
    examples, steps = (30, 100) if LONG else (25, 15)
    case.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    case().runTest()


def random_changes(stage: Any, texts: dict[int, str], count: int, seed: int) -> None:
    """That many additions, replacements and removals, noted in ``texts``."""
    choose = random.Random(seed)
    for number in range(count):
        kind = choose.choice(("add", "replace", "remove")) if texts else "add"
        if kind != "add":
            gone = choose.choice(sorted(texts))
            stage.remove([gone])
            del texts[gone]
        if kind != "remove":
            text = " ".join(choose.choices(WORDS, k=choose.randrange(7))) + f" n{number % 5}"
            texts[stage.add([text])[0]] = text


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_readers_beside_a_writer_meet_no_half_change(name: str) -> None:
    """Four readers; every answer is ordered, of passages that were there; then all is as new."""
    make, near = STAGES[name]
    stage = make(["a b", "c d", "fixed a h"])
    texts = {0: "a b", 1: "c d"}
    done = threading.Event()

    def read(_: int) -> int:
        count = 0
        while not done.is_set() or not count:
            view = stage.view
            found = view.search("a b h", 1000)
            assert any(c.text == "fixed a h" for c in found)
            assert all(view.alive[c.key] for c in found)
            assert [c.rank for c in found] == list(range(1, len(found) + 1))
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, number) for number in range(4)]
        try:
            random_changes(stage, texts, 150, 0)
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    texts[2] = "fixed a h"
    same_as_fresh(stage, texts, make, near)


def test_a_graph_takes_in_what_stands_beside_it() -> None:
    """Vectors are searched beside the graph at once; some additions later they are in it."""
    stage = dense(index="hnsw")
    texts: dict[int, str] = {}
    parts = set()
    for number in range(60):
        text = f"{WORDS[number % 8]} n{number}"
        texts[stage.add([text])[0]] = text
        if number % 5 == 4:
            stage.remove([number - 2])
            del texts[number - 2]
        parts.add(tuple(part.kind for part in stage.view.segments.parts))
        assert {c.key for c in stage.search("a b", 100)} == set(texts)
        assert stage.search(text, 1)[0].key == number
    assert {("exact",), ("hnsw",), ("hnsw", "exact")} <= parts


def test_a_passage_with_several_vectors_counts_by_the_nearest() -> None:
    """Windows: one hit per passage, with the highest score; through changes and every kind."""

    class Windows:
        def embed_windows(self, texts: list[str]) -> tuple[Any, list[int]]:
            words = [(at, word) for at, text in enumerate(texts) for word in text.split() or [""]]
            return embed_words([word for _, word in words]), [at for at, _ in words]

        def embed_documents(self, texts: list[str]) -> Any:
            raise AssertionError(texts)

        def embed_query(self, text: str) -> Any:
            return embed_words([text])[0]

    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in "ab"]
    for kind in ("exact", "hnsw"):
        stage = Dense(texts, embed=Windows(), index=kind)
        stage.remove([3, 77])
        stage.add(["z a", "z"])
        for query in ("z", "h"):
            found = stage.search(query, 12)
            wanted = [key for key in stage.keys if query in [*texts, "z a", "z"][key].split()]
            assert len({c.key for c in found}) == len(found) == 12
            assert {c.key for c in found if c.score > 0.999} == set(wanted[:12])
        assert stage.vectors([0, len(texts)]).shape == (2, embed_words(["a"]).shape[1])


def test_vectors_may_be_given_for_some_texts() -> None:
    """Those are not embedded; the others are, together."""
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        asked.append(texts)
        return embed_words(texts)

    given = embed_words(["a", "c"]).tolist()
    view = Dense(embed=embed).view.with_added(["a", "b", "c"], [given[0], None, given[1]])
    assert asked == [["b"]]
    whole = dense(["a", "b", "c"])
    assert np.array_equal(view.vectors([0, 1, 2]), whole.vectors([0, 1, 2]))


async def test_coroutines_of_an_encoder_are_awaited() -> None:
    """``aembed_documents`` and ``aembed_query`` of LangChain; a callable runs in a thread."""

    class Async:
        def embed_documents(self, texts: list[str]) -> Any:
            raise AssertionError(texts)

        embed_query = embed_documents

        async def aembed_documents(self, texts: list[str]) -> Any:
            return embed_words(texts)

        async def aembed_query(self, text: str) -> Any:
            return embed_words([text])[0]

    for encoder in (Async(), embed_words):
        stage = Dense(embed=encoder)
        assert await stage.aadd(["a b", "c d"]) == [0, 1]
        assert [c.key for c in await stage.asearch("c d", 2)] == [1, 0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_an_interrupt_at_any_moment_leaves_the_old_or_the_new(name: str) -> None:
    """A timer's signal during additions and removals: whole, unlocked, and keys stay unique."""
    make, near = STAGES[name]
    stage = make(["a b", "c d", "e f g"])
    texts = {0: "a b", 1: "c d", 2: "e f g"}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    choose = random.Random(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        times = []
        for _ in range(9):
            start = time.perf_counter()
            texts[stage.add(["a h"])[0]] = "a h"
            times.append(time.perf_counter() - start)
        usual = min(times)  # a busy machine makes some of them long
        hit = 0
        for number in range(120):
            new = [f"{WORDS[number % 8]} a", f"b n{number % 3}"]
            gone = choose.choice(sorted(texts))
            given = stage.keys_given
            adds = number % 3 or len(texts) < 3
            try:
                signal.setitimer(signal.ITIMER_REAL, max(choose.uniform(0, 1.2 * usual), 1e-6))
                if adds:
                    stage.add(new)
                else:
                    stage.remove([gone])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                hit += 1
            if adds:
                assert stage.keys_given in (given, given + 2)
                if stage.keys_given > given:
                    texts |= dict(enumerate(new, start=given))
            elif gone not in stage.keys:
                del texts[gone]
        assert hit
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    same_as_fresh(stage, texts, make, near)


CHILDREN = 60 if os.environ.get("RERANK_CAMPAIGN") else 12


def while_others_work(stage: Any, folder: Path) -> Iterator[Callable[[], object]]:
    """What threads of the parent do, over and over."""
    yield lambda: stage.search("a b h", 5)
    yield lambda: stage.remove(stage.add(["a h", "b c"]))
    yield lambda: Dense(["a b"] * 30, embed=embed_words, index="hnsw").search("a", 3)
    yield lambda: stage.save(folder / "parent")


def fork_children(folder: Path) -> int:
    """How many of the children answered: each searches, adds, builds, saves and loads."""
    for module, name, value in SMALL:
        setattr(module, name, value)
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    stage = Hybrid([bm25(texts), dense(texts, index="hnsw")])
    stop = threading.Event()

    def again(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    threads = [
        threading.Thread(target=again, args=[work], daemon=True)
        for work in while_others_work(stage, folder)
    ]
    for thread in threads:
        thread.start()
    answered = 0
    for number in range(CHILDREN):
        time.sleep(0.02)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            try:
                key = stage.add([f"h z{number}"])[-1]
                assert stage.search(f"h z{number}", 3)[0].key == key
                stage.remove([key])
                new = Dense(["a b"] * 30, embed=embed_words, index="hnsw")
                assert new.search("a", 3)
                stage.save(folder / f"child{number}")
                loaded = Hybrid.load(
                    folder / f"child{number}", embed=embed_words, analyzer=str.split
                )
                assert len(loaded) == len(stage)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            sys.stderr.write(f"child {number} ended with status {status}\n")
        answered += status == 0
    stop.set()
    for thread in threads:
        thread.join()
    return answered


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_others_search_and_change_answers(tmp_path: Path) -> None:
    """In a process of its own: forking the test run's would copy whatever runs in it."""
    code = (
        f"import sys\nsys.path[:0] = {[*sys.path, str(Path(__file__).parent)]!r}\n"
        "from pathlib import Path\nimport test_changes\n"
        f"print(test_changes.fork_children(Path({str(tmp_path)!r})))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stdout.strip() == str(CHILDREN), told.stderr


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=60),
    removed=st.sets(st.integers(0, 59)),
    masked=st.sets(st.integers(0, 59)),
    k=st.integers(0, 12),
    query=TEXT.filter(bool),
)
def test_the_best_few_are_the_first_of_all_that_match(
    texts: list[str], removed: set[int], masked: set[int], k: int, query: str
) -> None:
    """Looking for ``k`` leaves out most passages early, and never one of the best."""
    stage = bm25()
    for start in range(0, len(texts), 7):  # several segments
        stage.add(texts[start : start + 7])
    stage.remove(sorted(key for key in removed if key < len(texts)))
    mask = np.asarray([key not in masked for key in range(len(texts))])
    every = [one for one in stage.search(query, len(texts)) if mask[one.key]]
    found = stage.search(query, k, mask=mask)
    assert [(one.key, one.score) for one in found] == [(one.key, one.score) for one in every[:k]]
    surveyed = stage.survey(query, k, mask=mask).candidates
    assert [(one.key, one.score) for one in surveyed] == [(one.key, one.score) for one in found]
