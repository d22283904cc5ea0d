"""The HTML report: one page, no other file, readable in dark and light and in any script.

`html_report` is what others may use; `charts` draws, `circumstances` says when and on what
machine the figures were taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.report import charts
from rerank_plugins.evaluation.report.circumstances import circumstances
from rerank_plugins.evaluation.results import Comparison
from rerank_plugins.evaluation.systems import Hurt
from rerank_plugins.evaluation.tables import legend, means_over_sets, shown
from rerank_plugins.evaluation.verdict import LEVEL, Verdict, verdicts

__all__ = ["html_report"]

_WORST: Final = 10
_SHOWN_CHARACTERS: Final = 600
# What HTML does not allow in text; tabs and line ends stay.
_CONTROLS: Final = {code: " " for code in range(32) if code not in (9, 10, 13)}
_WITHOUT_MATPLOTLIB: Final = (
    '<p class="note">The plots of scores over length and of calibration are left out: they need '
    "matplotlib (<code>pip install 'rerank-plugins[display]'</code>).</p>"
)


def html_report(
    comparisons: Sequence[Comparison],
    path: str | Path | None = None,
    *,
    worst: int = _WORST,
    command: str | None = None,
) -> str:
    """Comparisons as one page: the answer, systems with intervals, plots, worst queries.

    Text of the set is isolated (``bdi``, ``dir="auto"``), so that Arabic and Latin lines stay
    whole beside each other. Score plots need matplotlib; the page says so where it is missing.

    Args:
        comparisons: One per set.
        path: File to write the page to; None for none.
        worst: How many of the queries that reranking hurt most are shown per system.
        command: The command that made the comparisons, to be shown.

    Returns:
        The page.

    Raises:
        InvalidInputError: If there is no comparison.
        OSError: If the file cannot be written.
    """
    if not comparisons:
        raise InvalidInputError("a report needs at least one comparison, but got none")
    style = files("rerank_plugins.evaluation.report").joinpath("report.css")
    title = "Reranking: " + ", ".join(comparison.name for comparison in comparisons)
    parts = [_answer(comparisons)]
    if len(comparisons) > 1:
        parts.append(_means(comparisons))
    parts += [_section(comparison, worst) for comparison in comparisons]
    if find_spec("matplotlib") is None:
        parts.append(_WITHOUT_MATPLOTLIB)
    body = "\n".join(parts)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>\n{style.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n<main>\n<h1>Does reranking help here?</h1>\n{body}\n"
        f"{_footer(command)}\n</main>\n</body>\n</html>\n"
    )
    # A lone surrogate cannot be written as UTF-8; it becomes a question mark.
    page = page.encode("utf-8", "replace").decode("utf-8")
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page


def _answer(comparisons: Sequence[Comparison]) -> str:
    """What the page is opened for, in a sentence per set: its best system's verdict."""
    lines = []
    for comparison in comparisons:
        found = verdicts(comparison)
        name = f"{_bdi(comparison.name)}: " if len(comparisons) > 1 else ""
        if not found:
            text = "no reranker was compared; the table has the first stages."
            lines.append(f'<p class="answer">{name}{text}</p>')
            continue
        lines.append(f'<p class="answer {found[0].kind}">{name}{found[0].text(_bdi)}</p>')
        lines += [f'<p class="further {one.kind}">{one.text(_bdi)}</p>' for one in found[1:]]
    return "\n".join(lines)


def _means(comparisons: Sequence[Comparison]) -> str:
    rows = means_over_sets(comparisons)
    return (
        f"<section>\n<h2>Means over {len(comparisons)} sets</h2>\n"
        "<p>Each set counts alike; intervals come from resampling the questions within each "
        f"set.</p>\n{_systems(comparisons[0].measures, rows)}</section>"
    )


def _section(comparison: Comparison, worst: int) -> str:
    rows = comparison.rows()
    size = f"{len(comparison.queries)} questions over {len(comparison.corpus)} passages"
    parts = [
        f"<section>\n<h2>{_bdi(comparison.name)}</h2>",
        f"<p>{size}, at most {comparison.candidates} candidates.</p>",
        _systems(comparison.measures, rows),
        f'<p class="legend">{_text(legend(comparison))}</p>',
        charts.quality_over_time(comparison.measures[0], rows),
    ]
    for verdict in verdicts(comparison):
        parts += _reranker(comparison, verdict, worst)
    return "\n".join([*parts, "</section>"])


def _reranker(comparison: Comparison, verdict: Verdict, worst: int) -> list[str]:
    name = verdict.difference.system
    told = comparison.rerankers.get(verdict.reranker, {})
    facts = [f"{key.replace('_', ' ')} {told[key]}" for key in _FACTS if told.get(key) is not None]
    return [
        f'<h3 dir="auto">{_bdi(name)}</h3>',
        f'<p class="legend">{_text(", ".join(facts))}</p>' if facts else "",
        charts.gains(comparison, name),
        charts.score_plots(comparison, name),
        _worst(comparison, name, worst),
    ]


_FACTS: Final = (
    "engine",
    "device",
    "precision",
    "first_stage_weight",
    "max_length",
    "window_tokens",
    "long_passages",
)


def _systems(measures: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    main, *others = measures
    heads = ["", "system", main, "", *others, "bound", "gain"]
    timed = any("seconds_p50" in row for row in rows)
    heads += ["p", "p50 ms", "p95 ms", "pairs/s"] if timed else []
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = [
            _cell(str(number)),
            f'<th scope="row" dir="auto">{_bdi(row["system"])}</th>',
            _cell(f"{row[main]:.3f}", shown(row["intervals"][main])),
            f"<td>{charts.bar(row, main)}</td>",
            *(_cell(f"{row[of]:.3f}", shown(row["intervals"][of])) for of in others),
            _cell(f"{row['bound']:.3f}"),
            _gain(row),
        ]
        if timed:
            cells += [
                _cell(_number(row["p_value"], ".4f")),
                _cell(f"{1000 * row['seconds_p50']:.1f}"),
                _cell(f"{1000 * row['seconds_p95']:.1f}"),
                _cell(_number(row["pairs_per_second"], ".0f")),
            ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    classes = ["text" if name == "system" else "number" for name in heads]
    head = "".join(
        f'<th scope="col" class="{kind}">{_text(name)}</th>'
        for kind, name in zip(classes, heads, strict=True)
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table></div>"
    )


def _gain(row: dict[str, Any]) -> str:
    gain, interval = row.get("gain"), row.get("gain_interval")
    if gain is None:
        return _cell("")
    sure = interval is not None and not interval[0] <= 0 <= interval[1]
    sure = sure and (row.get("p_value") or 0.0) < LEVEL
    kind = "" if not sure else "better" if gain > 0 else "worse"
    return _cell(f"{gain:+.3f}", shown(interval, sign="+"), kind)


def _footer(command: str | None) -> str:
    rows = "".join(
        f"<dt>{_text(name)}</dt><dd>{'<code>' if name == 'command' else ''}{_text(value)}"
        f"{'</code>' if name == 'command' else ''}</dd>"
        for name, value in circumstances(command)
    )
    return f"<footer><h2>How this was measured</h2><dl>{rows}</dl></footer>"


def _worst(comparison: Comparison, name: str, worst: int) -> str:
    hurt = comparison.hurt_most(name, worst)
    if not hurt:
        return "<p>Reranking hurt no question.</p>"
    items = "\n".join(_hurt(one, comparison.measures[0]) for one in hurt)
    return f"<h4>The questions that reranking hurt most</h4>\n<ol>\n{items}\n</ol>"


def _hurt(one: Hurt, measure: str) -> str:
    ranks = (
        "no relevant passage was found"
        if one.rank_before is None
        else f"relevant passage from rank {one.rank_before} to "
        + ("being left out" if one.rank_after is None else str(one.rank_after))
    )
    passages = "".join(
        f'<dt>{label}</dt><dd dir="auto">{_text(_cut(text))}</dd>'
        for label, text in (("relevant", one.relevant), ("ranked first", one.preferred))
        if text is not None
    )
    return (
        f'<li><p class="query" dir="auto">{_text(one.query)}</p>'
        f"<p>{_text(measure)} {one.before:.3f} to {one.after:.3f}; {ranks}; "
        f"{_bdi(one.query_id)}</p><dl>{passages}</dl></li>"
    )


def _cell(value: str, below: str = "", kind: str = "") -> str:
    small = f"<small>{_text(below)}</small>" if below else ""
    return f'<td class="number {kind}">{_text(value)}{small}</td>'


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS].rstrip() + "…"


def _bdi(text: str) -> str:
    return f"<bdi>{_text(text)}</bdi>"


def _text(text: str) -> str:
    return escape(text.translate(_CONTROLS))
