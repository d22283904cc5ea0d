"""How well BM25 finds the passage: LangChain's default against our analysis.

Prints MRR@10 of each set's questions over the set's own passages, for three ways to the terms:
``text.split()``, which is what LangChain's BM25Retriever does; the analyzer of the set's
language; and ``language="auto"``. The last row searches all passages of all sets at once.

Usage: python benchmarks/first_stage_quality.py --data DIR [--engine rank-bm25|bm25s]

DIR holds one folder a set and split with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ir_measures
from rank_bm25 import BM25Okapi

from rerank_plugins.first_stage import BM25
from rerank_plugins.ordering import descending

MEASURE = ir_measures.RR @ 10
SETS = {
    "ARCD": ("ar", ("arcd-ar/train", "arcd-ar/test")),
    "XQuAD-ar": ("ar", ("xquad-ar/test",)),
    "FQuAD valid": ("fr", ("fquad-fr/valid",)),
    "PoQuAD dev": ("pl", ("poquad-pl/dev",)),
    "TyDi en dev": ("en", ("tydiqa-en/dev",)),
    "XQuAD-en": ("en", ("xquad-en/test",)),
}


@dataclass
class Questions:
    """Questions over passages, and which passages answer which question."""

    passages: dict[str, str]
    queries: dict[str, str]
    qrels: list[ir_measures.Qrel]

    @staticmethod
    def read(data: Path, splits: Iterable[str]) -> Questions:
        """All splits as one corpus."""
        found = Questions({}, {}, [])
        for split in splits:
            folder = data / split
            found.passages |= {r["id"]: r["text"] for r in _lines(folder / "corpus.jsonl.gz")}
            found.queries |= {r["id"]: r["text"] for r in _lines(folder / "queries.jsonl.gz")}
            with (folder / "qrels.tsv").open(encoding="utf-8") as rows:
                next(rows)
                for row in rows:
                    query, passage, relevance = row.split("\t")
                    found.qrels.append(ir_measures.Qrel(query, passage, int(relevance)))
        judged = {q.query_id for q in found.qrels}
        found.queries = {i: text for i, text in found.queries.items() if i in judged}
        return found


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def split_by_spaces(questions: Questions) -> float:
    """MRR@10 of BM25Okapi over ``text.split()``."""
    ids = list(questions.passages)
    okapi = BM25Okapi([text.split() for text in questions.passages.values()])
    run = []
    for query_id, query in questions.queries.items():
        scores = okapi.get_scores(query.split())
        # Falling numbers in place of scores, so that the measure cannot reorder ties.
        run += [
            ir_measures.ScoredDoc(query_id, ids[at], -place)
            for place, at in enumerate(descending(scores, 10))
        ]
    return float(ir_measures.calc_aggregate([MEASURE], questions.qrels, run)[MEASURE])


def analysed(questions: Questions, language: str, engine: str = "rank-bm25") -> float:
    """MRR@10 of our BM25."""
    ids = list(questions.passages)
    bm25 = BM25(questions.passages.values(), language=language, engine=engine)
    run = [
        ir_measures.ScoredDoc(query_id, ids[found.key], -found.rank)
        for query_id, query in questions.queries.items()
        for found in bm25.search(query, 10)
    ]
    return float(ir_measures.calc_aggregate([MEASURE], questions.qrels, run)[MEASURE])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="bm25s")
    options = parser.parse_args()
    row = "{:14} {:>9} {:>9} {:>12} {:>9} {:>9} {:>7}"
    print(row.format("MRR@10", "questions", "passages", "text.split()", "ours", "auto", "ratio"))
    everything = Questions({}, {}, [])
    for name, (language, splits) in SETS.items():
        questions = Questions.read(options.data, splits)
        everything.passages |= questions.passages
        everything.queries |= questions.queries
        everything.qrels += questions.qrels
        _print(row, name, questions, language, options.engine)
    _print(row, "all together", everything, "auto", options.engine)


def _print(row: str, name: str, questions: Questions, language: str, engine: str) -> None:
    before = split_by_spaces(questions)
    own = analysed(questions, language, engine)
    auto = own if language == "auto" else analysed(questions, "auto", engine)
    sizes = len(questions.queries), len(questions.passages)
    figures = f"{before:.3f}", f"{own:.3f}", f"{auto:.3f}", f"{own / before:.2f}"
    print(row.format(name, *sizes, *figures), flush=True)


if __name__ == "__main__":
    main()
