"""Whether the hybrid's weights hold as a collection grows: one question set, more and more others.

    python benchmarks/fusion_at_scale.py --data DIR [--sizes 234 1000 4000] [--questions 200]

ARCD's questions over its own passages and as many paragraphs of Arabic Wikipedia as the size asks
for; nDCG@10 of BM25, of the bundled encoder, and of `Hybrid` by its share of the encoder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

from _common import machine
from first_stage_scale import lines

from rerank_plugins.evaluation import compare, read_question_set
from rerank_plugins.first_stage import BM25, Dense, Hybrid

SET = "arcd-ar/test"
OTHERS = "more/wiki2017-paragraphs-ar/paragraphs.jsonl.gz"
SHARES = (0.3, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    """Prints a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[234, 1000, 4000])
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    own = read_question_set(options.data / SET, SET)
    others = lines(options.data / OTHERS)
    passages = dict(own.corpus)
    bm25, dense = BM25(language="ar"), Dense()
    names = ["BM25", "encoder", *(f"hybrid {share}" for share in SHARES)]
    print(f"| passages | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for size in options.sizes:
        more = islice(others, max(0, size - len(passages)))
        passages |= {line["id"]: line["text"] for line in more}
        new = list(passages.values())[bm25.view.size :]
        bm25.add(new)
        dense.add(new)
        hybrids = (Hybrid([bm25, dense], weights=(1 - share, share)) for share in SHARES)
        found = compare(
            replace(own, corpus=passages),
            dict(zip(names, (bm25, dense, *hybrids), strict=True)),
            {},
            candidates=10,
            measures=["nDCG@10"],
            queries=options.questions,
        )
        figures = (found.systems[name].values["nDCG@10"].mean() for name in names)
        cells = (f"{figure:.3f}".lstrip("0") for figure in figures)
        print(f"| {len(passages):,} | {' | '.join(cells)} |", flush=True)
    print(f"\n{options.questions} questions; {machine()}")


if __name__ == "__main__":
    main()
