"""Checks of user-supplied values; each error states the rule and the value received."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins.errors import InvalidInputError, NonFiniteScoreError

T = TypeVar("T")

_LONGEST_ID: Final = 10_000


def check_count(name: str, value: object, *, minimum: int = 0) -> int:
    """``value`` as an int of at least ``minimum``.

    Raises:
        InvalidInputError: If it is not a whole number (a bool is not), or too small.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or int(value) < minimum:  # type: ignore[call-overload]
        raise InvalidInputError(
            f"{name} must be a whole number of at least {minimum}, but got {value!r}"
        )
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_each(name: str, given: object, kind: type[T], called: str) -> list[T]:
    """The elements as a list.

    Args:
        name: What the argument is called.
        given: An iterable.
        kind: What each must be an instance of.
        called: What these are called in the plural.

    Raises:
        InvalidInputError: If it is not iterable, or an element is something else.
    """
    check_not_one(name, given, kind)
    listed = list(check_iterable(name, given))
    for position, one in enumerate(listed):
        if not isinstance(one, kind):
            raise InvalidInputError(
                f"{name} must be {called}, but number {position} is {type(one).__name__}"
            )
    return listed


def check_not_one(name: str, given: object, kind: type) -> None:
    """An InvalidInputError if one object stands in place of a list: pydantic's are iterable."""
    if isinstance(given, kind):
        raise InvalidInputError(
            f"{name} must be a list, but got one {type(given).__name__}: put it in a list"
        )


def check_iterable(name: str, value: object) -> Iterator[Any]:
    """An iterator over ``value``.

    Raises:
        InvalidInputError: If it is a single string, a dict, a table, or not iterable.
    """
    if isinstance(value, str):
        raise InvalidInputError(f"{name} must be a list, but got one string: put it in a list")
    # Its keys would be taken, or the names of a table's columns.
    if isinstance(value, Mapping) or hasattr(value, "columns"):
        part = "its values()" if isinstance(value, Mapping) else "one of its columns"
        raise InvalidInputError(
            f"{name} must be a list, but got a {type(value).__name__}: pass {part}"
        )
    try:
        # Not isinstance(): a zero-dimensional array has __iter__, which then raises.
        return iter(value)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        raise InvalidInputError(
            f"{name} must be a list or another iterable, but got {type(value).__name__}"
        ) from error


def kind_of(value: object) -> str:
    """What something is, for a message; a class in place of its object is told apart."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def text_of(value: object) -> str:
    """Where the text of something is that stands in place of one, for a message."""
    if hasattr(value, "candidate"):
        return ": pass its candidate"
    for name, adapters in (("page_content", "langchain"), ("get_content", "llama_index")):
        if hasattr(value, name):
            called = "()" if name == "get_content" else ""
            return (
                f": pass its {name}{called}, or rerank it as it is with rerank_plugins.{adapters}"
            )
    return ""


def check_names(ids: object) -> list[str]:
    """Ids of a framework's documents, each once, in the order given.

    Raises:
        InvalidInputError: If it is not a list, or an element is not text.
    """
    return list(dict.fromkeys(check_id(name) for name in check_iterable("ids", ids)))


def check_id(value: object) -> str:
    """An id, once it is sure to be text that every library behind can take.

    Raises:
        InvalidInputError: If it is not text, has half of a surrogate pair (trec_eval's C code
            ends the process on one), or has more than 10,000 characters.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"every id must be text, but one is {type(value).__name__}")
    if len(value) > _LONGEST_ID:
        raise InvalidInputError(
            f"an id must have at most {_LONGEST_ID} characters, but one has {len(value)}"
        )
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"an id must be well-formed Unicode, but {value[:100]!a} has half of a surrogate "
                "pair; decode the file that it comes from as UTF-8"
            ) from None
    return value


def check_finite(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores as float64.

    Raises:
        NonFiniteScoreError: If a score is NaN, infinite or not a number.
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


def check_top_n(top_n: object) -> int | None:
    """The number, or None for all."""
    return None if top_n is None else check_count("top_n", top_n)


def check_number(name: str, value: object) -> float:
    """The value as a finite float.

    Raises:
        InvalidInputError: If it is not a number (a bool is not), NaN or infinite.
    """
    if not is_number(value):
        raise InvalidInputError(f"{name} must be a finite number, but got {value!r}")
    return float(value)  # type: ignore[arg-type]


def is_number(value: Any) -> bool:
    """Whether the value is a finite number; a bool is not."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def check_threshold(threshold: object) -> float | None:
    """The threshold, or None."""
    return None if threshold is None else check_number("score_threshold", threshold)


def check_weight(weight: object) -> float | None:
    """The first stage's share, or None for the model's default."""
    if weight is None:
        return None
    share = check_number("first_stage_weight", weight)
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"first_stage_weight must be between 0 and 1, but got {weight!r}")
    return share


def check_deadline(deadline_ms: object) -> float | None:
    """Milliseconds; None (or infinity) means no limit."""
    if deadline_ms is None or (isinstance(deadline_ms, float) and deadline_ms == math.inf):
        return None
    limit = check_number("deadline_ms", deadline_ms)
    if limit <= 0:
        raise InvalidInputError(f"deadline_ms must be above 0, but got {deadline_ms!r}")
    return limit


def check_flag(name: str, value: object) -> bool:
    """The value as a bool.

    Raises:
        InvalidInputError: If it is not a bool.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"{name} must be True or False, but got {value!r}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Checks that the value is one of the choices.

    Raises:
        InvalidInputError: If it is not.
    """
    # An array would be compared element by element.
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} must be one of {known}, but got {value!r}")
