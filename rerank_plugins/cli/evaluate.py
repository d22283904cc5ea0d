"""``rerank-plugins evaluate``: which first stage, which reranker, at what cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.compare import DEFAULT_CANDIDATES, compare
from rerank_plugins.evaluation.data import (
    QuestionSet,
    read_pairs,
    read_qrels,
    read_question_set,
    read_run,
)
from rerank_plugins.evaluation.measures import DEFAULT_MEASURES, evaluate_rankings
from rerank_plugins.evaluation.presets import PRESETS, Preset, preset
from rerank_plugins.evaluation.results import Comparison, shown, table
from rerank_plugins.evaluation.significance import bootstrap_interval
from rerank_plugins.models.catalog import EMBEDDED

_STAGES: Final = ("bm25", "faiss", "hybrid", "langchain-bm25")
_RUN: Final = "run:"
_GIVEN: Final = "given"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rerank-plugins evaluate``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--dataset",
        type=Path,
        action="append",
        help="folder with corpus.jsonl[.gz], queries.jsonl[.gz] and qrels.tsv; may be repeated",
    )
    what.add_argument(
        "--pairs",
        type=Path,
        action="append",
        help="labelled pairs (query, passage, label) as .jsonl, .csv or .tsv; may be repeated",
    )
    what.add_argument(
        "--qrels", type=Path, help="judgements, to evaluate finished runs with (see --run)"
    )
    what.add_argument(
        "--presets", action="store_true", help="list the model cards' protocols and figures"
    )
    parser.add_argument(
        "--run",
        dest="run_files",  # "run" is what the parser calls
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="TREC run to evaluate by --qrels; may be repeated",
    )
    parser.add_argument(
        "--first-stage",
        type=_stage,
        action="append",
        metavar="NAME",
        help=f"{', '.join(_STAGES)}, or run:FILE for given candidates; may be repeated; "
        "the first one is the baseline (default bm25)",
    )
    parser.add_argument(
        "--alone",
        type=_stage,
        action="append",
        default=[],
        metavar="NAME",
        help="a further first stage, which is not reranked; may be repeated",
    )
    parser.add_argument(
        "--model", action="append", help=f"may be repeated (default {EMBEDDED}, or the preset's)"
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help="measures of a model's card")
    parser.add_argument(
        "--candidates",
        type=int,
        help=f"passages reranked (default {DEFAULT_CANDIDATES}; all of given ones)",
    )
    parser.add_argument(
        "--measures",
        type=lambda names: tuple(names.split(",")),
        help=f"separated by commas; the first is tested (default {','.join(DEFAULT_MEASURES)})",
    )
    parser.add_argument("--queries", type=int, help="draw that many (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--language", choices=("auto", "ar", "fr", "pl", "en"), default="auto")
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="keep answers there, and go on from them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a data set")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML report")


def run(options: argparse.Namespace) -> int:
    """Evaluates and prints; see `rerank_plugins.evaluation.compare`.

    Raises:
        RerankPluginsError: Data, an option or a system failed.
    """
    if options.presets:
        _write_presets(as_json=options.json)
        return 0
    if options.qrels is not None:
        return _run_files(options)
    if options.run_files:
        raise InvalidInputError("--run needs --qrels; as candidates it is --first-stage run:FILE")
    chosen = None if options.preset is None else preset(options.preset)
    comparisons = [_compare(options, chosen, path) for path in options.dataset or options.pairs]
    if options.json:
        for comparison in comparisons:
            _write(json.dumps({**comparison.to_dict(), "reported": _reported(chosen)}))
    else:
        _write(table(comparisons))
        if chosen is not None:
            _write(f"\n{chosen.model} reports {_figures(chosen.reported)} ({chosen.note}).")
    if options.report is not None:
        from rerank_plugins.evaluation.report import html_report

        options.report.write_text(html_report(comparisons), encoding="utf-8")
    return 0


def _compare(options: argparse.Namespace, chosen: Preset | None, path: Path) -> Comparison:
    candidates = DEFAULT_CANDIDATES if chosen is None else chosen.candidates
    if options.pairs:
        pairs = read_pairs(path, seed=options.seed)
        if options.first_stage or options.alone:
            raise InvalidInputError(
                "labelled pairs bring their own candidates: leave --first-stage and --alone out"
            )
        data, candidates = pairs.questions, None
        stages: dict[str, Any] = {_GIVEN: pairs.candidates}
    else:
        data = read_question_set(path)
        names = [*(options.first_stage or ["bm25"]), *options.alone]
        depth = candidates if options.candidates is None else options.candidates
        stages = {name: _first_stage(name, data, options.language, depth) for name in names}
    models = options.model or [EMBEDDED if chosen is None else chosen.model]
    measures = DEFAULT_MEASURES if chosen is None else chosen.measures
    return compare(
        data,
        stages,
        models,
        candidates=candidates if options.candidates is None else options.candidates,
        measures=options.measures or measures,
        queries=options.queries,
        seed=options.seed,
        alone=options.alone,
        runs=options.runs,
    )


def _stage(name: str) -> str:
    if name not in _STAGES and not name.startswith(_RUN):
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(_STAGES)} or run:FILE, but got {name!r}"
        )
    return name


def _first_stage(name: str, data: QuestionSet, language: str, candidates: int | None) -> Any:
    from rerank_plugins.first_stage.bm25 import BM25
    from rerank_plugins.first_stage.dense import Dense
    from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Hybrid

    if name.startswith(_RUN):
        return dict(read_run(name.removeprefix(_RUN)))
    texts = list(data.corpus.values())
    if name == "langchain-bm25":
        from rerank_plugins.evaluation._frameworks import langchain_bm25

        passages = ((passage, text, None) for passage, text in data.corpus.items())
        return langchain_bm25(passages, len(texts) if candidates is None else candidates)
    if name == "faiss":
        return Dense(texts)
    bm25 = BM25(texts, language=language)
    if name == "bm25":
        return bm25
    return Hybrid([bm25, Dense(texts)], weights=SHIPPED_WEIGHTS)


def _run_files(options: argparse.Namespace) -> int:
    """Measures of finished runs; a run is read query by query and never held whole."""
    if not options.run_files:
        raise InvalidInputError("--qrels needs at least one --run FILE")
    measures: Sequence[str] = options.measures or DEFAULT_MEASURES
    qrels = read_qrels(options.qrels)
    rows: list[dict[str, Any]] = []
    for path in options.run_files:
        values = evaluate_rankings(qrels, read_run(path), measures)
        interval = bootstrap_interval(next(iter(values.by_measure.values())), seed=options.seed)
        means = values.means()
        row = {"run": str(path), "queries": len(qrels), **means, "interval": interval}
        rows.append(row)
    if options.json:
        for row in rows:
            _write(json.dumps(row))
        return 0
    from tabulate import tabulate

    names = list(means)
    cells = [
        [
            row["run"],
            row["queries"],
            f"{row[names[0]]:.3f}",
            shown(row["interval"]),
            *(f"{row[name]:.3f}" for name in names[1:]),
        ]
        for row in rows
    ]
    headers = ["run", "queries", names[0], "95%", *names[1:]]
    _write(tabulate(cells, headers=headers, disable_numparse=True))
    return 0


def _write_presets(*, as_json: bool) -> None:
    if as_json:
        for one in PRESETS.values():
            _write(
                json.dumps(
                    {
                        "name": one.name,
                        "model": one.model,
                        "measures": list(one.measures),
                        "candidates": one.candidates,
                        "reported": _reported(one),
                        "others": {name: dict(of) for name, of in one.others.items()},
                        "data": one.data,
                        "note": one.note,
                    }
                )
            )
        return
    for one in PRESETS.values():
        _write(f"{one.name}: {one.model}")
        _write(f"  reports {_figures(one.reported)}: {one.note}")
        for name, figures in one.others.items():
            _write(f"  and of {name}: {_figures(figures)}")
        _write(f"  {one.data}")


def _reported(chosen: Preset | None) -> dict[str, float] | None:
    return None if chosen is None else dict(chosen.reported)


def _figures(figures: Any) -> str:
    return ", ".join(f"{measure} {value:.4g}" for measure, value in figures.items())


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
