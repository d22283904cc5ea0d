"""How often the answer is in a context of so many tokens: whole passages against spans.

    python benchmarks/context_spans.py --data DIR [--sets NAME ...] [--questions 60]
        [--candidates 10] [--budget 300] [--windows 128] [--model bundled]

For each question BM25 finds candidates, the model reranks them, and `ContextBuilder` packs them:

- whole: passages as one reads them, `long_passages="truncate"`, packed whole;
- windows: the model reads windows of `--windows` tokens, the pair included, and the best window
  counts (`long_passages="max"`); packed whole;
- spans: the same ranking, packed with `passages="spans"`: the sentences around the best window.

DIR holds one folder a set and split with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. What
counts is whether the answer's text is in the context. `more/arabicaqa-answers-ar` has answers,
each a part of a passage of `more/arabicaqa-stitched-ar` (those of 80 words and more are used).
The other sets say only which passage answers: there a stand-in is taken for the answer, the
sentence of that passage that BM25 ranks first for the question among the passage's sentences.
It shares words with the question by its making, so those rows flatter lexical ranking, for all
three ways alike. Rows give the share of questions and a 95% interval of the difference between
spans and whole (10,000 bootstrap samples over questions).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from first_stage_scale import lines
from tabulate import tabulate
from tqdm import tqdm

from rerank_plugins import ContextBuilder, Reranker, load_reranker
from rerank_plugins.context.sentences import sentence_ends
from rerank_plugins.first_stage import BM25

SETS = ("arcd-ar/test", "fquad-fr/valid", "poquad-pl/dev", "tydiqa-en/dev", "arabicaqa")
STITCHED, ANSWERS = "more/arabicaqa-stitched-ar", "more/arabicaqa-answers-ar"
WAYS = ("whole", "windows", "spans")
LONG = 80  # words


@dataclass
class Asked:
    """A question, and the text that must be in the context."""

    question: str
    answer: str


def plain(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def judged(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Passages and questions by id, and the right passages of each question."""
    passages = {row["id"]: row["text"] for row in lines(folder / "corpus.jsonl.gz")}
    questions = {row["id"]: row["text"] for row in lines(folder / "queries.jsonl.gz")}
    right: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, score = line.split("\t")
        if int(score) > 0:
            right.setdefault(query, set()).add(passage)
    return passages, questions, right


def stand_in(question: str, passage: str) -> str:
    """The sentence of the passage that BM25 ranks first for the question."""
    edges = [0, *sentence_ends(passage), len(passage)]
    sentences = [passage[a:b].strip() for a, b in pairwise(edges)]
    sentences = [sentence for sentence in sentences if sentence]
    found = BM25(sentences).search(question, 1)
    return sentences[found[0].key] if found else sentences[0]


def asked(data: Path, name: str) -> tuple[list[str], Iterator[Asked]]:
    """The set's passages; its questions with their answers, in random order."""
    rng = random.Random(0)
    if name != "arabicaqa":
        passages, questions, right = judged(data / name)
        ids = sorted(questions.keys() & right.keys())
        rng.shuffle(ids)
        return list(passages.values()), (
            Asked(questions[one], stand_in(questions[one], passages[min(right[one])]))
            for one in ids
        )
    passages, questions, right = judged(data / STITCHED)
    of_text = {text: one for one, text in questions.items()}
    rows = list(lines(data / ANSWERS / "pairs.jsonl.gz"))
    rng.shuffle(rows)

    def known() -> Iterator[Asked]:
        for row in rows:
            for one in sorted(right.get(of_text.get(row["query"], ""), ())):
                text = passages[one]
                if len(text.split()) >= LONG and plain(row["text"]) in plain(text):
                    yield Asked(row["query"], row["text"])
                    break

    return list(passages.values()), known()


def contains(reranker: Reranker, builder: ContextBuilder, one: Asked, texts: list[str]) -> bool:
    """Whether the answer is in the context of the reranked texts."""
    return plain(one.answer) in plain(builder.build(reranker.rerank(one.question, texts)).text)


def interval(gains: np.ndarray) -> str:
    """95% of bootstrap samples of the mean lie between, in points."""
    rng = np.random.default_rng(0)
    means = gains[rng.integers(0, len(gains), (10_000, len(gains)))].mean(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return f"{low:+.1f} to {high:+.1f}"


def main() -> None:
    """Prints a row a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--model", default="bundled")
    options = parser.parse_args()
    plainly = load_reranker(options.model, long_passages="truncate", cache=100_000)
    windowed = load_reranker(
        options.model, long_passages="max", max_length=options.windows, cache=100_000
    )
    whole, spans = (ContextBuilder(options.budget, passages=how) for how in ("whole", "spans"))
    rows = []
    for name in options.sets:
        texts, questions = asked(options.data, name)
        index = BM25(texts)
        hits: list[list[bool]] = []
        for one in tqdm(questions, total=options.questions, desc=name, disable=None):
            if len(hits) == options.questions:
                break
            found = [hit.text for hit in index.search(one.question, options.candidates)]
            hits.append(
                [
                    contains(plainly, whole, one, found),
                    contains(windowed, whole, one, found),
                    contains(windowed, spans, one, found),
                ]
            )
        table = np.array(hits, dtype=float)
        kind = "answers" if name == "arabicaqa" else "stand-ins"
        shares = [f"{100 * share:.1f}" for share in table.mean(axis=0)]
        rows.append([name, kind, len(hits), *shares, interval(table[:, 2] - table[:, 0])])
        print(
            tabulate(rows, ["set", "what is looked for", "questions", *WAYS, "spans - whole"]),
            flush=True,
        )


if __name__ == "__main__":
    main()
