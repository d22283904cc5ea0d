"""The only sort and the only cut: descending, ties keep their order, NaN is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins.errors import InvalidInputError, NonFiniteScoreError


def check_count(name: str, value: object, *, minimum: int = 0) -> int:
    """``value`` as an int of at least ``minimum``.

    Raises:
        InvalidInputError: It is no whole number (a bool is none), or it is too small.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or int(value) < minimum:  # type: ignore[call-overload]
        raise InvalidInputError(
            f"{name} must be a whole number of at least {minimum}, but got {value!r}"
        )
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_iterable(name: str, value: object) -> Iterator[Any]:
    """An iterator over ``value``.

    Raises:
        InvalidInputError: It is one string, or nothing that has elements.
    """
    if isinstance(value, str):
        raise InvalidInputError(f"{name} must be a list, but got one string: put it in a list")
    try:
        # Not isinstance(): an array of no dimension has __iter__, which then refuses.
        return iter(value)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        raise InvalidInputError(
            f"{name} must be a list or another iterable, but got {type(value).__name__}"
        ) from error


def check_names(ids: object) -> list[str]:
    """Ids of a framework's documents, each once, in the order given.

    Raises:
        InvalidInputError: It is no list, or an element is no text.
    """
    names = list(check_iterable("ids", ids))
    for name in names:
        if not isinstance(name, str):
            raise InvalidInputError(f"every id must be text, but one is {type(name).__name__}")
    return list(dict.fromkeys(names))


def check_finite(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores as float64.

    Raises:
        NonFiniteScoreError: One of them is NaN, infinite or no number.
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise NonFiniteScoreError(f"every score must be a finite number: {error}") from error
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise NonFiniteScoreError(
            f"every score must be a finite number, but score number {int(bad[0])} is "
            f"{values[bad[0]]} ({bad.size} of {values.size} are not finite); "
            "a half-precision model that overflows does this: try precision='fp32'"
        )
    return values


def descending(scores: ArrayLike, k: int | None = None) -> NDArray[np.intp]:
    """Positions of the ``k`` highest scores (all when None), best first, ties in order.

    Linear in the number of scores plus the sort of the ``k`` that stay, so that a first
    stage can call it on millions of scores.

    Args:
        scores: Shape (n,); every value finite.
        k: How many; more than n gives n.

    Returns:
        Shape (min(k, n),).

    Raises:
        NonFiniteScoreError: A score is NaN or infinite.
    """
    values = check_finite(scores)
    n = values.size
    if k is None or k >= n:
        return np.argsort(-values, kind="stable")
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    smallest_kept = np.partition(values, n - k)[n - k]
    above = np.flatnonzero(values > smallest_kept)
    tied = np.flatnonzero(values == smallest_kept)[: k - above.size]
    kept = np.sort(np.concatenate([above, tied]))
    return kept[np.argsort(-values[kept], kind="stable")]
