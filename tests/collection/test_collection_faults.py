"""Interrupts at every line of a change, and forks while another thread writes."""

from __future__ import annotations

import os
import sys
import threading
from linecache import getline
from pathlib import Path

import numpy as np
import pytest

import rerank_plugins
from rerank_plugins.collection import Collection, Compare, Record
from rerank_plugins.errors import IndexDamagedError, StorageError
from rerank_plugins.first_stage import BM25, Dense

PACKAGE = str(Path(rerank_plugins.__file__).parent)


def embed(texts):
    """Two numbers a text."""
    return np.asarray([[1.0, float(len(text))] for text in texts])


def collection_of(count):
    """Over words and vectors."""
    records = [Record(str(at), f"museum {at}", {"n": at}) for at in range(count)]
    texts = [one.text for one in records]
    return Collection([BM25(texts, language="en"), Dense(texts, embed=embed)], records)


def whole(collection):
    """What it holds, once everything in it agrees."""
    view = collection.view
    held = {one.id: one.text for one in view}
    for stage in (0, 1):
        found = view.search("museum", 99, stage=stage)
        assert {one.id: one.text for one, _ in found} == held
        assert [one.text for one, _ in found] == [hit.text for _, hit in found]
    kept = view.search("museum", 99, Compare("n", "gte", 0))
    assert len(kept) == len(held)
    return held


class At:
    """Raises at the n-th line that the package runs."""

    def __init__(self, n, error=KeyboardInterrupt):
        self.left = n
        self.error = error

    def __call__(self, frame, event, arg):
        """As `sys.settrace` asks."""
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE):
            return None
        # A tracer can raise between a block and its __exit__, where no signal can.
        if event == "line" and not getline(file, frame.f_lineno).lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self


CHANGES = {
    "add": lambda one: one.add([Record("new", "museum new", {"n": 7})]),
    "replace": lambda one: one.add([Record("1", "museum other", {"n": 8})]),
    "delete": lambda one: one.delete(["0", "2"]),
    "delete_where": lambda one: one.delete_where(Compare("n", "lt", 2)),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", CHANGES)
def test_an_interrupt_at_any_line_leaves_the_old_or_the_new(name, error):
    """And the next change works: no lock is held, no key is given twice."""
    change = CHANGES[name]
    done = collection_of(3)
    before = whole(done)
    change(done)
    after = whole(done)
    line = 0
    finished = False
    while not finished:
        line += 1
        one = collection_of(3)
        whole(one)
        old = sys.gettrace()
        sys.settrace(At(line, error))
        try:
            change(one)
            finished = True
        except error:
            pass
        finally:
            sys.settrace(old)
        assert whole(one) in (before, after)
        one.add([Record("later", "museum later", {"n": 9})])
        assert whole(one)["later"] == "museum later"
    assert line > 20


def interrupted(work, line, error):
    """Whether the work ended before that line; else it was interrupted there."""
    old = sys.gettrace()
    tracer = At(line, error)
    sys.settrace(tracer)
    try:
        work()
    except IndexDamagedError:
        raise
    except (error, StorageError):
        return False
    finally:
        sys.settrace(old)
    return tracer.left > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("kind", [BM25, Dense])
def test_an_interrupt_at_any_line_of_saving_and_loading_leaves_an_index(tmp_path, kind, error):
    """The old one or the new, which the next call saves and loads; all lines in a campaign."""
    options = {"language": "en"} if kind is BM25 else {"embed": embed}
    loads = {} if kind is BM25 else {"embed": embed}
    old, new = kind(["museum old"], **options), kind(["museum new", "a bus"], **options)
    path = tmp_path / "index"
    old.save(path)
    step = 1 if "RERANK_CAMPAIGN" in os.environ else 41
    line = 1
    while not interrupted(lambda: new.save(path), line, error):
        found = {one.text for one in kind.load(path, **loads).search("museum", 5)}
        assert len(found & {"museum old", "museum new"}) == 1
        old.save(path)
        line += step
    assert len(kind.load(path, **loads)) == 2
    saved, line = line, 1
    while not interrupted(lambda: kind.load(path, **loads), line, error):
        line += step
    assert min(saved, line) > 40
    assert len(kind.load(path, **loads)) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["index"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_others_write_answers():
    """It finds the locks open, and changes its own copy."""
    collection = collection_of(20)
    done = threading.Event()

    def write():
        number = 0
        while not done.is_set():
            number += 1
            collection.add([Record(f"w{number % 5}", "museum", {"n": number})])

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                try:
                    collection.add([Record("child", "museum child", {"n": 1})])
                    found = collection.view.search("museum", 99, Compare("n", "gte", 0))
                    os._exit(0 if "child" in {one.id for one, _ in found} else 1)
                except BaseException:
                    os._exit(2)
            timer = threading.Timer(60, os.kill, (child, 9))
            timer.start()
            _, status = os.waitpid(child, 0)
            timer.cancel()
            assert status == 0
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert collection.view.key("child") is None
