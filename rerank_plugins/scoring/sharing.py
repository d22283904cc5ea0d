"""One model for many callers: their rows share forward passes, one pass at a time.

It has no thread. A caller that finds the model free runs batches, whosever rows are in them,
until its own are done; the others sleep meanwhile. Callers take turns in the order
in which they came, one batch each, and what room a batch has left goes to the rows of those
behind. So nobody waits for more than one batch of each earlier caller, and many small calls
are computed as one large one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import after_fork_in_child, cancellation, fork_safe_lock
from rerank_plugins.errors import OutOfMemoryError
from rerank_plugins.scoring.batching import TokenLimit
from rerank_plugins.scoring.encoding import Batch

# A batch may take half of the time that its caller has left, so that one that takes twice as
# long as expected still ends in time.
_SHARE: Final = 0.5


class Work:
    """The rows of one caller.

    Args:
        rows: Token ids.
        types: Token type ids, or None when the model takes none.
        order: Positions of the rows, in the order to compute them.
        pad: Makes a batch of rows and types; the same for all callers of a model.
        budget: Padded tokens in a batch with these rows, at most.
        stop_at: When to give up, on the clock of ``time.perf_counter``; None for never.
    """

    def __init__(
        self,
        rows: Sequence[list[int]],
        types: Sequence[list[int]] | None,
        order: Sequence[int],
        *,
        pad: Callable[[list[list[int]], list[list[int]] | None], Batch],
        budget: int,
        stop_at: float | None = None,
    ) -> None:
        self.rows, self.types, self.order, self.pad = rows, types, order, pad
        self.budget, self.stop_at = budget, stop_at
        self.logits = np.zeros(len(rows), dtype=np.float64)
        self.done = np.zeros(len(rows), dtype=np.bool_)
        self.next = 0  # place in the order of the first row that no batch has taken
        self.alone = False  # whether its rows share no batch any more
        self.finished = not len(rows)
        self.error: Exception | None = None
        self.cancelled = cancellation()
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def length(self) -> int:
        """Tokens of the next row."""
        return len(self.rows[self.order[self.next]])

    def seconds_left(self) -> float:
        """Until it gives up; at most an hour, which nobody waits in vain."""
        return 3600.0 if self.stop_at is None else self.stop_at - perf_counter()


Part = tuple[Work, int, int]  # a caller's rows in a batch: order[start:stop]


class SharedPass:
    """Runs the rows of many threads through one model.

    Args:
        compute: Logits of a batch, shape (rows,).
        limit: What memory was seen to hold.
    """

    def __init__(self, compute: Callable[[Batch], NDArray[np.float64]], limit: TokenLimit) -> None:
        self._compute = compute
        self._limit = limit
        self._lock = fork_safe_lock()
        self._queue: deque[Work] = deque()
        self._leader: Work | None = None
        self._served: Work | None = None  # whose turn the last batch was
        self.pace: float | None = None  # seconds a padded token, as the last batches had it
        after_fork_in_child(self, "_start_anew")

    def run(self, work: Work) -> None:
        """Computes the rows: all, or as many as its time allows.

        Raises:
            Exception: What ``compute`` raised for one of these rows.
        """
        try:
            with self._lock:
                self._queue.append(work)
            while not work.finished:
                self._wait_or_lead(work)
        finally:
            self._leave_surely(work)
        if work.error is not None:
            raise work.error

    def _wait_or_lead(self, work: Work) -> None:
        with self._lock:
            if work.finished or work.seconds_left() <= 0:
                work.finished = True
                return
            leads = self._leader is None
            if leads:
                self._leader = work
                batch = self._next_batch()
        if not leads:
            work.wake.acquire(timeout=max(0.0, work.seconds_left()))
            return
        if batch:
            self._run(batch)
        with self._lock:
            self._leader = None

    def _next_batch(self) -> list[Part]:
        """Rows for one pass, of whose turn it is and of those behind; under the lock."""
        if self._queue and self._queue[0] is self._served:
            self._queue.rotate(-1)
        while self._queue and self._over(self._queue[0]):
            self._end(self._queue[0])
        if not self._queue:
            return []
        first = self._served = self._queue[0]
        budget = self._budget(first)
        batch: list[Part] = []
        rows = longest = 0
        for work in [first] if first.alone else list(self._queue):
            if work.alone and work is not first:
                continue
            start = work.next
            while work.next < len(work.order):
                wider = max(longest, work.length)
                if rows and (rows + 1) * wider > min(budget, work.budget):
                    break
                rows, longest = rows + 1, wider
                work.next += 1
            if work.next > start:
                batch.append((work, start, work.next))
        return batch

    def _budget(self, work: Work) -> int:
        budget = self._limit.within(work.budget)
        if work.stop_at is None:
            return budget
        affordable = _SHARE * work.seconds_left() / self.pace if self.pace else 0.0
        return min(budget, int(affordable))

    def _over(self, work: Work) -> bool:
        """Whether nobody waits for it any more, or another row would not end in time."""
        if work.cancelled is not None and work.cancelled.is_set():
            return True
        if work.stop_at is None:
            return False
        left = work.seconds_left()
        late = self.pace is not None and self.pace * work.length > left
        # The first row of all has any time that there is, however slow the model was before.
        return left <= 0 or (late and bool(work.done.any()))

    def _run(self, batch: list[Part]) -> None:
        places = [(work, at) for work, start, stop in batch for at in work.order[start:stop]]
        rows = [work.rows[at] for work, at in places]
        types = [work.types[at] for work, at in places if work.types is not None]
        tokens = len(rows) * max(map(len, rows))
        start = perf_counter()
        try:
            logits = self._compute(batch[0][0].pad(rows, types or None))
        except OutOfMemoryError as error:
            self._too_large(batch, rows, tokens, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever an engine raises, its rows' owner gets
            self._failed(batch, error)
            return
        pace = (perf_counter() - start) / tokens
        with self._lock:
            self.pace = pace if self.pace is None else (self.pace + pace) / 2
            at = 0
            for work, begin, stop in batch:
                own = list(work.order[begin:stop])
                work.logits[own] = logits[at : at + len(own)]
                work.done[own] = True
                at += len(own)
                if stop == len(work.order):
                    self._end(work)

    def _too_large(
        self, batch: list[Part], rows: list[list[int]], tokens: int, error: OutOfMemoryError
    ) -> None:
        if len(rows) > 1:
            self._limit.failed(tokens)
            with self._lock:
                self._give_back()
            return
        alone = OutOfMemoryError(
            f"a pair of {len(rows[0])} tokens does not fit in memory, alone as it is; lower "
            f"max_length, or use a smaller model or another device ({error})"
        )
        alone.__cause__ = error
        self._failed(batch, alone)

    def _failed(self, batch: list[Part], error: Exception) -> None:
        """An error is that of one caller's rows; of several, each tries alone."""
        with self._lock:
            if len(batch) == 1:
                work = batch[0][0]
                work.error = error
                self._end(work)
                return
            for work, _, _ in batch:
                work.alone = True
            self._give_back()

    def _give_back(self) -> None:
        """Rows that a batch took and did not compute are to be taken again; under the lock."""
        for work in self._queue:
            work.next = int(work.done.sum())

    def _end(self, work: Work) -> None:
        work.finished = True
        if self._served is work:
            self._served = None
        if work in self._queue:
            self._queue.remove(work)
        _wake(work)

    def _leave_surely(self, work: Work) -> None:
        """Removes a caller that leaves, for whatever reason, so that the others proceed.

        A signal's exception may come here too: it is raised once all is done.
        """
        interrupted: BaseException | None = None
        while True:
            try:
                self._leave(work)
                break
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupted = error
        if interrupted is not None:
            raise interrupted

    def _leave(self, work: Work) -> None:
        with self._lock:
            self._end(work)
            if self._leader is work:
                self._give_back()
                self._leader = None
            if self._leader is None and self._queue:
                _wake(self._queue[0])

    def _start_anew(self) -> None:
        """In a forked child the other callers do not exist, and whoever led is gone."""
        self._queue.clear()
        self._leader = self._served = None


def _wake(work: Work) -> None:
    if work.wake.locked():
        work.wake.release()
