"""The HTML report: one page, no other file, readable in dark and light and in any script."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from rerank_plugins import __version__
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.results import Comparison, Hurt, shown

_WORST: Final = 10
_SHOWN_CHARACTERS: Final = 600
_POINTS: Final = 1500
# What HTML does not allow in text; tabs and line ends stay.
_CONTROLS: Final = {code: " " for code in range(32) if code not in (9, 10, 13)}


def html_report(comparisons: Sequence[Comparison], *, worst: int = _WORST) -> str:
    """Comparisons as one page: systems with intervals, quality against time, worst queries.

    Text of the set is isolated (``bdi``, ``dir="auto"``), so that Arabic and Latin lines stay
    whole beside each other.

    Args:
        comparisons: One a set.
        worst: How many of the queries that reranking hurt most are shown a system.

    Raises:
        InvalidInputError: There is no comparison.
    """
    if not comparisons:
        raise InvalidInputError("a report needs at least one comparison, but got none")
    style = files("rerank_plugins.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    title = "Reranking: " + ", ".join(comparison.name for comparison in comparisons)
    body = "\n".join(_section(comparison, worst) for comparison in comparisons)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Which reranker for this data?</h1>\n{body}\n"
        f"<footer>rerank-plugins {_text(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )
    # A lone surrogate cannot be written as UTF-8; it becomes a question mark.
    return page.encode("utf-8", "replace").decode("utf-8")


def _section(comparison: Comparison, worst: int) -> str:
    rows = comparison.rows()
    parts = [
        f"<section>\n<h2>{_bdi(comparison.name)}</h2>",
        _introduction(comparison),
        _systems(comparison, rows),
        _scatter(comparison.measures[0], rows),
    ]
    for name, system in comparison.systems.items():
        if system.reranker is not None:
            parts.append(_gains(comparison, name))
            parts.append(_pictures(comparison, name))
            parts.append(_worst(comparison, name, worst))
    return "\n".join([*parts, "</section>"])


def _introduction(comparison: Comparison) -> str:
    return (
        f"<p>{len(comparison.queries)} questions over {len(comparison.corpus)} passages, "
        f"{comparison.candidates} candidates at most. {_bdi(comparison.measures[0])} is the "
        f"main measure; gains are against {_bdi(comparison.baseline)}, with p-values of a paired "
        "randomization test corrected by Holm. Intervals are 95% bootstrap intervals. The bound "
        "is what a perfect order of the same candidates would get.</p>"
    )


def _systems(comparison: Comparison, rows: Sequence[dict[str, Any]]) -> str:
    main, *others = comparison.measures
    heads = ["", "system", main, "95% interval", "", *others, "bound", "gain", "95%", "p (Holm)"]
    heads += ["p50 ms", "p95 ms", "pairs/s"]
    lines = []
    for number, row in enumerate(rows, start=1):
        speed = row["pairs_per_second"]
        cells = [
            _cell(str(number)),
            f'<th scope="row" dir="auto">{_bdi(row["system"])}</th>',
            _cell(f"{row[main]:.3f}"),
            f"<td>{_bar(row, main)}</td>",
            _cell(shown(row["interval"])),
            *(_cell(f"{row[measure]:.3f}") for measure in others),
            _cell(f"{row['bound']:.3f}"),
            _cell("" if row["gain"] is None else f"{row['gain']:+.3f}"),
            _cell(shown(row["gain_interval"], sign="+")),
            _cell("" if row["p_value"] is None else f"{row['p_value']:.4f}"),
            _cell(f"{1000 * row['seconds_p50']:.1f}"),
            _cell(f"{1000 * row['seconds_p95']:.1f}"),
            _cell("" if speed is None else f"{speed:.0f}"),
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    return (
        '<div class="wide"><table>\n<thead><tr>'
        + head
        + "</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody>\n</table></div>"
    )


def _bar(row: dict[str, Any], measure: str) -> str:
    """Bound, interval and mean of a system on a line from 0 to 1."""
    mean = row[measure]
    low, high = row["interval"] or (mean, mean)
    width, middle = 180, 9
    return (
        f'<svg class="bar" viewBox="0 0 {width} 18" width="{width}" height="18" role="img" '
        f'aria-label="{mean:.3f}, {low:.3f} to {high:.3f}, bound {row["bound"]:.3f}">'
        f'<rect class="track" x="0" y="7" width="{width}" height="4"/>'
        f'<rect class="bound" x="{row["bound"] * width - 1:.1f}" y="2" width="2" height="14"/>'
        f'<rect class="interval" x="{low * width:.1f}" y="5" '
        f'width="{max(1.0, (high - low) * width):.1f}" height="8"/>'
        f'<circle class="mean" cx="{mean * width:.1f}" cy="{middle}" r="4"/></svg>'
    )


def _scatter(measure: str, rows: Sequence[dict[str, Any]]) -> str:
    """Quality against median time, time on a logarithmic axis; points have the table's numbers."""
    width, height, left, bottom = 560, 260, 50, 34
    logs = [math.log10(max(row["seconds_p50"], 1e-5)) for row in rows]
    first, last = math.floor(min(logs)), math.floor(max(logs)) + 1
    values: list[float] = [row[measure] for row in rows]
    low = math.floor(min(values) * 10) / 10
    high = max(low + 0.1, math.ceil(max(values) * 10) / 10)

    def across(log: float) -> float:
        return left + (log - first) / (last - first) * (width - left - 40)

    def up(value: float) -> float:
        return 12 + (high - value) / (high - low) * (height - bottom - 12)

    marks = []
    for power in range(first, last + 1):
        x = across(power)
        name = f"{10.0**power:g} s"
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{up(low):.1f}"/>')
        marks.append(f'<text x="{x:.1f}" y="{height - 16}" text-anchor="middle">{name}</text>')
    for step in range(round(low * 10), round(high * 10) + 1):
        y = up(step / 10)
        marks.append(
            f'<line class="grid" x1="{left}" x2="{width - 40}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        marks.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{step / 10:.1f}</text>'
        )
    for number, (log, value) in enumerate(zip(logs, values, strict=True), start=1):
        x, y = across(log), up(value)
        marks.append(f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        marks.append(f'<text class="label" x="{x + 8:.1f}" y="{y - 6:.1f}">{number}</text>')
    return (
        f'<figure><svg class="plot" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="quality against time">{"".join(marks)}</svg>'
        f"<figcaption>{_text(measure)} against the median time of a query; numbers are the "
        "table's.</figcaption></figure>"
    )


def _gains(comparison: Comparison, name: str) -> str:
    """One column a query, sorted: how much reranking gained or lost on it."""
    system = comparison.systems[name]
    measure = comparison.measures[0]
    before = comparison.systems[system.first_stage].values[measure]
    gains = sorted((system.values[measure] - before).tolist(), reverse=True)
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    width, height = 560.0, 120
    # No more columns than the picture has room for: neighbours of a large set are alike.
    step = max(1, math.ceil(len(gains) / 280))
    columns = gains[::step]
    each = width / len(columns)
    bars = [
        f'<rect class="{"gain" if gain > 0 else "loss"}" x="{place * each:.2f}" '
        f'y="{height / 2 * (1 - max(gain, 0.0)):.1f}" width="{each * 0.85:.2f}" '
        f'height="{height / 2 * abs(gain):.1f}"/>'
        for place, gain in enumerate(columns)
        if gain != 0
    ]
    return (
        f'<h3 dir="auto">{_bdi(name)}</h3>\n<figure><svg class="plot" viewBox="0 0 {width:g} '
        f'{height}" width="{width:g}" height="{height}" role="img" aria-label="gain by query">'
        f'<line class="grid" x1="0" x2="{width:g}" y1="{height / 2:g}" y2="{height / 2:g}"/>'
        f"{''.join(bars)}</svg><figcaption>{_text(measure)} minus that of "
        f"{_bdi(system.first_stage)} alone, a column a question: better on {better}, worse on "
        f"{worse}, the same on {len(gains) - better - worse}.</figcaption></figure>"
    )


def _pictures(comparison: Comparison, name: str) -> str:
    """Calibration, and scores against length; nothing where matplotlib is not installed."""
    passages = comparison.scored_passages(name)
    if find_spec("matplotlib") is None or not passages.scores.size:
        return ""
    from matplotlib.figure import Figure

    from rerank_plugins.display.plots import plot_calibration, plot_score_length

    scores, relevant = passages.scores, passages.relevant
    probabilities = bool(scores.min() >= 0 and scores.max() <= 1)
    figure = Figure(figsize=(9.6 if probabilities else 4.8, 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + probabilities, squeeze=False)[0]
    # A picture needs no more points, and a page with each of a large set's would be slow.
    drawn = np.random.default_rng(comparison.seed).permutation(scores.size)[:_POINTS]
    plot_score_length(passages.words[drawn], scores[drawn], relevant=relevant[drawn], ax=axes[0])
    if probabilities:
        plot_calibration(scores, relevant, ax=axes[1])
    caption = f"Scores against length in words ({drawn.size} passages)"
    caption += ", and how far a score is a probability." if probabilities else "."
    return (
        f'<figure class="paper">{_svg(figure, name)}<figcaption>{_text(caption)}</figcaption>'
        "</figure>"
    )


def _svg(figure: Any, salt: str) -> str:
    """A matplotlib figure as inline SVG; the salt keeps names inside it apart from others'."""
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context({"svg.hashsalt": salt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _worst(comparison: Comparison, name: str, worst: int) -> str:
    hurt = comparison.hurt_most(name, worst)
    if not hurt:
        return "<p>Reranking hurt no question.</p>"
    items = "\n".join(_hurt(one, comparison.measures[0]) for one in hurt)
    return f"<h4>The questions that it hurt most</h4>\n<ol>\n{items}\n</ol>"


def _hurt(one: Hurt, measure: str) -> str:
    ranks = (
        "no relevant passage was found"
        if one.rank_before is None
        else f"relevant passage from rank {one.rank_before} to "
        + ("nowhere" if one.rank_after is None else str(one.rank_after))
    )
    passages = "".join(
        f'<dt>{label}</dt><dd dir="auto">{_text(_cut(text))}</dd>'
        for label, text in (("relevant", one.relevant), ("put first", one.preferred))
        if text is not None
    )
    return (
        f'<li><p class="query" dir="auto">{_text(one.query)}</p>'
        f"<p>{_text(measure)} {one.before:.3f} to {one.after:.3f}; {ranks}; "
        f"{_bdi(one.query_id)}</p><dl>{passages}</dl></li>"
    )


def _cell(value: str) -> str:
    return f'<td class="number">{_text(value)}</td>'


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS].rstrip() + "…"


def _bdi(text: str) -> str:
    return f"<bdi>{_text(text)}</bdi>"


def _text(text: str) -> str:
    return escape(text.translate(_CONTROLS))
