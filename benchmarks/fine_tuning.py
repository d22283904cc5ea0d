"""Whether some minutes of fine-tuning help: a model against itself, tuned on part of a set.

Holds back questions of the set, by whole passages; trains on the others with
``rerank_plugins.training``; then both models rerank BM25's candidates for the questions held
back, searched among all passages of the set. Prints nDCG@10 of BM25, of the model before and
after, and the mean difference with its paired 95% bootstrap interval over the questions.

Usage: python benchmarks/fine_tuning.py --set DIR [--test 300] [--minutes 5] [--out DIR]

DIR holds corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ir_measures
import numpy as np
from numpy.typing import NDArray

from rerank_plugins import Reranker
from rerank_plugins.candidates import Candidate
from rerank_plugins.catalog import EMBEDDED
from rerank_plugins.first_stage import BM25
from rerank_plugins.loading import load_scorer
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer
from rerank_plugins.training import (
    QuestionSet,
    TrainingConfig,
    hold_back,
    read_question_set,
    train,
)

MEASURE = ir_measures.nDCG @ 10
RESAMPLES = 10_000


def write(data: QuestionSet, folder: Path) -> Path:
    """The part of a set as a folder that training reads."""
    folder.mkdir(parents=True)
    for name, texts in (("corpus", data.corpus), ("queries", data.queries)):
        lines = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        f"{query}\t{doc}\t{grade:g}"
        for query, of in data.qrels.items()
        for doc, grade in of.items()
    ]
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
    (folder / "qrels.tsv").write_text(text, encoding="utf-8")
    return folder


def ndcg(data: QuestionSet, run: Mapping[str, Sequence[int]]) -> NDArray[np.float64]:
    """nDCG@10 of each question, in the set's order; ``run`` has corpus places, best first."""
    ids = list(data.corpus)
    qrels = [
        ir_measures.Qrel(query, doc, int(grade))
        for query in data.queries
        for doc, grade in data.qrels[query].items()
    ]
    scored = [
        ir_measures.ScoredDoc(query, ids[key], -rank)
        for query, keys in run.items()
        for rank, key in enumerate(keys)
    ]
    found = {m.query_id: m.value for m in MEASURE.iter_calc(qrels, scored)}
    return np.array([found.get(query, 0.0) for query in data.queries])


class Once:
    """A scorer that computes each list of pairs once, however often it is asked.

    Args:
        scorer: What computes.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._known: dict[tuple[tuple[str, str], ...], PairScores] = {}
        self.name = scorer.name
        self.first_stage_weight = scorer.first_stage_weight
        self.describe = scorer.describe

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Logits of the pairs."""
        key = tuple(pairs)
        if key not in self._known:
            self._known[key] = self._scorer.score(pairs, options)
        return self._known[key]


WAYS = {"the model alone": 0.0, "blended as the checkpoint says": None}


def reranked(
    model: str | Path, data: QuestionSet, candidates: Mapping[str, list[Candidate]]
) -> dict[str, NDArray[np.float64]]:
    """nDCG@10 of each question, in each of the `WAYS`."""
    scorer = Once(load_scorer(model))
    found = {}
    for way, weight in WAYS.items():
        reranker = Reranker(scorer, first_stage_weight=weight)
        run = {
            query: reranker.rerank(data.queries[query], finds).keys if finds else []
            for query, finds in candidates.items()
        }
        found[way] = ndcg(data, run)
    return found


def interval(gain: NDArray[np.float64]) -> tuple[float, float]:
    """Where 95% of the bootstrap means of a paired difference lie."""
    draws = np.random.default_rng(0).integers(0, gain.size, (RESAMPLES, gain.size))
    low, high = np.percentile(gain[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--base", default=EMBEDDED)
    parser.add_argument("--test", type=int, default=300, help="questions held back (default 300)")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--recipe", default="listwise")
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="questions a step (default 16)")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--out", type=Path, help="keep the tuned model there")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("rerank_plugins").setLevel(logging.INFO)
    data = read_question_set(options.set)
    part, rest = hold_back(data, options.test, seed=0)
    assert rest is not None
    stage = BM25(list(rest.corpus.values()), engine="bm25s")
    candidates = {q: stage.search(text, options.candidates) for q, text in rest.queries.items()}
    before = reranked(options.base, rest, candidates)
    with tempfile.TemporaryDirectory() as made:
        out = options.out or Path(made) / "tuned"
        result = train(
            TrainingConfig(
                out=out,
                base=options.base,
                datasets=(write(part, Path(made) / "part"),),
                recipe=options.recipe,
                minutes=options.minutes,
                negatives=options.negatives,
                queries_per_batch=options.batch,
                learning_rate=options.learning_rate,
                held_back=40,
                candidates=20,
                evaluations=2,
            )
        )
        after = reranked(out, rest, candidates)
    first = ndcg(rest, {query: [find.key for find in found] for query, found in candidates.items()})
    print(f"{data.name}: {len(part.queries)} questions to train on, {first.size} to measure on")
    print(f"trained {result.seconds / 60:.1f} minutes, {result.steps} steps, {options.recipe}")
    print(f"nDCG@10 of BM25 {first.mean():.4f}")
    for way in WAYS:
        gain = after[way] - before[way]
        low, high = interval(gain)
        print(
            f"{way}: before {before[way].mean():.4f}, after {after[way].mean():.4f}, "
            f"gain {gain.mean():+.4f} (95% interval {low:+.4f} to {high:+.4f})"
        )


if __name__ == "__main__":
    main()
