"""The model card of a trained checkpoint."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rerank_plugins import __version__
from rerank_plugins.training.config import TrainingConfig, TrainingResult

_PACKAGES = ("sentence-transformers", "transformers", "torch", "datasets")
_FIGURES_FILE = "training.json"


def write_card(
    folder: Path,
    config: TrainingConfig,
    result: TrainingResult,
    facts: Sequence[Mapping[str, Any]],
) -> None:
    """Writes ``README.md`` and, for machines, ``training.json`` into the checkpoint folder."""
    options = {
        option.name: getattr(config, option.name)
        for option in fields(config)
        if option.name not in ("out", "datasets", "first_stage")
    }
    versions = _versions()
    record = {
        "options": {name: _plain(value) for name, value in options.items()},
        "data": [dict(fact) for fact in facts],
        "first_stage": result.first_stage,
        "before": result.before,
        "after": result.after,
        "first_stage_weight": result.first_stage_weight,
        "blended_before": result.blended_before,
        "blended_after": result.blended_after,
        "history": result.history,
        "losses": result.losses,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": result.seconds,
        "versions": versions,
    }
    (folder / _FIGURES_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    lines = [
        "---",
        "pipeline_tag: text-ranking",
        f"base_model: {json.dumps(str(config.base))}",
        *([f"language: {json.dumps(list(config.languages))}"] if config.languages else []),
        "tags: [cross-encoder, reranker]",
        "---",
        "",
        f"# {config.out.name}",
        "",
        f"`{config.base}` trained further by rerank-plugins with the recipe `{config.recipe}`:",
        "a cross-encoder that scores how well a passage answers a query.",
        "",
        "```python",
        "from rerank_plugins import load_reranker",
        "",
        'reranker = load_reranker("path/to/this/folder")',
        "```",
        "",
        "## Data",
        "",
        *_data(facts),
        "",
        "Whether these licences let the weights be passed on is for whoever passes them on to",
        "check; the licence of the base binds too.",
        "",
        "## Figures",
        "",
        *_figures(result),
        "",
        "## How it was trained",
        "",
        f"{result.steps:,} of {result.estimate.steps:,} planned steps. Estimated before:",
        f"{result.estimate}.",
        "",
        "| option | value |",
        "|---|---|",
        *(
            f"| {name} | {_plain(value)} |"
            for name, value in options.items()
            if value not in (None, ())
        ),
        *(f"| {name} | {number} |" for name, number in versions.items()),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _data(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    if not facts:
        return ["Not recorded: the training was started with groups mined elsewhere."]
    return [
        "| set | licence | questions | groups of passages | questions held back |",
        "|---|---|---|---|---|",
        *(
            f"| {fact['name']} | {fact['licence'] or 'not stated'} | {fact['questions']:,} | "
            f"{fact['groups']:,} | {fact['held_back']:,} |"
            for fact in facts
        ),
    ]


def _figures(result: TrainingResult) -> list[str]:
    if not result.after:
        return ["No questions were held back, so nothing was measured."]
    blend = bool(result.blended_after)
    both = " | base, blended | this model, blended" if blend else ""
    lines = [
        "nDCG@10 on the held-back questions, reranking the first stage's candidates (the weights",
        f"of step {result.best_step} were kept), by the model alone"
        + (
            f" and with the default blend, in which the first stage has a share of "
            f"{result.first_stage_weight:g}; the blend is what `load_reranker` gives:"
            if blend
            else ":"
        ),
        "",
        f"| set | first stage | base | this model{both} |",
        f"|---|---|---|---|{'---|---|' if blend else ''}",
    ]
    for name, after in result.after.items():
        cells = [result.first_stage[name], result.before[name], after]
        if name in result.blended_after:
            cells += [result.blended_before[name], result.blended_after[name]]
        lines.append(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    return lines


def _versions() -> dict[str, str]:
    installed = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), "rerank-plugins": __version__, **installed}


def _plain(value: Any) -> Any:
    """The value for JSON and for a table cell."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value)
