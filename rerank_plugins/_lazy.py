"""Values that an object computes once, when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from typing_extensions import Self

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  (a decorator, as `property` is)
    """`functools.cached_property` without its lock.

    Until Python 3.12 that is one lock per class: callers of different objects wait for each
    other, and a child that is forked while one holds it waits for ever. Without it two threads
    may both compute the value, so it must be the same whoever does.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, holder: None, owner: type) -> Self: ...
    @overload
    def __get__(self, holder: object, owner: type) -> T: ...
    def __get__(self, holder: object | None, owner: type) -> Self | T:
        """Computes it; from then on the holder has it."""
        if holder is None:
            return self
        value = self._make(holder)
        holder.__dict__[self._name] = value
        return value
