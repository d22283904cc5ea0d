"""Is a difference more than chance? Paired randomization test, bootstrap, Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins.errors import InvalidInputError

Interval = tuple[float, float]

RESAMPLES: Final = 9_999
# Numbers that one batch of resamples may hold: 16 MB, whatever the number of queries.
_BATCH_NUMBERS: Final = 2_000_000


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of the mean.

    Measures take few distinct values, so a sample is drawn as how often it has each of them
    (multinomial), which is the same draw and takes no time that grows with the queries.

    Args:
        values: Shape (queries,), one value or one paired difference per query.
        confidence: Between 0 and 1.
        resamples: Drawn samples of the queries.
        seed: Of the draws.

    Returns:
        Low and high end; None for fewer than two queries, which show no spread.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size < 2:
        return None
    return _percentiles(_resampled_means(given, resamples, np.random.default_rng(seed)), confidence)


def interval_of_set_means(
    sets: Sequence[ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of a mean over sets, each set counting alike.

    Queries are resampled within each set (a stratified bootstrap), so the interval is about
    these sets' questions and says nothing of other sets.

    Args:
        sets: One array of shape (queries,) per set.
        confidence: Between 0 and 1.
        resamples: Drawn samples of the queries.
        seed: Of the draws.

    Returns:
        Low and high end; None where a set has fewer than two queries, or there is no set.
    """
    given = [np.asarray(values, dtype=np.float64) for values in sets]
    if not given or any(values.size < 2 for values in given):
        return None
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for values in given:
        means += _resampled_means(values, resamples, rng) / len(given)
    return _percentiles(means, confidence)


def _resampled_means(
    values: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    distinct, counts = np.unique(values, return_counts=True)
    n = int(counts.sum())
    return np.concatenate(
        [
            rng.multinomial(n, counts / n, size=size) @ distinct / n
            for size in _batches(resamples, distinct.size)
        ]
    )


def _percentiles(means: NDArray[np.float64], confidence: float) -> Interval:
    outside = (1.0 - confidence) / 2
    low, high = np.quantile(means, [outside, 1.0 - outside])
    return float(low), float(high)


def randomization_test(
    one: ArrayLike, other: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p-value of a paired randomization test of the means.

    Fisher's test, which Smucker, Allan and Carterette (CIKM 2007) recommend for retrieval
    measures: if the systems were alike, each query's two values could be swapped, that is,
    each difference could have the other sign. Differences of one size are swapped
    together: how many of them keep their sign is binomial.

    Args:
        one: Shape (queries,).
        other: The same queries in the same order.
        resamples: How many times all signs are drawn; the observation counts as one more, so
            that the smallest p-value is 1 / (resamples + 1).
        seed: Of the draws.

    Raises:
        InvalidInputError: If the shapes differ.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (one, other))
    if first.shape != second.shape or first.ndim != 1:
        raise InvalidInputError(
            "a paired test needs one value per query from both systems, but got shapes "
            f"{first.shape} and {second.shape}"
        )
    difference = first - second
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    if not sizes.size:
        return 1.0
    rng = np.random.default_rng(seed)
    # Equal sums may differ in their last bits; they count as equal.
    observed = abs(float(difference.sum())) - 1e-9
    as_far = 0
    for size in _batches(resamples, sizes.size):
        kept: NDArray[np.int64] = rng.binomial(counts, 0.5, size=(size, sizes.size))
        as_far += int((np.abs((2 * kept - counts) @ sizes) >= observed).sum())
    return (1 + as_far) / (1 + resamples)


def _batches(resamples: int, width: int) -> Iterator[int]:
    """How many resamples of that width to draw at a time."""
    at_a_time = max(1, _BATCH_NUMBERS // width)
    for start in range(0, resamples, at_a_time):
        yield min(at_a_time, resamples - start)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979), in the order given.

    The k-th smallest of n is multiplied by n - k + 1, never falls below a smaller one's, and
    never exceeds 1: the chance of even one false alarm among them all stays below the level.
    """
    order = np.argsort(p_values, kind="stable")
    n = len(p_values)
    corrected = np.empty(n)
    highest = 0.0
    for place, at in enumerate(order):
        highest = max(highest, min(1.0, (n - place) * p_values[at]))
        corrected[at] = highest
    return [float(value) for value in corrected]
