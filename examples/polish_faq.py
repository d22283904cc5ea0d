"""A Polish FAQ: from a folder to an evaluated, fine-tuned, quantized and calibrated reranker.

Run it::

    pip install "rerank-plugins[train,evaluation,openvino]"
    python polish_faq.py my-model

``polish_faq/`` is a data set in BEIR's layout: 24 answers of a bicycle shop, two questions each
to train on (``qrels/train.tsv``) and one to test on (``qrels/test.tsv``). Put your own folder in
its place; a hundred questions and more give figures that tell something.

The same on the command line::

    rerank-plugins evaluate --dataset polish_faq
    rerank-plugins train --dataset polish_faq --out my-model
    rerank-plugins evaluate --dataset polish_faq --model bundled my-model --report report.html
    rerank-plugins quantize --model my-model --dataset polish_faq --split train
    rerank-plugins calibrate --model my-model --dataset polish_faq --split train
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_plugins import load_reranker
from rerank_plugins.evaluation import Comparison, compare, html_report, read_question_set, verdicts
from rerank_plugins.evaluation.labelled import labelled_lists
from rerank_plugins.first_stage import BM25
from rerank_plugins.models.calibration import CalibrationReport, calibrate
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.quantization import LabelledList, quantize
from rerank_plugins.training import TrainingConfig, TrainingResult, train

FOLDER = Path(__file__).parent / "polish_faq"
CANDIDATES = 10


@dataclass(frozen=True)
class Outcome:
    """What each step gave.

    Attributes:
        before: BM25 and the base model on the test questions.
        training: What `train` says.
        after: BM25, the base model and the fine-tuned one on the same questions.
        int8: The report of `quantize`.
        calibration: The report of `calibrate`, with a threshold for "answer only when sure".
    """

    before: Comparison
    training: TrainingResult
    after: Comparison
    int8: dict[str, Any]
    calibration: CalibrationReport


def main(out: Path, base: str = "bundled", *, epochs: float = 3.0) -> Outcome:
    """Evaluates, fine-tunes, evaluates again, quantizes and calibrates.

    Args:
        out: Folder for the model; must not exist. The report is written beside it.
        base: What to start from.
        epochs: Passes over the training questions.
    """
    test = read_question_set(FOLDER, split="test")
    bm25 = BM25(test.corpus.values(), language="pl")
    before = compare(test, {"BM25": bm25}, {"base": load_reranker(base)}, candidates=CANDIDATES)

    training = train(
        TrainingConfig(
            out=out,
            datasets=(FOLDER,),
            split="train",
            base=base,
            epochs=epochs,
            learning_rate=5e-5,
            queries_per_batch=8,
            held_back=5,
            languages=("pl",),
        )
    )
    rerankers = {"base": load_reranker(base), "tuned": load_reranker(out)}
    after = compare(test, {"BM25": bm25}, rerankers, candidates=CANDIDATES)
    html_report([after], out.with_name(f"{out.name}.html"))

    trained_on, tested_on = labelled(bm25, "train"), labelled(bm25, "test")
    pairs = [(some.query, passage) for some in trained_on for passage in some.passages[:3]]
    int8 = quantize(load_scorer(out), pairs=pairs, labelled=tested_on)
    calibration = calibrate(load_scorer(out), [*trained_on, *tested_on], precision=0.9)
    calibration.calibration.save(out)  # load_reranker(out, calibration=out) uses it
    return Outcome(before, training, after, int8, calibration)


def labelled(stage: BM25, split: str) -> list[LabelledList]:
    """Questions with their answer and the other passages that BM25 finds."""
    lists = labelled_lists(read_question_set(FOLDER, split=split), stage, CANDIDATES)
    return [some for some in lists if len(some.passages) > 1]


if __name__ == "__main__":
    outcome = main(Path(sys.argv[1] if len(sys.argv) > 1 else "polish-faq-model"))
    print(outcome.before.table())
    print(outcome.after.table())
    for verdict in verdicts(outcome.after):
        print(verdict.text())
    report = outcome.calibration
    print(
        f"calibration error {report.before.calibration_error:.3f} -> "
        f"{report.after.calibration_error:.3f}; threshold for 90% right: {report.threshold}"
    )
    print(f"int8: Kendall's tau {outcome.int8['kendall_tau']:.3f}. {outcome.int8['advice']}")
