"""What `evaluate` prints without searching: finished TREC runs, and the cards' presets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rerank_plugins.cli._io import write, write_json
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.data import read_qrels, read_run
from rerank_plugins.evaluation.measures import DEFAULT_MEASURES, evaluate_rankings
from rerank_plugins.evaluation.presets import PRESETS
from rerank_plugins.evaluation.significance import bootstrap_interval
from rerank_plugins.evaluation.tables import shown


def write_finished_runs(options: argparse.Namespace) -> None:
    """Means and intervals of each ``--run`` by ``--qrels``.

    Raises:
        InvalidInputError: If there is no run, or a file is malformed.
        OSError: If a file cannot be read.
    """
    if not options.run_files:
        raise InvalidInputError("--qrels needs at least one --run FILE to evaluate")
    for path in options.run_files:
        if not path.is_file():
            raise InvalidInputError(f"run file not found: {path}")
    qrels = read_qrels(options.qrels)
    measures = options.measures or DEFAULT_MEASURES
    rows: list[dict[str, Any]] = []
    for path in options.run_files:
        values = evaluate_rankings(qrels, read_run(path), measures)
        intervals = {
            name: bootstrap_interval(of, seed=options.seed)
            for name, of in values.by_measure.items()
        }
        means = values.means()
        first = next(iter(means))
        row = {"run": str(path), "queries": len(qrels), **means, "interval": intervals[first]}
        rows.append({**row, "intervals": intervals})
    if options.json:
        for row in rows:
            write_json(row)
        return
    from tabulate import tabulate

    cells = [
        [
            row["run"],
            row["queries"],
            *(f"{row[name]:.3f} {shown(row['intervals'][name])}".strip() for name in measures),
        ]
        for row in rows
    ]
    write(tabulate(cells, headers=["run", "queries", *measures], disable_numparse=True))
    write("\n[low, high]: 95% bootstrap interval over the queries.")


def write_presets(*, as_json: bool) -> None:
    """The model cards' protocols and figures."""
    for one in PRESETS.values():
        if as_json:
            write_json(
                {
                    "name": one.name,
                    "model": one.model,
                    "measures": list(one.measures),
                    "candidates": one.candidates,
                    "reported": dict(one.reported),
                    "others": {name: dict(of) for name, of in one.others.items()},
                    "data": one.data,
                    "note": one.note,
                }
            )
            continue
        write(f"{one.name}: {one.model}")
        write(f"  reports {figures(one.reported)}: {one.note}")
        for name, others in one.others.items():
            write(f"  {name}: {figures(others)}")
        write(f"  {one.data}")


def figures(values: Mapping[str, float]) -> str:
    """Measures and values on one line."""
    return ", ".join(f"{measure} {value:.4g}" for measure, value in values.items())
