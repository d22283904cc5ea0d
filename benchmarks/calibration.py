"""A threshold for "answer only when sure": what it refuses, rightly and wrongly.

    python benchmarks/calibration.py --data DIR [--questions 60] [--precision .9]

Half of each set's questions fit the probabilities and the threshold, the other half is measured:
once with the answer among the candidates, once without it, where every answer is wrong.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from _common import SETS, machine

from rerank_plugins.evaluation import read_question_set
from rerank_plugins.first_stage import BM25
from rerank_plugins.models.calibration import calibrate
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.agreement import LabelledList


def lists(folder: Path, questions: int, candidates: int) -> list[LabelledList]:
    """Questions drawn from a set, with BM25's candidates and all relevant passages."""
    data = read_question_set(folder, folder.parent.name)
    ids = list(data.corpus)
    bm25 = BM25(data.corpus.values(), language=folder.parent.name.rsplit("-", 1)[-1])
    out = []
    for query in random.Random(0).sample(sorted(data.queries), questions):
        judged = data.qrels[query]
        found = [ids[hit.key] for hit in bm25.search(data.queries[query], candidates)]
        found += [key for key, grade in judged.items() if grade > 0 and key not in found]
        out.append(
            LabelledList(
                data.queries[query],
                [data.corpus[key] for key in found],
                [max(0.0, judged.get(key, 0.0)) for key in found],
            )
        )
    return out


def main() -> None:
    """Prints a row per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--precision", type=float, default=0.9)
    options = parser.parse_args()
    scorer = load_scorer(options.model)
    heads = ("set", "calibration error, before and after", "threshold", "right of those answered",
             "answered", "refused where the answer is missing")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in SETS:
        some = lists(options.data / name, options.questions, options.candidates)
        found = calibrate(scorer, some, precision=options.precision)
        low, high = found.interval or (float("nan"), float("nan"))
        print(
            f"| {name} | {found.before.calibration_error:.3f}, "
            f"{found.after.calibration_error:.3f} | {found.threshold or float('nan'):.3f} | "
            f"{found.precision or 0:.2f} ({low:.2f} to {high:.2f}) | {found.answered:.0%} | "
            f"{found.refused:.0%} |",
            flush=True,
        )
    print(f"\n{options.questions} questions a set, half of them measured; {machine()}")


if __name__ == "__main__":
    main()
