"""What every first stage asks of its arguments."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._validation import check_iterable, text_of
from rerank_plugins.errors import InvalidInputError


def check_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list, read once and wholly.

    Raises:
        InvalidInputError: If it is a single string, or an element is not a string; names it.
    """
    if isinstance(texts, str):
        raise InvalidInputError("texts must be many texts, but got one string: put it in a list")
    listed = list(check_iterable("texts", texts))
    for position, text in enumerate(listed):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"every text must be a string, but number {position} is {type(text).__name__}"
                f"{text_of(text)}"
            )
    return listed


def check_mask(mask: object, size: int) -> NDArray[np.bool_] | None:
    """The mask as an array, or None.

    Raises:
        InvalidInputError: If it is not one boolean for each of the ``size`` keys.
    """
    if mask is None:
        return None
    values = np.asarray(mask)
    if values.dtype != np.bool_ or values.shape != (size,):
        raise InvalidInputError(
            f"mask must hold one boolean for each of the {size} keys, "
            f"but has shape {values.shape} and type {values.dtype}"
        )
    return values


def key_list(keys: Iterable[int]) -> list[int]:
    """The keys, each once, in the order given.

    Raises:
        InvalidInputError: If it is not a list, or an element is not a whole number.
    """
    listed = list(check_iterable("keys", keys))
    for key in listed:
        if not isinstance(key, (int, np.integer)) or isinstance(key, bool):
            raise InvalidInputError(f"every key must be a whole number, but {key!r} is not")
    return list(dict.fromkeys(map(int, listed)))


def check_keys(keys: Iterable[int], known: Container[int]) -> None:
    """Checks that keys can be removed or read.

    Raises:
        InvalidInputError: If one is not in the index.
    """
    for key in keys:
        if key not in known:
            raise InvalidInputError(f"every key must be in the index, but {key!r} is not")
