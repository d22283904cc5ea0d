"""How well BM25 finds the passage: LangChain's default against our analysis, change by change.

Prints MRR@10, and nDCG@10 in a second table, of each set's questions over the set's own
passages: by ``text.split()``, which is what LangChain's BM25Retriever does; by the analyzer of
the set's language; with ``language="auto"``; and by the analyzer less one of its steps each
(``no-idf``: rank-bm25's own idf; ``no-arabic``: Lucene's light stem; ``no-accents``: stems of the
accented word; ``no-parts``: no compounds; ``no-stop``: queries keep their stop words).

Usage: python benchmarks/first_stage_quality.py --data DIR [--columns ours auto no-idf ...]

DIR holds one folder a set and split with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. With
another checkout first on PYTHONPATH and ``--columns ours`` it measures that one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import ir_measures
import numpy as np
from rank_bm25 import BM25Okapi

from rerank_plugins.first_stage import BM25
from rerank_plugins.ordering import descending

MEASURES = (ir_measures.RR @ 10, ir_measures.nDCG @ 10)
SETS = {
    "ARCD": ("ar", ("arcd-ar/train", "arcd-ar/test")),
    "XQuAD-ar": ("ar", ("xquad-ar/test",)),
    "KaifLematha": ("ar", ("kaiflematha-ar/dev",)),
    "FQuAD": ("fr", ("fquad-fr/valid",)),
    "PIAF": ("fr", ("piaf-fr/all",)),
    "PoQuAD": ("pl", ("poquad-pl/dev",)),
    "TyDi en": ("en", ("tydiqa-en/dev",)),
    "XQuAD-en": ("en", ("xquad-en/test",)),
    "Cranfield": ("en", ("cranfield-en/test",)),
}
COLUMNS = ("split", "ours", "auto", "no-idf", "no-arabic", "no-accents", "no-parts", "no-stop")


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
    return okapi(questions, str.split, str.split)[0]


Terms = Callable[[str], list[str]]


def okapi(questions: Questions, passage: Terms, query: Terms) -> tuple[float, ...]:
    """The measures of rank-bm25's BM25Okapi, with its own idf, over these terms."""
    ids = list(questions.passages)
    index = BM25Okapi([passage(text) for text in questions.passages.values()])
    run = []
    for query_id, text in questions.queries.items():
        scores = index.get_scores(query(text))
        # Falling numbers in place of scores, so that the measure cannot reorder ties.
        run += [
            ir_measures.ScoredDoc(query_id, ids[at], -place)
            for place, at in enumerate(descending(scores, 10))
        ]
    return _measured(questions, run)


def analysed(questions: Questions, language: str, engine: str = "auto") -> float:
    """MRR@10 of our BM25."""
    return searched(questions, language, engine)[0]


def searched(questions: Questions, language: str, engine: str = "auto") -> tuple[float, ...]:
    """The measures of our BM25."""
    ids = list(questions.passages)
    bm25 = BM25(questions.passages.values(), language=language, engine=engine)
    run = [
        ir_measures.ScoredDoc(query_id, ids[found.key], -found.rank)
        for query_id, query in questions.queries.items()
        for found in bm25.search(query, 10)
    ]
    return _measured(questions, run)


def column(name: str, questions: Questions, language: str) -> tuple[float, ...]:
    """The measures of one column."""
    if name == "split":
        return okapi(questions, str.split, str.split)
    if name == "no-idf":
        analyzer = BM25((), language=language).analyzer
        return okapi(questions, analyzer, analyzer.query)
    with without(name) if name.startswith("no-") else ExitStack():
        return searched(questions, "auto" if name == "auto" else language)


@contextmanager
def without(step: str) -> Iterator[None]:
    """The analysis less one step."""
    from rerank_plugins.first_stage.analysis import (
        analyzers,
        arabic,
        identifiers,
        latin,
        queries,
        snowball,
    )
    from rerank_plugins.first_stage.analysis.normalization import folded

    def accented_stem(word: str, language: str) -> str:
        return folded(snowball.stem(word.casefold(), language))

    def parts(run: str) -> Iterator[identifiers.Token]:
        return ((part, "word") for part in re.findall(r"[^\W\d_]+|\d+", run))

    replaced = {
        "no-arabic": [
            (arabic, "stem", lucene_stem),
            (arabic, "query_stems", lambda word: [lucene_stem(word)]),
        ],
        "no-accents": [(latin, "stem", accented_stem)],
        "no-parts": [(identifiers, "_compound", parts)],
        "no-stop": [(queries, "_is_stop_word", lambda *_: False)],
    }[step]  # fmt: skip
    with ExitStack() as patches:
        for where, name, value in replaced:
            patches.enter_context(mock.patch.object(where, name, value))
        analyzers._shared.cache_clear()  # noqa: SLF001  (their memos)
        try:
            yield
        finally:
            analyzers._shared.cache_clear()  # noqa: SLF001


def lucene_stem(word: str) -> str:
    """Lucene's ArabicNormalizer and ArabicStemmer: one prefix, then each suffix once."""
    word = word.translate(str.maketrans("أإآىة", "ااايه"))
    for prefix in ("ال", "وال", "بال", "كال", "فال", "لل"):
        if word.startswith(prefix) and len(word) >= len(prefix) + 2:
            word = word[len(prefix) :]
            break
    else:
        if word.startswith("و") and len(word) > 3:
            word = word[1:]
    for suffix in ("ها", "ان", "ات", "ون", "ين", "يه", "ه", "ي"):
        if word.endswith(suffix) and len(word) >= len(suffix) + 2:
            word = word[: -len(suffix)]
    return word


def _measured(questions: Questions, run: list[ir_measures.ScoredDoc]) -> tuple[float, ...]:
    found = ir_measures.calc_aggregate(MEASURES, questions.qrels, run)
    return tuple(float(found[measure]) for measure in MEASURES)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS)
    options = parser.parse_args()
    figures = []
    for language, splits in SETS.values():
        questions = Questions.read(options.data, splits)
        figures.append([column(name, questions, language) for name in options.columns])
    for number, measure in enumerate(MEASURES):
        print("|", measure, "|", " | ".join(options.columns), "|")
        print("|---" * (len(options.columns) + 1) + "|")
        of_sets = np.asarray(figures)[:, :, number]
        for name, row in zip([*SETS, "mean"], [*of_sets, of_sets.mean(axis=0)], strict=True):
            print("|", name, "|", " | ".join(f"{value:.4f}"[1:] for value in row), "|", flush=True)


if __name__ == "__main__":
    main()
