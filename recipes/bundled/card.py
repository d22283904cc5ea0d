"""Stage 7: the figures of `figures.json` as tables, between the markers of the pages they stand on.

    python -m recipes.bundled.card

brings the package's own card and the project's README up to date.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from rerank_plugins.models.catalog import bundled_folder

FIGURES, FIRST_STAGES = "figures", "first stages"
LANGUAGES = {"ar": "Arabic", "fr": "French", "pl": "Polish", "en": "English"}
# What README says of a system of `figures.json`.
IN_WORDS = {
    "LangChain's default": "LangChain's `BM25Retriever`, as it comes",
    "BM25": "our BM25",
    "BM25 + cross-encoder": "our BM25, its first ten reranked with `bundled`",
    "BM25 + vectors": "our BM25, reranked with `bundled-encoder`",
    "BM25 + both": "our BM25, reranked with both (`Cascade`)",
    "hybrid": "`HybridRetriever` (BM25 and `bundled-encoder`)",
    "hybrid + cross-encoder": "`HybridRetriever`, its first ten reranked with `bundled`",
}


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


def summary(figures: dict[str, Any]) -> str:
    """nDCG@10 in Markdown: a row per system in README's words, a column per language."""
    sets: dict[str, dict[str, Any]] = figures["sets"]
    by_language: dict[str, list[str]] = {}
    for name in sets:
        by_language.setdefault(name.split("/")[0].rsplit("-", 1)[-1], []).append(name)
    kept = {code: by_language[code] for code in LANGUAGES if code in by_language}
    heads = [f"{LANGUAGES[code]} ({len(names)})" for code, names in kept.items()]
    lines = [
        f"| nDCG@10 | {' | '.join(heads)} | mean of {len(sets)} sets |",
        "|---" * (len(kept) + 2) + "|",
    ]
    for system, words in IN_WORDS.items():
        if any(system not in row["systems"] for row in sets.values()):
            continue
        value = {name: row["systems"][system]["nDCG@10"] for name, row in sets.items()}
        means = [fmean(value[name] for name in names) for names in kept.values()]
        cells = map(_figure, [*means, fmean(value.values())])
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def first_stages(figures: dict[str, Any]) -> str:
    """Means of all sets in Markdown: a row per system, a column per measure."""
    sets: dict[str, dict[str, Any]] = figures["first_stages"]
    measures = ("nDCG@10", "MRR@10", "Recall@50")
    lines = [f"| | {' | '.join(measures)} |", "|---" * (len(measures) + 1) + "|"]
    for name in next(iter(sets.values()))["systems"]:
        values = [
            fmean(row["systems"][name][measure] for row in sets.values()) for measure in measures
        ]
        lines.append(f"| {name} | {' | '.join(map(_figure, values))} |")
    return "\n".join(lines)


def between(text: str, made: str, mark: str = FIGURES) -> str:
    """The page with that table between its markers."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{made}\n{end}{after}"


def fill(out: Path) -> None:
    """Put the table into the folder's `README.md`; without one, into a copy of the package's."""
    card = out / "README.md"
    kept = card if card.exists() else bundled_folder().parent / "README.md"
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    card.write_text(between(kept.read_text(encoding="utf-8"), table(figures)), encoding="utf-8")


def pages() -> dict[Path, str]:
    """The package's card, the project's README and the documentation, with their tables."""
    folder, project = bundled_folder().parent, Path(__file__).parents[2]
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    card, readme, models = folder / "README.md", project / "README.md", project / "docs/models.md"
    tables = [
        (card, table(figures), FIGURES),
        (card, first_stages(figures), FIRST_STAGES),
        (readme, summary(figures), FIGURES),
        (models, first_stages(figures), FIRST_STAGES),
    ]
    found: dict[Path, str] = {}
    for page, made, mark in tables:
        found[page] = between(found.get(page) or page.read_text("utf-8"), made, mark)
    return found


def main() -> None:
    """Bring them up to date."""
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
