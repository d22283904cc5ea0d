"""A threshold for "answer only when sure": what it refuses, rightly and wrongly.

    python benchmarks/calibration.py --data DIR [--questions 60] [--precision .9]

Half of each set's questions fit the probabilities and the threshold, the other half is measured:
once with the answer among the candidates, once without it, where every answer is wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import SETS, machine

from rerank_plugins.evaluation import read_question_set, sample_queries
from rerank_plugins.evaluation.labelled import labelled_lists
from rerank_plugins.first_stage import BM25
from rerank_plugins.models.calibration import calibrate
from rerank_plugins.models.loading import load_scorer


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
        whole = read_question_set(options.data / name, name)
        bm25 = BM25(whole.corpus.values(), language=name.split("/")[0].rsplit("-", 1)[-1])
        some = labelled_lists(sample_queries(whole, options.questions), bm25, options.candidates)
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
