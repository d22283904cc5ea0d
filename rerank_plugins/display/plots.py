"""Plots for the choice of a model: quality against latency, calibration, length bias.

Each draws on the given axes, or on a new figure with a white background, which can be read on
a dark page too. Arabic labels need matplotlib 3.11, the first version that shapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Middle tones, which stand out from a light and from a dark page.
_BLUE: Final = "#3d94d6"
_ORANGE: Final = "#e0802b"


def plot_quality_latency(
    points: Mapping[str, tuple[float, float]],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    measure: str = "nDCG@10",
    ax: Axes | None = None,
) -> Axes:
    """Quality over the time that a query takes; up and to the left is better.

    Args:
        points: By the system's name, its quality and its seconds per query.
        intervals: Lower and upper end of the quality, for those systems that have them.
        measure: Name of the quality measure, for the axis.
        ax: Where to draw; None for a new figure.

    Raises:
        InvalidInputError: If there is no point, a number is not finite or a time is not above 0.
        MissingDependencyError: matplotlib is not installed.
    """
    if not points:
        raise InvalidInputError("points must have at least one system, but got none")
    for name, (quality, seconds) in points.items():
        if not (np.isfinite(quality) and np.isfinite(seconds) and seconds > 0):
            raise InvalidInputError(
                "quality must be finite and seconds finite and above 0, but "
                f"{name!r} has {quality!r} and {seconds!r}"
            )
    axes = _axes(ax)
    for name, (quality, seconds) in points.items():
        milliseconds = 1000 * seconds
        error = None
        if intervals is not None and name in intervals:
            low, high = intervals[name]
            error = [[max(0.0, quality - low)], [max(0.0, high - quality)]]
        axes.errorbar(milliseconds, quality, yerr=error, fmt="o", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds per query (median)")
    axes.set_ylabel(measure)
    axes.grid(visible=True, alpha=0.3)
    # Names beside the points would lie on each other: systems of one model are near neighbours.
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return axes


def plot_calibration(
    scores: ArrayLike, labels: ArrayLike, *, bins: int = 10, ax: Axes | None = None
) -> Axes:
    """Reliability diagram: how often passages with a score of 0.8 are in fact relevant.

    Bins have equal width. The title has the `calibration_error`: the mean distance
    between score and share of relevant passages, weighted by the passages in each bin
    (Guo et al., On calibration of modern neural networks, ICML 2017).

    Args:
        scores: Probabilities, shape (n,).
        labels: 1 or True for relevant, shape (n,).
        bins: How many bins.
        ax: Where to draw; None for a new figure.

    Raises:
        InvalidInputError: If a score is outside [0, 1], the shapes differ, or there are none.
        MissingDependencyError: matplotlib is not installed.
    """
    given, truth = _probabilities(scores, labels)
    mean, share, count = _reliability(given, truth, check_count("bins", bins, minimum=1))
    error = calibration_error(given, truth, bins=bins)
    axes = _axes(ax)
    axes.plot([0, 1], [0, 1], linestyle="--", color="0.6", label="perfect")
    axes.plot(mean, share, marker="o", color=_BLUE, label="model")
    for x, y, passages in zip(mean, share, count, strict=True):
        axes.annotate(
            str(int(passages)), (x, y), xytext=(5, -11), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("mean score of the passages")
    axes.set_ylabel("share that is relevant")
    axes.set_title(f"expected calibration error {error:.3f}, {given.size} passages", fontsize=10)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05, 1.05)
    axes.legend(frameon=False)
    return axes


def calibration_error(scores: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: how far scores are from the share of relevant passages.

    Bins have equal width; the mean distance between score and share of relevant passages is
    weighted by the passages in each bin (Guo et al., On calibration of modern neural networks,
    ICML 2017). 0 is perfect.

    Args:
        scores: Probabilities, shape (n,).
        labels: 1 or True for relevant, shape (n,).
        bins: How many bins.

    Raises:
        InvalidInputError: If a score is outside [0, 1], the shapes differ, or there are none.
    """
    given, truth = _probabilities(scores, labels)
    mean, share, count = _reliability(given, truth, check_count("bins", bins, minimum=1))
    return float(np.abs(mean - share) @ count / count.sum())


def plot_score_length(
    lengths: Sequence[int] | NDArray[Any],
    scores: ArrayLike,
    *,
    relevant: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Scores over passage length: does the model favour long passages?

    The title has Spearman's correlation. With ``relevant`` it is that of the passages that are
    not relevant: among those, an unbiased model shows no correlation, while relevant passages
    may well be longer than others.

    Args:
        lengths: Of the passages, in words or tokens, shape (n,).
        scores: Higher is better, shape (n,).
        relevant: 1 or True for relevant, shape (n,); None when unknown.
        ax: Where to draw; None for a new figure.

    Raises:
        InvalidInputError: If the shapes differ, there are no passages, or a number is not finite.
        MissingDependencyError: matplotlib is not installed.
    """
    long, given = _paired("scores", lengths, scores)
    chosen = np.zeros(long.size, dtype=bool)
    if relevant is not None:
        chosen = _paired("relevant", long, relevant)[1].astype(bool)
    correlation = _spearman(long[~chosen], given[~chosen])
    axes = _axes(ax)
    axes.scatter(long[~chosen], given[~chosen], s=14, alpha=0.7, color=_BLUE, label="not relevant")
    if relevant is not None:
        axes.scatter(long[chosen], given[chosen], s=18, marker="^", color=_ORANGE, label="relevant")
        axes.legend(frameon=False)
    axes.set_xlabel("length of the passage")
    axes.set_ylabel("score")
    told = "no correlation" if correlation is None else f"Spearman {correlation:+.2f}"
    axes.set_title(f"{told}, {int((~chosen).sum())} passages", fontsize=10)
    return axes


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib: pip install 'rerank-plugins[display]'"
        ) from error
    return plt.subplots(figsize=(6, 4), layout="constrained")[1]


def _paired(name: str, first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or one.size == 0:
        raise InvalidInputError(
            f"{name} must match the other values in number, and be at least one, but got shapes "
            f"{one.shape} and {other.shape}"
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise InvalidInputError(f"{name} and the other values must be finite")
    return one, other


def _probabilities(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    given, truth = _paired("labels", scores, labels)
    if given.min() < 0 or given.max() > 1:
        raise InvalidInputError(
            "scores must be probabilities in [0, 1], but got "
            f"{given.min():g} to {given.max():g}: a Reranker with scale='probability' gives them"
        )
    if not np.isin(truth, (0.0, 1.0)).all():
        raise InvalidInputError("labels must be 0 or 1, but there are others")
    return given, truth


def _reliability(
    scores: NDArray[Any], labels: NDArray[Any], bins: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean score, share of relevant ones and count of each bin that has any; shape (m,)."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    mean = np.bincount(place, weights=scores, minlength=bins)[used] / count[used]
    share = np.bincount(place, weights=labels, minlength=bins)[used] / count[used]
    return mean, share, count[used]


def _spearman(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where it is undefined."""
    ranks: list[NDArray[np.float64]] = []
    for values in (one, other):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        if counts.size < 2:
            return None
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
