"""The rules of the numbers and choices that users give; each says the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.ordering import check_count


def check_top_n(top_n: object) -> int | None:
    """The number, or None for all."""
    return None if top_n is None else check_count("top_n", top_n)


def check_number(name: str, value: object) -> float:
    """The value as a finite float.

    Raises:
        InvalidInputError: It is no number (a bool is none), NaN or infinite.
    """
    if not is_number(value):
        raise InvalidInputError(f"{name} must be a finite number, but got {value!r}")
    return float(value)  # type: ignore[arg-type]


def is_number(value: Any) -> bool:
    """Whether the value is a finite number; a bool is none."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def check_threshold(threshold: object) -> float | None:
    """The threshold, or None for none."""
    return None if threshold is None else check_number("score_threshold", threshold)


def check_weight(weight: object) -> float | None:
    """The share of the first stage, or None for the model's own."""
    if weight is None:
        return None
    share = check_number("first_stage_weight", weight)
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"first_stage_weight must be between 0 and 1, but got {weight!r}")
    return share


def check_deadline(deadline_ms: object) -> float | None:
    """Milliseconds, or None for no limit, which infinity is too."""
    if deadline_ms is None or (isinstance(deadline_ms, float) and deadline_ms == math.inf):
        return None
    limit = check_number("deadline_ms", deadline_ms)
    if limit <= 0:
        raise InvalidInputError(f"deadline_ms must be above 0, but got {deadline_ms!r}")
    return limit


def check_flag(name: str, value: object) -> bool:
    """The value as a bool.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"{name} must be True or False, but got {value!r}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Nothing, when the value is one of the choices.

    Raises:
        InvalidInputError: It is not.
    """
    # An array would be compared with each of them, element by element.
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} must be one of {known}, but got {value!r}")
