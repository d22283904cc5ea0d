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
from pathlib import Path

from rerank_plugins import ScoreCache, load_reranker
from rerank_plugins.evaluation import compare
from rerank_plugins.first_stage import BM25
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.training import (
    QuestionSet,
    TrainingConfig,
    hold_back,
    read_question_set,
    train,
)


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


WAYS = {"the model alone": 0.0, "blended as the checkpoint says": None}


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--base", default=BUNDLED)
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
        cache = ScoreCache(1 << 20)  # both ways are made of the same logits
        rerankers = {
            f"{when}, {way}": load_reranker(model, first_stage_weight=weight, cache=cache)
            for when, model in (("before", options.base), ("after", out))
            for way, weight in WAYS.items()
        }
        stage = BM25(rest.corpus.values(), engine="bm25s")
        found = compare(rest, {"BM25": stage}, rerankers, candidates=options.candidates)
    means = {name: system.values["nDCG@10"].mean() for name, system in found.systems.items()}
    print(
        f"{data.name}: {len(part.queries)} questions to train on, {len(rest.queries)} to measure on"
    )
    print(f"trained {result.seconds / 60:.1f} minutes, {result.steps} steps, {options.recipe}")
    print(f"nDCG@10 of BM25 {means['BM25']:.4f}")
    for way in WAYS:
        before, after = (f"BM25 + {when}, {way}" for when in ("before", "after"))
        gain = next(each for each in found.versus(before) if each.system == after)
        low, high = gain.interval or (gain.mean, gain.mean)
        print(
            f"{way}: before {means[before]:.4f}, after {means[after]:.4f}, "
            f"gain {gain.mean:+.4f} (95% interval {low:+.4f} to {high:+.4f})"
        )


if __name__ == "__main__":
    main()
