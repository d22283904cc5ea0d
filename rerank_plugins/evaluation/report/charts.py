"""The report's pictures: inline SVG that follows the page's colours, and matplotlib's plots."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from rerank_plugins.evaluation.results import Comparison

_POINTS: Final = 1500
_WIDTH: Final = 640
# matplotlib draws its text and axes in this colour, which the page then replaces by its own.
_INK: Final = "#010203"
_PAGE_COLOURS: Final[dict[Any, Any]] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(
        (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
            "legend.labelcolor",
        ),
        _INK,
    ),
}


def bar(row: Mapping[str, Any], measure: str) -> str:
    """Bound, interval and mean of a system on a line from 0 to 1."""
    mean = row[measure]
    low, high = row["intervals"][measure] or (mean, mean)
    width, middle = 140, 9
    return (
        f'<svg class="bar" viewBox="0 0 {width} 18" width="{width}" height="18" role="img" '
        f'aria-label="{mean:.3f}, {low:.3f} to {high:.3f}, bound {row["bound"]:.3f}">'
        f'<rect class="track" x="0" y="7" width="{width}" height="4"/>'
        f'<rect class="bound" x="{row["bound"] * (width - 2):.1f}" y="2" width="2" height="14"/>'
        f'<rect class="interval" x="{low * width:.1f}" y="5" '
        f'width="{max(1.0, (high - low) * width):.1f}" height="8"/>'
        f'<circle class="mean" cx="{mean * width:.1f}" cy="{middle}" r="4"/></svg>'
    )


def quality_over_time(measure: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Quality over median time, time on a logarithmic axis; points have the table's numbers."""
    height, left, right, top, bottom = 300, 64, 24, 16, 56
    logs = [math.log10(max(row["seconds_p50"], 1e-5)) for row in rows]
    first, last = math.floor(min(logs)), math.floor(max(logs)) + 1
    values: list[float] = [row[measure] for row in rows]
    low = math.floor(min(values) * 10) / 10
    high = max(low + 0.1, math.ceil(max(values) * 10) / 10)

    def across(log: float) -> float:
        return left + (log - first) / (last - first) * (_WIDTH - left - right)

    def up(value: float) -> float:
        return top + (high - value) / (high - low) * (height - bottom - top)

    marks = []
    for power in range(first, last + 1):
        x = across(power)
        marks.append(_line(x, x, top, up(low)))
        marks.append(_label(x, height - bottom + 18, _seconds(10.0**power), "middle"))
    for step in range(round(low * 10), round(high * 10) + 1):
        y = up(step / 10)
        marks.append(_line(left, _WIDTH - right, y, y))
        marks.append(_label(left - 8, y + 4, f"{step / 10:.1f}", "end"))
    for number, (log, value) in enumerate(zip(logs, values, strict=True), start=1):
        x, y = across(log), up(value)
        marks.append(f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        marks.append(f'<text class="label" x="{x + 8:.1f}" y="{y - 6:.1f}">{number}</text>')
    marks += _titles("median time per query (log scale)", measure, height, (top, bottom))
    return _figure(
        _plot(marks, height, "quality over time"),
        f"{escape(measure)} over the median time per query; the numbers are those of the table's "
        "rows. Up and to the left is better.",
    )


def gains(comparison: Comparison, name: str) -> str:
    """One column per query, sorted: how much reranking gained or lost on it."""
    system = comparison.systems[name]
    measure = comparison.measures[0]
    before = comparison.systems[system.first_stage].values[measure]
    found = sorted((system.values[measure] - before).tolist(), reverse=True)
    better, worse = sum(gain > 0 for gain in found), sum(gain < 0 for gain in found)
    height, left, right, top, bottom = 200, 64, 24, 12, 40
    # No more columns than the picture has room for: neighbours of a large set are alike.
    columns = found[:: max(1, math.ceil(len(found) / 280))]
    each = (_WIDTH - left - right) / len(columns)
    half = (height - top - bottom) / 2
    middle = top + half
    marks = []
    for value in (1.0, 0.5, 0.0, -0.5, -1.0):
        y = middle - half * value
        marks.append(_line(left, _WIDTH - right, y, y))
        marks.append(_label(left - 8, y + 4, f"{value:+.1f}" if value else "0", "end"))
    marks += [
        f'<rect class="{"gain" if gain > 0 else "loss"}" x="{left + place * each:.2f}" '
        f'y="{middle - half * max(gain, 0.0):.1f}" width="{each * 0.85:.2f}" '
        f'height="{half * abs(gain):.1f}"/>'
        for place, gain in enumerate(columns)
        if gain != 0
    ]
    marks += _titles("questions, best gain first", f"gain in {measure}", height, (top, bottom))
    return _figure(
        _plot(marks, height, "gain by question"),
        f"{escape(measure)} minus that of <bdi>{escape(system.first_stage)}</bdi> alone, one "
        f"column per question: better on {better}, worse on {worse}, the same on "
        f"{len(found) - better - worse}.",
    )


def score_plots(comparison: Comparison, name: str) -> str:
    """Scores over length, and calibration where scores are probabilities; needs matplotlib."""
    passages = comparison.scored_passages(name)
    if find_spec("matplotlib") is None or not passages.scores.size:
        return ""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from rerank_plugins.display.plots import plot_calibration, plot_score_length

    scores, relevant, words = passages.scores, passages.relevant, passages.words
    probabilities = bool(scores.min() >= 0 and scores.max() <= 1)
    # A picture needs no more points, and a page with each of a large set's would be slow.
    drawn = np.random.default_rng(comparison.seed).permutation(scores.size)[:_POINTS]
    drawings = []
    with rc_context({**_PAGE_COLOURS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.8, 3.8), layout="constrained")
        axes = figure.subplots()
        plot_score_length(words[drawn], scores[drawn], relevant=relevant[drawn], ax=axes)
        axes.set_xlabel("length of the passage (words)")
        drawings.append(_svg(figure))
        if probabilities:
            figure = Figure(figsize=(4.8, 3.8), layout="constrained")
            plot_calibration(scores, relevant, ax=figure.subplots())
            drawings.append(_svg(figure))
    caption = f"Scores over length ({drawn.size} passages)"
    caption += ", and how far a score is a probability." if probabilities else "."
    return _figure(f'<div class="plots">{"".join(drawings)}</div>', caption)


def _svg(figure: Any) -> str:
    """A matplotlib figure as inline SVG in the page's own ink."""
    drawn = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawn, format="svg", metadata=nothing)
    text = drawn.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _plot(marks: Sequence[str], height: int, name: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{name}">{"".join(marks)}</svg>'
    )


def _titles(across: str, up: str, height: int, margins: tuple[int, int]) -> list[str]:
    """Both axes' titles."""
    middle = margins[0] + (height - sum(margins)) / 2
    places = (
        f'x="{_WIDTH / 2}" y="{height - 8}"',
        f'x="16" y="{middle:g}" transform="rotate(-90 16 {middle:g})"',
    )
    return [
        f'<text class="title" text-anchor="middle" {place}>{escape(text)}</text>'
        for place, text in zip(places, (across, up), strict=True)
    ]


def _line(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"
