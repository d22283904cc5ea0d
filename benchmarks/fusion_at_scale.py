"""Whether the hybrid's weights hold as a collection grows: one question set, more and more others.

    python benchmarks/fusion_at_scale.py --data DIR [--sizes 234 1000 4000 16000] [--questions 200]

ARCD's questions over its own passages and as many paragraphs of Arabic Wikipedia as the size asks
for; nDCG@10 of BM25, of the bundled encoder, and of `Hybrid` by its share of the encoder.
"""

from __future__ import annotations

import argparse
import random
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
from _common import machine
from first_stage_scale import lines

from rerank_plugins.bundled import BundledEncoder
from rerank_plugins.evaluation import read_question_set
from rerank_plugins.first_stage import BM25, Dense, FirstStage, Hybrid

SET = "arcd-ar/test"
OTHERS = "more/wiki2017-paragraphs-ar/paragraphs.jsonl.gz"
SHARES = (0.3, 0.5, 0.6, 0.7, 0.8)


class Known:
    """The bundled encoder for questions; passages' vectors are ready."""

    def __init__(self) -> None:
        self.encoder = BundledEncoder()
        self._queries: dict[str, np.ndarray] = {}

    def embed_windows(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """As the encoder's."""
        return self.encoder.embed_windows(texts)

    encode = embed_windows

    def encode_query(self, texts: list[str]) -> np.ndarray:
        """Each question once."""
        new = [text for text in texts if text not in self._queries]
        if new:
            self._queries.update(zip(new, self.encoder.encode_query(new), strict=True))
        return np.stack([self._queries[text] for text in texts])


def ndcg(stage: FirstStage, questions: dict[str, int]) -> float:
    """Mean over questions with one right passage: 1 / log2(1 + its rank) in the first ten."""
    gains = []
    for query, right in questions.items():
        keys = [found.key for found in stage.search(query, 10)]
        gains.append(1 / np.log2(2 + keys.index(right)) if right in keys else 0.0)
    return fmean(gains)


def main() -> None:
    """Prints a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[234, 1000, 4000, 16000])
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    whole = read_question_set(options.data / SET, SET)
    place = {key: at for at, key in enumerate(whole.corpus)}
    drawn = random.Random(0).sample(sorted(whole.queries), options.questions)
    questions = {
        whole.queries[key]: place[next(iter(whole.qrels[key]))]
        for key in drawn
        if len(whole.qrels[key]) == 1
    }
    texts = list(whole.corpus.values())
    others = (line["text"] for line in lines(options.data / OTHERS))
    texts += islice(others, max(options.sizes) - len(texts))
    known = Known()
    bm25, dense = BM25(language="ar"), Dense(embed=known)
    names = ["BM25", "encoder", *(f"hybrid {share}" for share in SHARES)]
    print(f"| passages | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for size in options.sizes:
        more = texts[bm25.view.size : size]
        bm25.add(more)
        dense.add(more)
        stages: list[FirstStage] = [
            bm25,
            dense,
            *(Hybrid([bm25, dense], weights=(1 - share, share)) for share in SHARES),
        ]
        found = (f"{ndcg(stage, questions):.3f}".lstrip("0") for stage in stages)
        print(f"| {size:,} | {' | '.join(found)} |", flush=True)
    print(f"\n{len(questions)} questions; {machine()}")


if __name__ == "__main__":
    main()
