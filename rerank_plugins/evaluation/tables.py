"""Comparisons as plain text: a row per system, and what the columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from typing_extensions import Protocol

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.significance import Interval, interval_of_set_means

MEAN_OF_SETS = "mean of sets"


class Tabled(Protocol):
    """What of a `Comparison` a table needs."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names; the first is the main one."""
        ...

    @property
    def seed(self) -> int:
        """Of all resampling."""
        ...

    @property
    def baseline(self) -> str:
        """The first system's name."""
        ...

    @property
    def systems(self) -> Mapping[str, Any]:
        """By name."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """One record per system."""
        ...


def table(comparisons: Sequence[Tabled], *, notes: bool = True) -> str:
    """Comparisons of the same measures as one table of plain text.

    With more than one, the last rows are `means_over_sets`.

    Args:
        comparisons: One per data set.
        notes: Whether to say below what the columns mean.

    Raises:
        InvalidInputError: If there is no comparison, or their measures differ.
    """
    measures = _measures(comparisons)
    rows = [row for comparison in comparisons for row in comparison.rows()]
    if len(comparisons) > 1:
        rows += means_over_sets(comparisons)
    text = _tabulated(rows, measures)
    return f"{text}\n\n{legend(comparisons[0])}" if notes else text


def means_table(comparisons: Sequence[Tabled]) -> str:
    """`means_over_sets` as plain text.

    Raises:
        InvalidInputError: If there is no comparison, or their measures differ.
    """
    return _tabulated(means_over_sets(comparisons), _measures(comparisons))


def means_over_sets(comparisons: Sequence[Tabled]) -> list[dict[str, Any]]:
    """A row per system that all sets have: means over the sets, each set counting alike.

    Intervals come from resampling the queries within each set, so they say how far these sets'
    questions determine the mean, not what other sets would give.

    Raises:
        InvalidInputError: If there is no comparison, or their measures differ.
    """
    measures = _measures(comparisons)
    seed = comparisons[0].seed
    rows = []
    for name in comparisons[0].systems:
        if not all(name in comparison.systems for comparison in comparisons):
            continue
        systems = [comparison.systems[name] for comparison in comparisons]
        own = [next(r for r in c.rows() if r["system"] == name) for c in comparisons]
        row: dict[str, Any] = {
            "set": MEAN_OF_SETS,
            "queries": sum(one["queries"] for one in own),
            "system": name,
            "intervals": {
                of: interval_of_set_means([one.values[of] for one in systems], seed=seed)
                for of in measures
            },
            "bound": float(np.mean([one["bound"] for one in own])),
            **{of: float(np.mean([one.values[of].mean() for one in systems])) for of in measures},
        }
        row["interval"] = row["intervals"][measures[0]]
        against = own[0]["against"]
        if against is not None and all(one["against"] == against for one in own):
            gains = [
                one.values[measures[0]] - comparison.systems[against].values[measures[0]]
                for one, comparison in zip(systems, comparisons, strict=True)
            ]
            row |= {
                "against": against,
                "gain": float(np.mean([gain.mean() for gain in gains])),
                "gain_interval": interval_of_set_means(gains, seed=seed),
            }
        rows.append(row)
    return rows


def legend(comparison: Tabled) -> str:
    """What the columns of a table mean."""
    main, baseline = comparison.measures[0], comparison.baseline
    first_stages = sum(system.reranker is None for system in comparison.systems.values())
    others = f" (for a further first stage: minus that of {baseline})" if first_stages > 1 else ""
    gain = (
        f"gain: {main} minus that of the system's own first stage without reranking{others}; "
        "if its interval contains 0, the difference is not significant."
    )
    return "\n".join(
        (
            "[low, high]: 95% bootstrap interval over the queries.",
            f"bound: {main} of a perfect order of the same candidates.",
            gain,
            "p: paired randomization test with Holm's correction for the rows of a set.",
            "p50, p95: milliseconds per query, first stage included.",
        )
    )


def shown(interval: Interval | None, *, sign: str = "") -> str:
    """An interval as tables have it."""
    return "" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


def _measures(comparisons: Sequence[Tabled]) -> tuple[str, ...]:
    if len({comparison.measures for comparison in comparisons}) != 1:
        raise InvalidInputError("a table needs comparisons of the same measures")
    return comparisons[0].measures


def _tabulated(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> str:
    from tabulate import tabulate

    headers = ["set", "queries", "system", *measures, "bound", "gain", "p", "p50 ms", "p95 ms"]
    headers.append("pairs/s")
    body = [_cells(row, measures) for row in rows]
    used = [at for at in range(len(headers)) if any(cells[at] != "" for cells in body)]
    return tabulate(
        [[cells[at] for at in used] for cells in body],
        headers=[headers[at] for at in used],
        disable_numparse=True,
        colalign=["left" if headers[at] in ("set", "system") else "right" for at in used],
    )


def _cells(row: Mapping[str, Any], measures: Sequence[str]) -> list[Any]:
    """A row of `Comparison.rows`, or of their means, as the table's columns have it."""

    def number(name: str, how: str, times: float = 1.0) -> str:
        value = row.get(name)
        return "" if value is None else format(times * value, how)

    return [
        row["set"],
        row["queries"],
        row["system"],
        *(f"{number(of, '.3f')} {shown(row['intervals'][of])}".strip() for of in measures),
        number("bound", ".3f"),
        f"{number('gain', '+.3f')} {shown(row.get('gain_interval'), sign='+')}".strip(),
        number("p_value", ".4f"),
        number("seconds_p50", ".1f", 1000),
        number("seconds_p95", ".1f", 1000),
        number("pairs_per_second", ".0f"),
    ]
