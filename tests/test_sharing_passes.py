"""Rows of many callers in one forward pass: whose turn it is, and who leaves."""

from __future__ import annotations

import linecache
import sys
import threading
import time
from collections.abc import Callable
from itertools import chain
from types import FrameType
from typing import Any

import numpy as np
import pytest

from rerank_plugins import _threads
from rerank_plugins.errors import OutOfMemoryError
from rerank_plugins.scoring import sharing
from rerank_plugins.scoring.batching import TokenLimit
from rerank_plugins.scoring.sharing import SharedPass, Work


class Model:
    """The logit of a row is its first token; may be held, and notes its batches."""

    def __init__(self, *, held: bool = False, most: int = 10**9, bad: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.most, self.bad = most, bad
        if not held:
            self.go_on.set()

    def __call__(self, rows: list[list[int]]) -> np.ndarray:
        """The logits, once it is let."""
        self.began.release()
        assert self.go_on.wait(60)
        if len(rows) * max(map(len, rows)) > self.most:
            raise OutOfMemoryError("too many")
        if any(row[0] == self.bad for row in rows):
            raise IndexError(f"no row for {self.bad}")
        self.batches.append([row[0] for row in rows])
        return np.asarray([row[0] for row in rows], dtype=np.float64)


def work(first: int, count: int, length: int = 10, **options: Any) -> Work:
    """Rows of this length whose first tokens count up."""
    rows = [[first + number] * length for number in range(count)]
    options = {"budget": 100, **options}
    return Work(rows, None, list(range(count)), pad=lambda rows, types: rows, **options)


def started(shared: SharedPass, some: Work) -> threading.Thread:
    """A caller in a separate thread, already in the queue or at the model."""
    thread = threading.Thread(target=shared.run, args=(some,))
    thread.start()
    until(lambda: some in shared._queue or some.finished or shared._leader is some)
    return thread


def until(condition: Callable[[], bool]) -> None:
    """Waits for what other threads do."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_callers_who_wait_share_the_next_batch() -> None:
    """Ten callers of two rows: one batch for the first, and one for nine more."""
    model = Model(held=True)
    shared = SharedPass(model, TokenLimit())
    works = [work(100 * number, 2) for number in range(6)]
    threads = [started(shared, works[0])]
    assert model.began.acquire(timeout=60)
    threads += [started(shared, one) for one in works[1:]]
    model.go_on.set()
    for thread in threads:
        thread.join(60)
    assert model.batches == [[0, 1], [100, 101, 200, 201, 300, 301, 400, 401, 500, 501]]
    for number, one in enumerate(works):
        assert one.logits.tolist() == [100 * number, 100 * number + 1]
        assert one.done.all()


def test_a_caller_of_many_rows_takes_turns_with_those_behind() -> None:
    """A thousand rows do not hold up two: they are in the batch after the one in hand."""
    model = Model(held=True)
    shared = SharedPass(model, TokenLimit())
    large, small = work(1000, 100), work(1, 2)
    first = started(shared, large)
    assert model.began.acquire(timeout=60)
    second = started(shared, small)
    model.go_on.set()
    second.join(60)
    first.join(60)
    assert model.batches[1][:2] == [1, 2]
    assert large.logits.tolist() == list(range(1000, 1100))


@pytest.mark.parametrize("bad", [1, 101, 102])
def test_an_error_is_that_of_the_caller_whose_row_it_is(bad: int) -> None:
    """The others in the same batch have their scores."""
    model = Model(held=True, bad=bad)
    shared = SharedPass(model, TokenLimit())
    blocker, good, other = work(900, 1), work(1, 3), work(100, 3)
    failed: list[str] = []

    def run(one: Work) -> None:
        try:
            shared.run(one)
        except IndexError as error:
            failed.append(f"{one.rows[0][0]}: {error}")

    threads = [threading.Thread(target=run, args=(blocker,))]
    threads[0].start()
    assert model.began.acquire(timeout=60)
    for one in (good, other):
        threads.append(threading.Thread(target=run, args=(one,)))
        threads[-1].start()
        until(lambda one=one: one in shared._queue)
    model.go_on.set()
    for thread in threads:
        thread.join(60)
    owner, innocent = (good, other) if bad == 1 else (other, good)
    assert failed == [f"{owner.rows[0][0]}: no row for {bad}"]
    assert innocent.done.all()
    assert innocent.logits.tolist() == [row[0] for row in innocent.rows]
    assert not shared._queue


def test_what_does_not_fit_is_tried_in_halves() -> None:
    """No row is lost or computed twice, and a row that does not fit alone is its caller's error."""
    model = Model(most=25)
    shared = SharedPass(model, TokenLimit())
    one = work(1, 9)
    shared.run(one)
    assert sorted(chain.from_iterable(model.batches)) == list(range(1, 10))
    assert one.logits.tolist() == list(range(1, 10))
    with pytest.raises(OutOfMemoryError, match="a pair of 30 tokens"):
        shared.run(work(1, 1, length=30))
    shared.run(one := work(5, 2))
    assert one.done.all()


def test_time_that_is_up_leaves_the_rest_undone() -> None:
    """A caller leaves at its deadline, though the model is busy with another's rows."""
    model = Model(held=True)
    shared = SharedPass(model, TokenLimit())
    first = started(shared, work(1000, 1))
    assert model.began.acquire(timeout=60)
    late = work(1, 3, stop_at=time.perf_counter() + 0.05)
    shared.run(late)
    assert not late.done.any()
    assert late not in shared._queue
    model.go_on.set()
    first.join(60)
    assert not late.done.any()
    shared.run(after := work(7, 2))
    assert after.done.all()


def test_no_batch_is_begun_that_would_not_end_in_time() -> None:
    """By the pace of the batches before; the first row of all has any time that there is."""
    model = Model()
    shared = SharedPass(model, TokenLimit())
    shared.pace = 1.0  # a second a token
    slow = work(1, 3, stop_at=time.perf_counter() + 5)
    shared.run(slow)
    assert slow.done.tolist() == [True, False, False] or slow.done.all()
    assert model.batches[0] == [1]
    shared.pace = 1e-9
    quick = work(1, 20, stop_at=time.perf_counter() + 50)
    shared.run(quick)
    assert quick.done.all()


def test_rows_of_a_caller_who_was_cancelled_leave_the_queue() -> None:
    """They are not computed, and the next in line is served."""
    model = Model(held=True)
    shared = SharedPass(model, TokenLimit())
    first = started(shared, work(1000, 1))
    assert model.began.acquire(timeout=60)
    flag = threading.Event()
    token = _threads._cancelled.set(flag)
    gone = work(1, 3)
    _threads._cancelled.reset(token)
    waiting, behind = started(shared, gone), started(shared, last := work(50, 2))
    flag.set()
    model.go_on.set()
    for thread in (first, waiting, behind):
        thread.join(60)
    assert model.batches == [[1000], [50, 51]]
    assert not gone.done.any()
    assert last.done.all()


def interruptible(frame: FrameType, event: str) -> bool:
    """Whether a signal may be raised here.

    A ``with`` line is traced once more before the lock is released, where no signal is handled.
    """
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return event == "line" and not line.lstrip().startswith("with ")


def lines_of_sharing() -> int:
    """How many lines a call with three batches runs in the module."""
    count = 0

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != sharing.__file__:
            return None
        count += interruptible(frame, event)
        return tracer

    sys.settrace(tracer)
    try:
        SharedPass(Model(), TokenLimit()).run(work(1, 25))
    finally:
        sys.settrace(None)
    return count


def test_an_interrupt_at_any_line_leaves_the_model_free() -> None:
    """Ctrl-C at each line of a call in turn: the next call is answered, and whoever waits too."""
    total = lines_of_sharing()
    assert total > 100
    for at in range(1, total + 1):
        shared = SharedPass(Model(), TokenLimit())
        one = work(1, 25)
        left = at

        def tracer(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != sharing.__file__:
                return None
            if interruptible(frame, event):
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return tracer

        sys.settrace(tracer)
        try:
            shared.run(one)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert shared._leader is None, at
        assert not shared._queue, at
        assert not shared._lock.locked(), at
        shared.run(after := work(5, 12))
        assert after.logits.tolist() == list(range(5, 17)), at


def test_an_interrupted_caller_gives_back_the_rows_of_others() -> None:
    """Whoever waits takes over: nothing is lost and nobody hangs."""
    model = Model(held=True)

    def interrupted(rows: list[list[int]]) -> np.ndarray:
        if rows[0][0] == 1000:
            model.began.release()
            assert model.go_on.wait(60)
            return np.zeros(len(rows))
        if threading.current_thread().name == "leader":
            raise KeyboardInterrupt
        return model(rows)

    shared = SharedPass(interrupted, TokenLimit())
    ended: list[BaseException] = []

    def lead() -> None:
        try:
            shared.run(work(1000, 11))
        except KeyboardInterrupt as error:
            ended.append(error)

    leader = threading.Thread(target=lead, name="leader")
    leader.start()
    assert model.began.acquire(timeout=60)
    other = work(1, 3)
    thread = started(shared, other)
    model.go_on.set()
    leader.join(60)
    thread.join(60)
    assert ended
    assert other.logits.tolist() == [1, 2, 3]


def test_many_threads_lose_nothing() -> None:
    """Two hundred calls from sixteen threads, some with a deadline."""
    shared = SharedPass(Model(), TokenLimit())

    def call(seed: int) -> None:
        for turn in range(12):
            stop_at = time.perf_counter() + 30 if turn % 3 else None
            shared.run(one := work(seed * 1000 + turn * 50, 1 + (seed + turn) % 9, stop_at=stop_at))
            assert one.done.all()
            assert one.logits.tolist() == [row[0] for row in one.rows]

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not shared._queue
    assert shared._leader is None


def test_the_pace_is_seconds_per_padded_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch counts as much as all before it."""
    seconds = iter([10.0, 14.0, 20.0, 28.0])
    shared = SharedPass(Model(), TokenLimit())
    monkeypatch.setattr(sharing, "perf_counter", lambda: next(seconds))
    shared.run(work(1, 2, length=10))
    assert shared.pace == pytest.approx(4 / 20)
    shared.run(work(1, 1, length=10))
    assert shared.pace == pytest.approx((4 / 20 + 8 / 10) / 2)


def test_token_types_go_with_their_rows() -> None:
    """In the order of the batch; none where the model takes none."""
    padded: list[tuple[list[list[int]], list[list[int]] | None]] = []

    def pad(rows: list[list[int]], types: list[list[int]] | None) -> list[list[int]]:
        padded.append((rows, types))
        return rows

    shared = SharedPass(Model(), TokenLimit())
    rows = [[1, 1], [2, 2, 2], [3]]
    types = [[0, 1], [0, 0, 1], [0]]
    shared.run(Work(rows, types, [1, 0, 2], pad=pad, budget=100))
    shared.run(Work(rows, None, [0, 1, 2], pad=pad, budget=100))
    assert padded == [([rows[1], rows[0], rows[2]], [types[1], types[0], types[2]]), (rows, None)]
