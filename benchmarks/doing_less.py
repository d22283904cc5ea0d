"""What a cascade and a deadline save, and what they cost: nDCG@10 on seven evaluation sets.

Reranks BM25's top 50 with the embedded model in its default blend. Passages are read whole,
by windows ("big"), but for those that a cascade or a deadline leaves out. Three ways to cut the
list before the big model: BM25's own order (which is what fewer candidates, or a deadline,
amount to), the embedded encoder's cosine blended with BM25, and the embedded model on the first
window alone. "tokens" are those that go through the cross-encoder, small and big together, as a
share of reading everything; time goes with them.

The deadline runs on a clock that counts these tokens, so that its figures do not depend on the
machine; `--clock wall` runs a few questions against real time instead, and prints how well the
deadline was kept.

Usage: python benchmarks/doing_less.py --data DIR [--questions 20] [--scores FILE] [--minutes 30]
       python benchmarks/doing_less.py --data DIR --clock wall [--questions 3]

DIR holds one folder a set and split with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv; FILE
keeps scores for the next run.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ir_measures
import numpy as np
from first_stage_quality import Questions
from tqdm import tqdm

from rerank_plugins import Candidate, Cascade, Ranking, Reranker
from rerank_plugins.bundled import StaticEncoder
from rerank_plugins.first_stage import BM25
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.cache import CachedScorer, ScoreCache

MEASURE = ir_measures.nDCG @ 10
CANDIDATES = 50
HEADS = (5, 10, 15, 20, 30)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
SETS = {
    "arcd-ar/test": "ar",
    "xquad-ar/test": "ar",
    "kaiflematha-ar/dev": "ar",
    "fquad-fr/valid": "fr",
    "poquad-pl/dev": "pl",
    "tydiqa-en/dev": "en",
    "xquad-en/test": "en",
}


@dataclass
class Job:
    """One question: what BM25 found, and what answers it."""

    set_name: str
    query: str
    candidates: list[Candidate]
    ids: list[str]
    qrels: list[ir_measures.Qrel]

    def ndcg(self, ranking: Ranking) -> float:
        """nDCG@10; a relevant passage that BM25 missed counts as missed."""
        run = [ir_measures.ScoredDoc("q", self.ids[item.candidate.key], -item.rank)
               for item in ranking]  # fmt: skip
        return float(ir_measures.calc_aggregate([MEASURE], self.qrels, run)[MEASURE])


def jobs(data: Path, questions: int) -> Iterator[Job]:
    """Questions of every set, drawn with a fixed seed."""
    for name, language in SETS.items():
        whole = Questions.read(data, [name])
        ids = list(whole.passages)
        bm25 = BM25(whole.passages.values(), language=language, engine="bm25s")
        for key in random.Random(0).sample(sorted(whole.queries), questions):
            relevant = [
                ir_measures.Qrel("q", q.doc_id, q.relevance)
                for q in whole.qrels
                if q.query_id == key
            ]
            query = whole.queries[key]
            yield Job(name, query, bm25.search(query, CANDIDATES), ids, relevant)


class Counting:
    """A scorer that counts the tokens it would read, and advances a clock of tokens."""

    def __init__(self, scorer: CachedScorer) -> None:
        self.scorer = scorer
        self.name, self.tokens = scorer.name, 0
        self._lengths: dict[str, int] = {}

    @property
    def first_stage_weight(self) -> float:
        """The model's own."""
        return self.scorer.first_stage_weight

    def describe(self) -> dict[str, Any]:
        """The model's own."""
        return self.scorer.describe()

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Counted, then scored."""
        self.tokens += sum(self.cost(pair, options) for pair in pairs)
        scores = self.scorer.score(pairs, options)
        return PairScores(scores.logits, scores.truncated)  # kept or not, it counts

    def cost(self, pair: tuple[str, str], options: ScoreOptions) -> int:
        """Tokens of all windows of a pair; the shipped configuration's windows."""
        query, passage = (self._length(text) for text in pair)
        size = min(128, 256 - 3 - query)
        if options.long_passages == "first":
            return min(passage, size) + query + 3
        return passage + max(1, -(-passage // size)) * (query + 3)

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            self._lengths[text] = self.scorer.count_tokens(text)
        return self._lengths[text]


class EncoderScorer:
    """The embedded text encoder as a scorer: a cosine, at hardly any cost."""

    name = "embedded-encoder"
    # BM25 the larger part, as hybrid search has it.
    first_stage_weight = 0.6

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:  # noqa: ARG002
        """Cosines."""
        encoder = StaticEncoder.default()
        queries = encoder.encode([query for query, _ in pairs])
        passages = encoder.encode([passage for _, passage in pairs])
        cosines = np.einsum("nd,nd->n", queries, passages).astype(np.float64)
        return PairScores(cosines, np.zeros(len(pairs), np.bool_))

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"model": self.name}


class FirstStageOrder:
    """No model at all: what cutting the list where BM25 put it comes to."""

    name = "bm25"
    first_stage_weight = 0.0

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:  # noqa: ARG002
        """Falling."""
        return PairScores(-np.arange(len(pairs), dtype=np.float64), np.zeros(len(pairs), np.bool_))

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"model": self.name}


def report(name: str, values: Sequence[float], whole: Sequence[float], share: float) -> None:
    """A line: nDCG@10, its difference to reading everything with a 95% interval, tokens."""
    gained = np.asarray(values) - np.asarray(whole)
    draws = np.random.default_rng(0).integers(0, len(gained), (10_000, len(gained)))
    low, high = np.percentile(gained[draws].mean(axis=1), [2.5, 97.5]) * 100
    print(
        f"{name:34} {np.mean(values):.3f}  {gained.mean() * 100:+5.1f} ({low:+.1f} to {high:+.1f})"
        f"  {share:4.0%}",
        flush=True,
    )


def scored(
    everything: list[Job], scorer: CachedScorer, minutes: float, *, progress: bool
) -> list[Job]:
    """The jobs whose every score is in the cache once so many minutes are over."""
    stop = time.monotonic() + 60 * minutes
    done = []
    for job in tqdm(everything, unit="question", disable=not progress):
        if time.monotonic() > stop:
            break
        pairs = [(job.query, candidate.text) for candidate in job.candidates]
        for how in (ScoreOptions(), ScoreOptions(long_passages="first")):
            scorer.score(pairs, how)
        done.append(job)
    return done


def by_tokens(everything: list[Job], cache: ScoreCache, minutes: float) -> None:
    """The table of cascades and of deadlines."""
    counter = Counting(CachedScorer(load_scorer(), cache))
    big = Reranker(counter)
    jobs_ = scored(everything, counter.scorer, minutes, progress=sys.stderr.isatty())

    def run(reranker: Reranker) -> tuple[list[float], int]:
        counter.tokens = 0
        found = [job.ndcg(reranker.rerank(job.query, job.candidates)) for job in jobs_]
        return found, counter.tokens

    whole, tokens = run(big)
    print(f"{len(jobs_)} questions of {len(SETS)} sets; BM25's top {CANDIDATES}")
    print(f"{'':34} nDCG   against all, points     tokens")
    first, _ = run(Reranker(FirstStageOrder(), first_stage_weight=0.0))
    report("BM25 alone", first, whole, 0.0)
    report("embedded model, all windows", whole, whole, 1.0)
    smalls = {
        "BM25's order": Reranker(FirstStageOrder(), first_stage_weight=0.0),
        "encoder": Reranker(EncoderScorer()),
        "first window": Reranker(counter, long_passages="first"),
    }
    alone, spent = run(smalls["first window"])
    report("embedded model, first window", alone, whole, spent / tokens)
    for name, small in smalls.items():
        for head in HEADS:
            found, spent = run(Cascade(small, big, head=head))
            report(f"cascade: {name}, then {head}", found, whole, spent / tokens)
    mean = tokens / len(jobs_)
    with patch("rerank_plugins.reranking.deadline.perf_counter", lambda: counter.tokens / 1000):
        for share in SHARES:
            timed = Reranker(counter, deadline_ms=mean * share)
            found, spent = run(timed)
            report(f"deadline: {share:.0%} of the mean question", found, whole, spent / tokens)


def by_the_wall(everything: Iterable[Job]) -> None:
    """How well deadlines are kept on this machine, now."""
    jobs_ = list(everything)
    scorer = load_scorer()
    reranker = Reranker(scorer)
    reranker.rerank(jobs_[0].query, jobs_[0].candidates)  # loads the model

    def timed(**options: Any) -> tuple[list[float], list[Ranking]]:
        seconds, rankings = [], []
        for job in jobs_:
            start = time.perf_counter()
            rankings.append(reranker.rerank(job.query, job.candidates, **options))
            seconds.append(time.perf_counter() - start)
        return seconds, rankings

    seconds, _ = timed()
    whole = statistics.median(seconds)
    print(f"{len(jobs_)} questions, all {CANDIDATES} passages: median {whole * 1000:.0f} ms")
    for share in (0.1, 0.25, 0.5):
        limit = whole * share * 1000
        seconds, rankings = timed(deadline_ms=limit)
        used = sorted(second * 1000 / limit for second in seconds)
        scored = statistics.mean(ranking.scored for ranking in rankings)
        print(
            f"deadline {limit:5.0f} ms: used {used[len(used) // 2]:.2f} of it (median), "
            f"{used[-1]:.2f} (most); in time {np.mean(np.asarray(used) <= 1):.0%}; "
            f"{scored:.1f} of {CANDIDATES} passages scored"
        )
    kept = Reranker(scorer, cache=ScoreCache())
    pairs = [(job.query, c.text) for job in jobs_ for c in job.candidates]
    pairs = (pairs * (1000 // len(pairs) + 1))[:1000]
    kept.scorer.score(pairs, ScoreOptions())
    took = []
    for _ in range(50):
        start = time.perf_counter()
        kept.scorer.score(pairs, ScoreOptions())
        took.append((time.perf_counter() - start) * 1000)
    print(f"1,000 cached pairs: median {statistics.median(took):.2f} ms, best {min(took):.2f} ms")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20, help="of each set")
    parser.add_argument("--scores", type=Path, help="file that keeps scores for the next run")
    parser.add_argument("--clock", choices=("tokens", "wall"), default="tokens")
    parser.add_argument("--minutes", type=float, default=600, help="of scoring, then report")
    options = parser.parse_args()
    found = list(jobs(options.data, options.questions))
    # One question of every set, then the next: whatever the minutes allow is of all sets.
    found = [job for start in range(options.questions) for job in found[start :: options.questions]]
    if options.clock == "wall":
        by_the_wall(found)
    else:
        by_tokens(found, ScoreCache(1_000_000, path=options.scores), options.minutes)


if __name__ == "__main__":
    main()
