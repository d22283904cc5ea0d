"""Does int8 keep the order of fp32? Kendall's tau and nDCG@10, torch's int8 and OpenVINO's.

    python benchmarks/int8_agreement.py FOLDER... [--model bundled] [--queries 200]
        [--candidates 20] [--engines torch openvino] [--without-vnni]

Each FOLDER has corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. For each query, its relevant
passages and those that BM25 finds first are scored in fp32 and in int8. OpenVINO's int8 model
is calibrated on the samples, torch's needs no calibration. The model must have trained weights.
With `--without-vnni` torch's weights and activations are rounded as on a processor that lacks it;
their products are exact on both, so that the logits are the same.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from first_stage_scale import lines

from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import linear, quantization
from rerank_plugins.scoring.agreement import LabelledList, agreement
from rerank_plugins.scoring.base import PairScores, ScoreOptions


def labelled(folder: Path, queries: int, candidates: int) -> list[LabelledList]:
    """Some of a set's queries, each with its relevant passages and BM25's first ones."""
    corpus, asked = (
        {str(row["id"]): row["text"] for row in lines(folder / name)}
        for name in ("corpus.jsonl.gz", "queries.jsonl.gz")
    )
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if float(grade) > 0:
            relevant.setdefault(query, set()).add(passage)
    names = list(corpus)
    bm25 = BM25(list(corpus.values()))
    answerable = sorted(relevant.keys() & asked.keys())
    lists = []
    for query in random.Random(0).sample(answerable, min(queries, len(answerable))):
        found = [names[some.key] for some in bm25.search(asked[query], candidates)]
        chosen = list(dict.fromkeys([*found, *sorted(relevant[query] & corpus.keys())]))
        random.Random(1).shuffle(chosen)
        grades = [float(name in relevant[query]) for name in chosen]
        lists.append(LabelledList(asked[query], [corpus[name] for name in chosen], grades))
    return lists


class Once:
    """A scorer that scores the same pairs once, for all that are compared with it."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self._scores: PairScores | None = None

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """The scores of the first call's pairs, which all calls have."""
        if self._scores is None:
            self._scores = self._scorer.score(pairs, options)
        assert len(self._scores.logits) == len(pairs)
        return self._scores


def main() -> None:
    """Prints a row per set, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--without-vnni", action="store_true")
    options = parser.parse_args()
    if options.without_vnni:
        linear.activation_steps = quantization.activation_steps = lambda: 200
    fp32 = load_scorer(options.model, precision="fp32", device="cpu")
    heads = [f"{engine} tau | {engine} nDCG@10" for engine in options.engines]
    print(f"| set | questions | fp32 nDCG@10 | {' | '.join(heads)} |")
    print("|---" * (3 + 2 * len(options.engines)) + "|")
    rows: list[list[float]] = []
    for folder in options.folders:
        exact = Once(fp32)
        lists = labelled(folder, options.queries, options.candidates)
        row: list[float] = []
        for engine in options.engines:
            int8 = load_scorer(options.model, engine=engine, precision="int8")
            found = agreement(exact, int8, lists)
            row = row or [found["ndcg_at_10"]["fp32"]]
            row += [found["kendall_tau"], found["ndcg_at_10"]["int8"]]
        rows.append(row)
        cells = " | ".join(f"{value:.3f}" for value in row)
        print(f"| {folder.parent.name} {folder.name} | {len(lists)} | {cells} |", flush=True)
    means = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
    print(f"| mean | | {means} |")


if __name__ == "__main__":
    main()
