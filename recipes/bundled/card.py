"""Stage 9: the figures of `figures.json` as the table of the card, between its markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank_plugins.models.catalog import bundled_folder

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def table(figures: dict[str, Any]) -> str:
    """nDCG@10 in Markdown: a row per system, a column per set, and the mean of all sets."""
    sets: dict[str, dict[str, Any]] = figures["sets"]
    lines = [
        "| nDCG@10 | " + " | ".join(sets) + " | mean |",
        "|---" * (len(sets) + 2) + "|",
        "| questions | " + " | ".join(str(row["questions"]) for row in sets.values()) + " | |",
    ]
    systems = [
        name
        for name in dict.fromkeys(name for row in sets.values() for name in row["systems"])
        if all(name in row["systems"] for row in sets.values())
    ]
    for name in systems:
        cells, values = [], []
        for row in sets.values():
            figures_ = row["systems"][name]
            low, high = figures_.get("minus_bm25", (0.0, 0.0))
            values.append(figures_["nDCG@10"])
            gain = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low or high else ""
            cells.append(_figure(figures_["nDCG@10"]) + gain)
        lines.append(f"| {name} | {' | '.join(cells)} | {_figure(sum(values) / len(values))} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def fill(out: Path) -> None:
    """Put the table into the folder's `README.md`; without one, into a copy of the package's."""
    card = out / "README.md"
    kept = card if card.exists() else bundled_folder().parent / "README.md"
    text = kept.read_text(encoding="utf-8")
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    card.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}", encoding="utf-8")
