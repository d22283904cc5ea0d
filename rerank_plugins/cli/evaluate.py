"""``rerank-plugins evaluate``: which first stage, which reranker, at what cost."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rerank_plugins._validation import check_count, check_weight
from rerank_plugins.cli._finished_runs import figures, write_finished_runs, write_presets
from rerank_plugins.cli._io import check_writable, say, use_threads, write, write_json
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.compare import DEFAULT_CANDIDATES, compare
from rerank_plugins.evaluation.data import QuestionSet, read_pairs, read_question_set, read_run
from rerank_plugins.evaluation.measures import DEFAULT_MEASURES, parse_measures
from rerank_plugins.evaluation.presets import PRESETS, Preset, preset
from rerank_plugins.evaluation.results import Comparison
from rerank_plugins.evaluation.tables import legend, means_table, table
from rerank_plugins.evaluation.verdict import verdicts
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.scoring.engines import ENGINES, PRECISIONS

_STAGES: Final = ("bm25", "faiss", "hybrid", "langchain-bm25")
_RUN: Final = "run:"
_GIVEN: Final = "given"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins evaluate``."""
    _add_data(parser)
    _add_systems(parser)
    parser.add_argument("--preset", choices=tuple(PRESETS), help="measure as a model's card does")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help=f"passages reranked per query (default {DEFAULT_CANDIDATES}; labelled pairs: all)",
    )
    parser.add_argument(
        "--measures",
        type=lambda names: tuple(name.strip() for name in names.split(",")),
        metavar="LIST",
        help="separated by commas; gains are those of the first one "
        f"(default {','.join(DEFAULT_MEASURES)})",
    )
    parser.add_argument(
        "--queries", type=int, metavar="N", help="evaluate a random sample of N queries"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument(
        "--language",
        choices=("auto", "ar", "fr", "pl", "en"),
        default="auto",
        help="language of the passages for BM25 (default: detected per passage)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="keep answers in DIR; rerun the same command to resume after an interrupt",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per data set")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML report to FILE")


def _add_data(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--dataset",
        type=Path,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="one or more folders in BEIR's layout: corpus.jsonl, queries.jsonl and "
        "qrels/test.tsv or qrels.tsv",
    )
    what.add_argument(
        "--pairs",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="one or more files of labelled pairs (query, passage, label): .jsonl, .csv or .tsv",
    )
    what.add_argument(
        "--qrels", type=Path, metavar="FILE", help="judgements for finished runs (see --run)"
    )
    what.add_argument(
        "--presets", action="store_true", help="list the model cards' protocols and figures"
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="judgements to read: qrels/NAME.tsv of each data set (default: qrels.tsv, else test)",
    )
    parser.add_argument(
        "--run",
        dest="run_files",  # "run" is what the parser calls
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="one or more TREC runs to evaluate against --qrels",
    )


def _add_systems(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first-stage",
        type=_stage,
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"one or more of {', '.join(_STAGES)}, or run:FILE for given candidates "
        "(default bm25)",
    )
    parser.add_argument(
        "--alone",
        type=_stage,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="further first stages, which are not reranked",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"one or more rerankers (default {BUNDLED}, or the preset's)",
    )
    parser.add_argument(
        "--first-stage-weight",
        type=float,
        nargs="+",
        action="extend",
        metavar="W",
        help="share of the first stage's score, 0 (the model alone) to 1; several are compared "
        "(default: the model's own)",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="inference engine (default auto)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of the weights (default auto)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, mps or cuda:N (default auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")


def run(options: argparse.Namespace) -> int:
    """Evaluates and prints; see `rerank_plugins.evaluation.compare`.

    Raises:
        RerankPluginsError: Data, an option or a system failed.
    """
    if options.presets:
        write_presets(as_json=options.json)
        return 0
    if options.measures is not None:
        parse_measures(options.measures)
    if options.qrels is not None:
        write_finished_runs(options)
        return 0
    chosen = None if options.preset is None else preset(options.preset)
    _check(options)
    rerankers = _rerankers(options, chosen)
    if options.threads is not None:
        use_threads(options.threads)
    comparisons = []
    for comparison in _comparisons(options, chosen, rerankers):
        comparisons.append(comparison)
        if options.json:
            write_json({**comparison.to_dict(), "reported": _reported(chosen)})
        else:
            write(table([comparison], notes=False) + "\n")
    if not options.json:
        _write_summary(comparisons, chosen)
    if options.report is not None:
        from rerank_plugins.evaluation.report import html_report

        command = shlex.join(["rerank-plugins", *sys.argv[1:]])
        html_report(comparisons, options.report, command=command)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses what can be known to be wrong before any work.

    Raises:
        InvalidInputError: If an option is invalid, or a file or folder is missing.
    """
    for name in ("candidates", "queries", "threads"):
        if getattr(options, name) is not None:
            check_count(f"--{name}", getattr(options, name), minimum=1)
    if options.run_files:
        raise InvalidInputError("--run needs --qrels; as candidates it is --first-stage run:FILE")
    if options.pairs:
        _check_pairs(options)
    for folder in options.dataset or ():
        if not folder.is_dir():
            raise InvalidInputError(f"data set folder not found: {folder}")
    _check_stages(options)
    if options.report is not None:
        check_writable("--report", options.report)
        if find_spec("matplotlib") is None:
            say(
                "the report will lack the plots of scores: they need matplotlib "
                "(pip install 'rerank-plugins[display]')"
            )


def _check_stages(options: argparse.Namespace) -> None:
    both = sorted(set(options.first_stage or ()) & set(options.alone))
    if both:
        raise InvalidInputError(
            f"{', '.join(both)} is given both to --first-stage and to --alone; every first stage "
            "is shown alone anyway, so leave it out of --alone"
        )
    for name in [*(options.first_stage or ()), *options.alone]:
        if name.startswith(_RUN) and not Path(name.removeprefix(_RUN)).is_file():
            raise InvalidInputError(f"run file not found: {name.removeprefix(_RUN)}")


def _check_pairs(options: argparse.Namespace) -> None:
    if options.first_stage or options.alone:
        raise InvalidInputError(
            "labelled pairs bring their own candidates: leave --first-stage and --alone out"
        )
    if options.split:
        raise InvalidInputError("--split is for --dataset: labelled pairs have no splits")
    for path in options.pairs:
        if not path.is_file():
            raise InvalidInputError(f"file of labelled pairs not found: {path}")


def _rerankers(options: argparse.Namespace, chosen: Preset | None) -> dict[str, Any]:
    """One per model and weight; the weights of one model share its scores."""
    from rerank_plugins.models.loading import load_scorer
    from rerank_plugins.reranking.reranker import Reranker

    weights = [None if w is None else check_weight(w) for w in options.first_stage_weight or [None]]
    rerankers: dict[str, Any] = {}
    for model in options.model or [BUNDLED if chosen is None else chosen.model]:
        scorer = load_scorer(
            model, engine=options.engine, precision=options.precision, device=options.device
        )
        for weight in weights:
            name = model if weight is None else f"{model} (weight {weight:g})"
            rerankers[name] = Reranker(scorer, first_stage_weight=weight, deduplicate=False)
    return rerankers


def _comparisons(
    options: argparse.Namespace, chosen: Preset | None, rerankers: dict[str, Any]
) -> Iterator[Comparison]:
    """One data set after the other."""
    depth = DEFAULT_CANDIDATES if chosen is None else chosen.candidates
    if options.pairs:
        depth = None
    if options.candidates is not None:
        depth = options.candidates
    given = options.first_stage or ["bm25"]
    alone = [name for name in options.alone if name not in given]
    for path in options.dataset or options.pairs:
        say(f"reading {path}", only_on_terminal=True)
        if options.pairs:
            pairs = read_pairs(path, seed=options.seed)
            data, stages = pairs.questions, {_GIVEN: pairs.candidates}
        else:
            data = read_question_set(path, split=options.split)
            stages = {name: _first_stage(name, data, options.language, depth) for name in given}
            stages |= {name: _first_stage(name, data, options.language, depth) for name in alone}
        yield compare(
            data,
            stages,
            rerankers,
            candidates=depth,
            measures=options.measures or (DEFAULT_MEASURES if chosen is None else chosen.measures),
            queries=options.queries,
            seed=options.seed,
            alone=alone,
            runs=options.runs,
        )


def _write_summary(comparisons: list[Comparison], chosen: Preset | None) -> None:
    """What holds for all sets, then what the columns mean."""
    if len(comparisons) > 1:
        write(means_table(comparisons) + "\n")
    for comparison in comparisons:
        name = f"{comparison.name}: " if len(comparisons) > 1 else ""
        found = verdicts(comparison)
        more = f" The best of {len(found)} reranked systems." if len(found) > 1 else ""
        write(f"{name}{found[0].text()}{more}")
    if chosen is not None:
        write(f"{chosen.model} reports {figures(chosen.reported)} ({chosen.note}).")
    write("\n" + legend(comparisons[0]))


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
    say(f"indexing {len(texts):,} passages for {name}", only_on_terminal=True)
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


def _reported(chosen: Preset | None) -> dict[str, float] | None:
    return None if chosen is None else dict(chosen.reported)
