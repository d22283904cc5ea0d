"""``rerank-plugins calibrate``: probabilities and a threshold from your own judgements."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rerank_plugins._validation import check_count
from rerank_plugins.cli._io import say, write, write_json
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import BUNDLED

_PASSAGES: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins calibrate``."""
    parser.add_argument(
        "--dataset",
        type=Path,
        required=True,
        metavar="DIR",
        help="questions, passages and judgements in BEIR's layout",
    )
    parser.add_argument("--split", metavar="NAME", help="judgements to read: qrels/NAME.tsv")
    parser.add_argument(
        "--model", default=BUNDLED, help=f"the reranker to calibrate (default {BUNDLED})"
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=_PASSAGES,
        metavar="N",
        help=f"passages per query, found by BM25 (default {_PASSAGES})",
    )
    parser.add_argument(
        "--precision",
        type=float,
        default=0.95,
        metavar="P",
        help="wanted share of right answers (default 0.95)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write it (default: calibration.json in the model's folder if it is one)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")


def run(options: argparse.Namespace) -> int:
    """Fits, measures, writes; prints the report.

    Raises:
        RerankPluginsError: Data or the model failed, or the file cannot be written.
    """
    from rerank_plugins.evaluation.data import read_question_set
    from rerank_plugins.evaluation.labelled import labelled_lists
    from rerank_plugins.first_stage.bm25 import BM25
    from rerank_plugins.models.calibration import calibrate
    from rerank_plugins.models.loading import load_scorer

    check_count("--candidates", options.candidates, minimum=2)
    out = options.out or (Path(options.model) if Path(options.model).is_dir() else None)
    if out is not None and not (out if out.is_dir() else out.absolute().parent).is_dir():
        raise InvalidInputError(f"--out must lie in a folder that exists, but got {out}")
    data = read_question_set(options.dataset, split=options.split)
    say(f"indexing {len(data.corpus):,} passages", only_on_terminal=True)
    lists = labelled_lists(data, BM25(data.corpus.values()), options.candidates)
    report = calibrate(load_scorer(options.model), lists, precision=options.precision)
    kept = None if out is None else report.calibration.save(out)
    if options.json:
        write_json({**asdict(report), "file": None if kept is None else str(kept)})
        return 0
    write(
        f"scale {report.calibration.scale:.3f}, offset {report.calibration.offset:.3f}, "
        f"measured on {report.queries} other queries"
    )
    for name in ("log_loss", "brier", "calibration_error"):
        before, after = getattr(report.before, name), getattr(report.after, name)
        write(f"{name.replace('_', ' ')}: {before:.3f} before, {after:.3f} after")
    if report.threshold is None:
        write(f"no threshold gives a precision of {report.wanted}")
    else:
        low, high = report.interval or (float("nan"), float("nan"))
        write(
            f"score_threshold={report.threshold:.3f} for a precision of {report.wanted}: "
            f"{report.precision or 0:.3f} ({low:.3f} to {high:.3f}); answers "
            f"{report.answered:.0%} of the questions, refuses {report.refused:.0%} of those "
            "whose answer is not in the corpus"
        )
    write(
        "not kept: give --out"
        if kept is None
        else f"kept in {kept}: load_reranker(..., calibration={str(kept)!r})"
    )
    return 0
