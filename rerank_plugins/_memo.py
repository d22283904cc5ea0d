"""Memory of derived values, bounded by bytes: what texts of strangers can fill, and no more."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import Final, TypeVar, cast

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Of a dictionary's entry, beside the key and the value.
_ENTRY: Final = 100
# A value of more than this part of the bound is not kept: it would push out all others.
_LARGEST: Final = 16
_NOTHING: Final = object()


class ByteBoundedDict(dict[K, V]):
    """A dictionary that forgets what was not used for longest, roughly: two generations.

    New entries go into the young generation, which is the dictionary itself, so that a look-up
    costs what it costs in any dictionary. Once it holds half of the bound it becomes the old
    one, and the one before is forgotten; an entry of the old that is asked for becomes young
    again. Safe to share between threads: each step is atomic, but for the count of bytes, which
    may miss an entry where the interpreter changes threads inside it.

    Args:
        max_bytes: Bound of both generations together, as far as ``size`` tells.
        size: Bytes of a key and its value together.
    """

    def __init__(self, max_bytes: int, size: Callable[[K, V], int] | None = None) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self._largest = max_bytes // _LARGEST
        self._size = size_of_texts if size is None else size
        self._older: dict[K, V] = {}
        self._held = 0  # bytes of the young generation

    def find(self, key: K) -> V | None:
        """The value, marked as recently used; None if absent."""
        value = self.get(key)
        if value is None and (value := self._older.get(key)) is not None:
            self.keep(key, value)
        return value

    def keep(self, key: K, value: V) -> None:
        """Holds a value, unless it takes a large part of the bound alone."""
        size = self._size(key, value) + _ENTRY
        if size > self._largest or key in self:
            return
        if 2 * (self._held + size) > self.max_bytes:
            self._older = dict(self)
            self.clear()
            self._held = 0
        self[key] = value
        self._held += size


class Memo(ByteBoundedDict[K, V]):
    """What a function gave, by its argument: ``memo[argument]`` computes what it lacks.

    Args:
        compute: Of the argument alone; may be called by several threads at once.
        max_bytes: As in `ByteBoundedDict`.
        size: As there.
    """

    def __init__(
        self,
        compute: Callable[[K], V],
        max_bytes: int,
        size: Callable[[K, V], int] | None = None,
    ) -> None:
        super().__init__(max_bytes, size)
        self._compute = compute

    def __missing__(self, key: K) -> V:
        value = self._older.get(key, _NOTHING) if self._older else _NOTHING
        found = self._compute(key) if value is _NOTHING else cast("V", value)
        self.keep(key, found)
        return found


def size_of_texts(key: object, value: object) -> int:
    """Bytes of a key and a value that are texts, numbers, or tuples and sets of these."""
    parts = value if isinstance(value, (tuple, list, set, frozenset)) else ()
    return getsizeof(key) + getsizeof(value) + sum(map(getsizeof, parts))
