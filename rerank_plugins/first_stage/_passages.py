"""Texts by key, and which keys are alive: immutable, so that views share what did not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, compress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._lazy import lazy
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.ordering import descending

# Keys per block: a change copies the blocks that it touches and one reference for each other.
_BLOCK: Final = 4096


@dataclass(frozen=True, eq=False)
class Passages:
    """The passages of a view.

    Attributes:
        size: Keys ever given: 0 to size - 1.
        count: How many of them are alive.
    """

    size: int = 0
    count: int = 0
    _texts: tuple[list[str], ...] = ()  # no list is ever changed
    _alive: tuple[NDArray[np.bool_], ...] = ()

    @lazy
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): which keys are not removed. Read-only."""
        alive = np.concatenate([*self._alive, np.empty(0, dtype=np.bool_)])
        alive.flags.writeable = False
        return alive

    def alive_between(self, first: int, last: int) -> NDArray[np.bool_]:
        """Which of the keys from ``first`` to ``last`` are alive, without a look at the rest."""
        blocks = self._alive[first // _BLOCK : last // _BLOCK + 1]
        start = first % _BLOCK
        return np.concatenate(blocks)[start : start + last - first + 1]

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys that are alive, ascending."""
        return np.flatnonzero(self.alive).astype(np.int64, copy=False)

    def text(self, key: int) -> str:
        """The text under a key; empty once it is removed."""
        return self._texts[key // _BLOCK][key % _BLOCK]

    def texts(self) -> Iterator[str]:
        """The texts that are alive, in the order of keys."""
        return compress(chain.from_iterable(self._texts), self.alive.tolist())

    def has(self, key: int) -> bool:
        """Whether the key is alive."""
        return 0 <= key < self.size and bool(self._alive[key // _BLOCK][key % _BLOCK])

    def check(self, keys: Iterable[int]) -> None:
        """Checks that all keys are alive.

        Raises:
            InvalidInputError: If one is not.
        """
        for key in keys:
            if not self.has(key):
                raise InvalidInputError(f"every key must be in the index, but {key!r} is not")

    def with_added(self, texts: Sequence[str]) -> Passages:
        """These and more, under the next keys."""
        begun = self.size % _BLOCK
        kept = len(self._texts) - (begun > 0)
        tail = [*self._texts[-1], *texts] if begun else list(texts)
        alive = np.ones(len(tail), dtype=np.bool_)
        if begun:
            alive[:begun] = self._alive[-1]
        cuts = range(0, len(tail), _BLOCK)
        return Passages(
            self.size + len(texts),
            self.count + len(texts),
            self._texts[:kept] + tuple(tail[cut : cut + _BLOCK] for cut in cuts),
            self._alive[:kept] + tuple(alive[cut : cut + _BLOCK] for cut in cuts),
        )

    def with_removed(self, keys: Sequence[int]) -> Passages:
        """These without the texts of some keys, each of which must be alive and given once."""
        texts, alive = list(self._texts), list(self._alive)
        for block in {key // _BLOCK for key in keys}:
            texts[block], alive[block] = texts[block].copy(), alive[block].copy()
        for key in keys:
            texts[key // _BLOCK][key % _BLOCK] = ""
            alive[key // _BLOCK][key % _BLOCK] = False
        return Passages(self.size, self.count - len(keys), tuple(texts), tuple(alive))

    @classmethod
    def restored(cls, alive: NDArray[np.bool_], texts: Sequence[str]) -> Passages:
        """Passages from their bitmap and the texts that are alive, in the order of keys."""
        by_key = [""] * len(alive)
        for key, text in zip(np.flatnonzero(alive).tolist(), texts, strict=True):
            by_key[key] = text
        cuts = range(0, len(by_key), _BLOCK)
        return cls(
            len(by_key),
            len(texts),
            tuple(by_key[cut : cut + _BLOCK] for cut in cuts),
            tuple(np.array(alive[cut : cut + _BLOCK]) for cut in cuts),
        )


class PassagesView:
    """What the views over passages share: their size, their pickles, and candidates.

    Attributes:
        passages: The texts by key.
    """

    passages: Passages

    def __getstate__(self) -> dict[str, Any]:
        # Without what is computed once: the other side computes it again.
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.passages.count

    @property
    def size(self) -> int:
        """Keys ever given."""
        return self.passages.size

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): the keys that are not removed."""
        return self.passages.alive

    def _candidates(
        self, keys: NDArray[np.int64], scores: NDArray[np.float64], k: int
    ) -> list[Candidate]:
        """The ``k`` best, best first."""
        best = descending(scores, k)
        found = zip(keys[best].tolist(), scores[best].tolist(), strict=True)
        text = self.passages.text
        return [
            Candidate(key, text(key), score, rank)
            for rank, (key, score) in enumerate(found, start=1)
        ]
