"""``rerank-plugins quantize``: a model in int8, measured before it is used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rerank_plugins._validation import check_count
from rerank_plugins.cli._io import say, show_log, write, write_json
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.scoring.agreement import LabelledList

_PASSAGES: Final = 20
_MEASURED_QUERIES: Final = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins quantize``."""
    parser.add_argument(
        "--model", default=BUNDLED, help=f"the reranker to quantize (default {BUNDLED})"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="calibrate and measure on this folder in BEIR's layout (default: the samples)",
    )
    what.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="calibrate and measure on labelled pairs (query, passage, label): .jsonl, .csv, .tsv",
    )
    parser.add_argument("--split", metavar="NAME", help="judgements to read: qrels/NAME.tsv")
    parser.add_argument(
        "--candidates",
        type=int,
        default=_PASSAGES,
        metavar="N",
        help=f"passages per query of --dataset, found by BM25 (default {_PASSAGES})",
    )
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")


def run(options: argparse.Namespace) -> int:
    """Makes, keeps and measures the int8 model; prints the report and what it means.

    Raises:
        RerankPluginsError: If data or the model failed, or OpenVINO is there and nncf is missing.
    """
    check_count("--candidates", options.candidates, minimum=2)
    if options.split and not options.dataset:
        raise InvalidInputError("--split needs --dataset")
    from rerank_plugins.models.loading import load_scorer
    from rerank_plugins.scoring.local import LocalScorer
    from rerank_plugins.scoring.quantization import quantize

    scorer = load_scorer(options.model)
    if not isinstance(scorer, LocalScorer):
        raise InvalidInputError(f"only cross-encoders can be quantized, but got {options.model}")
    lists = _lists(options)
    show_log()
    report = quantize(scorer) if lists is None else _quantized(scorer, lists)
    if options.json:
        write_json({"model": options.model, **report})
        return 0
    gains, speeds = report["ndcg_at_10"], report["pairs_per_second"]
    made = (
        f"calibrated with {report['calibration_pairs']} pairs ({report['calibrated_on']}), "
        if report["calibration_pairs"]
        else ""
    )
    write(
        f'int8 of {options.model} on {report["engine"]}, for precision="int8"\n{made}'
        f"measured on {report['queries']} queries and {report['pairs']} pairs "
        f"({report['measured_on']})"
    )
    if report["kendall_tau"] is not None:
        write(f"Kendall's tau with fp32: {report['kendall_tau']:.3f}")
    if gains is not None:
        write(f"nDCG@10: fp32 {gains['fp32']:.3f}, int8 {gains['int8']:.3f}")
    write(f"pairs per second: default {speeds['default']:.0f}, int8 {speeds['int8']:.0f}")
    write(report["advice"])
    return 0


def _quantized(scorer: Any, lists: Sequence[LabelledList]) -> dict[str, Any]:
    """Calibrated with every other query, measured on those between; one query serves as both."""
    from rerank_plugins.scoring.quantization import quantize

    measured = list(lists[1::2][:_MEASURED_QUERIES]) or list(lists)
    calibrated = lists[::2]
    pairs = [(some.query, passage) for some in calibrated for passage in some.passages]
    return quantize(scorer, pairs=pairs, labelled=measured)


def _lists(options: argparse.Namespace) -> list[LabelledList] | None:
    """Queries with at least two passages and their grades; None for the samples.

    Raises:
        InvalidInputError: If the data cannot be read, or no query has two passages.
    """
    if options.pairs is not None:
        if not options.pairs.is_file():
            raise InvalidInputError(f"file of labelled pairs not found: {options.pairs}")
        from rerank_plugins.evaluation.data import read_pairs

        pairs = read_pairs(options.pairs)
        data, found = pairs.questions, dict(pairs.candidates)
    elif options.dataset is not None:
        from rerank_plugins.evaluation.data import read_question_set
        from rerank_plugins.first_stage.bm25 import BM25

        data = read_question_set(options.dataset, split=options.split)
        ids = list(data.corpus)
        say(f"indexing {len(ids):,} passages", only_on_terminal=True)
        bm25 = BM25(data.corpus.values())
        found = {
            query: tuple(ids[hit.key] for hit in bm25.search(text, options.candidates))
            for query, text in data.queries.items()
        }
    else:
        return None
    lists = [
        LabelledList(
            data.queries[query],
            [data.corpus[passage] for passage in passages],
            [max(0.0, data.qrels[query].get(passage, 0.0)) for passage in passages],
        )
        for query, passages in found.items()
        if len(passages) > 1
    ]
    if not lists:
        raise InvalidInputError(
            f"{options.pairs or options.dataset} has no query with at least two passages: "
            "measuring int8 needs an order"
        )
    return lists
