"""Stage 9: the figures of `figures.json` as the table of the card, between its markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank_plugins.models.catalog import bundled_folder

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def table(figures: dict[str, Any]) -> str:
    """The table in Markdown, with the means of all sets and of the Arabic ones."""
    lines = [
        (
            "| set | questions | LangChain's default | analysed BM25 | model | minus BM25, 95% "
            "| blended | minus BM25, 95% |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    sets: dict[str, dict[str, Any]] = figures["sets"]
    for name, row in sets.items():
        cells = [name, str(row["questions"]), _figure(row["langchain"]), _figure(row["bm25"])]
        for kind in ("model", "blended"):
            low, high = row[f"{kind}_minus_bm25"]
            cells += [_figure(row[kind]), f"{100 * low:+.1f} to {100 * high:+.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    for title, chosen in (
        ("mean of all", list(sets.values())),
        ("mean of Arabic", [row for name, row in sets.items() if "-ar/" in name]),
    ):
        mean = {k: _mean(chosen, k) for k in ("langchain", "bm25", "model", "blended")}
        cells = [f"**{title}**", "", _figure(mean["langchain"]), _figure(mean["bm25"])]
        for kind in ("model", "blended"):
            cells += [_figure(mean[kind]), f"{100 * (mean[kind] - mean['bm25']):+.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


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
