"""Long passages: what each way of reading them costs, and what it keeps of the order.

    python benchmarks/long_passages.py --data DIR [--sets cranfield-en/test selqa-en/dev ...]
        [--model bundled] [--questions 50] [--candidates 20] [--ways max best first truncate]
    python benchmarks/long_passages.py --documents [--engine torch]

DIR holds a folder per set with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. BM25's first
candidates are reranked by the model alone (no blend, so that differences show). In sets named
with ``+long`` eight passages that follow each other, mostly of one article, are one document,
so that what answers is somewhere in a long text, as in manuals and long answers. A folder with
``pairs.jsonl.gz`` alone (query, text) is a set of questions with their answers. Differences to
the first of the ways, ``max``, which reads every window, come with 95% bootstrap intervals.
Pairs per second are by processor time.

``--documents`` scores a document of 144 kB, and one of 1 MB, beside twenty short passages under
``deadline_ms=1000``, and prints the time until the answer and how many are scored.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from first_stage_scale import lines
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score

from rerank_plugins import load_reranker
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.samples import load_passages, load_questions
from rerank_plugins.scoring.base import ScoreOptions

SETS = (
    "cranfield-en/test",
    "selqa-en/dev+long",
    "kaiflematha-ar/dev+long",
    "more/dz-rulings-ar",
    "fquad-fr/valid+long",
    "poquad-pl/dev+long",
)
TOGETHER = 8
Questions = list[tuple[str, list[str], list[float]]]


def read(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, float]]]:
    """Passages, queries, and the grades above 0."""
    if (folder / "pairs.jsonl.gz").is_file():
        rows = list(lines(folder / "pairs.jsonl.gz"))
        names = [str(number) for number in range(len(rows))]
        corpus = dict(zip(names, (row["text"] for row in rows), strict=True))
        asked = dict(zip(names, (row["query"] for row in rows), strict=True))
        return corpus, asked, {name: {name: 1.0} for name in names}
    corpus, asked = (
        {str(row["id"]): row["text"] for row in lines(folder / file)}
        for file in ("corpus.jsonl.gz", "queries.jsonl.gz")
    )
    relevant: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if float(grade) > 0:
            relevant.setdefault(query, {})[passage] = float(grade)
    return corpus, asked, relevant


def questions(data: Path, name: str, count: int, candidates: int) -> Questions:
    """Query, passages and grades: BM25's first candidates."""
    folder, _, long = name.partition("+")
    corpus, asked, relevant = read(data / folder)
    if long:
        names = list(corpus)
        parts = [names[start : start + TOGETHER] for start in range(0, len(names), TOGETHER)]
        home = {name: part[0] for part in parts for name in part}
        corpus = {part[0]: "\n".join(corpus[name] for name in part) for part in parts}
        for query, graded in relevant.items():
            relevant[query] = {}
            for key, grade in graded.items():
                best = relevant[query].get(home[key], 0.0)
                relevant[query][home[key]] = max(best, grade)
    names = list(corpus)
    bm25 = BM25(list(corpus.values()))
    found: Questions = []
    for query in random.Random(0).sample(sorted(relevant.keys() & asked.keys()), count):
        chosen = [names[some.key] for some in bm25.search(asked[query], candidates)]
        grades = [relevant[query].get(key, 0.0) for key in chosen]
        if any(grades) and len(grades) > 1:  # one candidate has no order
            found.append((asked[query], [corpus[key] for key in chosen], grades))
    return found


def measure(name: str, options: argparse.Namespace) -> None:
    """Prints a row per way."""
    some = questions(options.data, name, options.questions, options.candidates)
    scorer: Any = load_scorer(options.model, engine=options.engine, device="cpu")
    scorer.warm_up()
    gains: dict[str, NDArray[np.float64]] = {}
    speeds: dict[str, float] = {}
    for way in options.ways:
        how = ScoreOptions(long_passages=way)
        gain, spent = [], 0.0
        for query, passages, grades in some:
            start = time.process_time()
            logits = scorer.score([(query, passage) for passage in passages], how).logits
            spent += time.process_time() - start
            gain.append(float(ndcg_score([grades], [logits], k=10)))
        gains[way] = np.array(gain)
        speeds[way] = sum(len(passages) for _, passages, _ in some) / spent
    words = np.median([len(p.split()) for _, passages, _ in some for p in passages])
    rng = np.random.default_rng(0)
    base = gains[options.ways[0]]
    for way in options.ways:
        difference = gains[way] - base
        drawn = rng.choice(difference, (2000, len(difference))).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(
            f"| {name}, {len(some)} questions, {words:.0f} words | {way} | {gains[way].mean():.3f} "
            f"| {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}] | {speeds[way]:.1f} |",
            flush=True,
        )


def documents(options: argparse.Namespace) -> None:
    """Long documents beside twenty short passages, against the clock."""
    texts = [passage.text for passage in load_passages()]
    query = load_questions()[0].text
    short = [" ".join(text.split()[:40]) for text in texts[:20]]
    words = " ".join(texts).split()
    print("| document | long_passages | seconds | short ones scored | document scored |")
    print("|---|---|---|---|---|")
    for size in (144_000, 1_000_000):
        document = ""
        rng = random.Random(0)
        while len(document.encode()) < size:
            document += " ".join(rng.sample(words, 200)) + " "
        for way in options.ways:
            reranker = load_reranker(
                options.model, engine=options.engine, device="cpu", long_passages=way,
                deadline_ms=1000,
            )  # fmt: skip
            reranker.warm_up()
            start = time.perf_counter()
            ranking = reranker.rerank(query, [document, *short])
            seconds = time.perf_counter() - start
            scored = {item.candidate.key for item in ranking if item.logit is not None}
            print(f"| {size // 1000} kB | {way} | {seconds:.2f} | {len(scored - {0})} of 20 | "
                  f"{'yes' if 0 in scored else 'no'} |", flush=True)  # fmt: skip


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--ways", nargs="+", default=["max", "best", "first", "truncate"])
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--documents", action="store_true")
    options = parser.parse_args()
    if options.documents:
        documents(options)
        return
    print("| set | long_passages | nDCG@10 | against max | pairs/s |\n|---|---|---|---|---|")
    for name in options.sets:
        measure(name, options)


if __name__ == "__main__":
    main()
