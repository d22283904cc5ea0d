"""``rerank-plugins train``: the command line of `rerank_plugins.training.train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rerank_plugins.cli._io import show_log, write
from rerank_plugins.models.catalog import BUNDLED

# Kept beside the parser because the choices must be known without importing torch.
_RECIPES = ("binary", "hard-negatives", "listwise", "ranknet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins train``."""
    _add_data(parser)
    parser.add_argument(
        "--base", default=BUNDLED, metavar="NAME", help=f"model to fine-tune (default {BUNDLED})"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist"
    )
    parser.add_argument(
        "--recipe", choices=_RECIPES, default="listwise", help="loss (default listwise)"
    )
    parser.add_argument(
        "--teacher", metavar="NAME", help="model whose scores the recipe ranknet learns"
    )
    parser.add_argument(
        "--merge",
        type=float,
        metavar="SHARE",
        help="merge the weights at the end: share of the tuned ones, 0 to 1",
    )
    _add_schedule(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to train (default auto)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 autocast where the hardware has it (default auto)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="DIR",
        help="one or more folders in BEIR's layout: corpus.jsonl, queries.jsonl and "
        "qrels/train.tsv or qrels.tsv",
    )
    parser.add_argument(
        "--split", metavar="NAME", help="judgements to learn from: qrels/NAME.tsv (default train)"
    )
    parser.add_argument(
        "--licence",
        nargs="+",
        action="extend",
        default=[],
        metavar="TEXT",
        help="licence of the data, for the card: once, or once per --dataset, in order",
    )
    parser.add_argument(
        "--negatives",
        type=int,
        default=7,
        metavar="N",
        help="hard negatives per question (default 7)",
    )
    parser.add_argument(
        "--ranks",
        type=int,
        nargs=2,
        default=(1, 50),
        metavar=("FIRST", "LAST"),
        help="first-stage ranks that negatives come from (default 1 50)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="SHARE",
        help="skip negatives scored above (1 - SHARE) times the positive's BM25 score",
    )
    parser.add_argument(
        "--unanswered",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the questions whose answer is left out, so that lists without an answer "
        "score below 0; recipe listwise alone (default 0)",
    )
    parser.add_argument(
        "--held-back",
        type=int,
        default=200,
        metavar="N",
        help="questions per set held back for evaluation, at most a tenth of it (default 200)",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=30,
        metavar="N",
        help="passages per held-back question that evaluation reranks (default 30)",
    )


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=float, default=1.0, help="passes over the data (default 1)"
    )
    length.add_argument("--minutes", type=float, help="time budget instead, evaluations included")
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="questions per batch (default 16)"
    )
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="batches per step, to save memory (default 1)",
    )
    parser.add_argument(
        "--learning-rate", type=float, default=2e-5, help="peak learning rate (default 2e-5)"
    )
    parser.add_argument(
        "--embeddings-rate",
        type=float,
        default=1.0,
        help="factor of the learning rate for embedding tables (default 1)",
    )
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens per pair (default: the model's, 512)"
    )
    parser.add_argument(
        "--window-words",
        type=int,
        metavar="N",
        help="train on the best window of N words of each passage",
    )
    parser.add_argument(
        "--evaluations", type=int, default=10, metavar="N", help="at most N (default 10)"
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="N",
        help="stop after N evaluations without improvement (default 3)",
    )


def run(options: argparse.Namespace) -> int:
    """Trains; logs to stderr, prints the folder and its figures.

    Raises:
        RerankPluginsError: See `rerank_plugins.training.train`.
    """
    show_log()
    from rerank_plugins.training import TrainingConfig, train

    result = train(
        TrainingConfig(
            out=options.out,
            datasets=tuple(options.dataset),
            split=options.split,
            licences=tuple(options.licence),
            base=options.base,
            recipe=options.recipe,
            teacher=options.teacher,
            merge=options.merge,
            epochs=options.epochs,
            minutes=options.minutes,
            negatives=options.negatives,
            ranks=tuple(options.ranks),
            margin=options.margin,
            unanswered=options.unanswered,
            queries_per_batch=options.batch,
            accumulate=options.accumulate,
            learning_rate=options.learning_rate,
            embeddings_rate=options.embeddings_rate,
            max_length=options.max_length,
            window_words=options.window_words,
            held_back=options.held_back,
            candidates=options.candidates,
            evaluations=options.evaluations,
            patience=options.patience,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
        )
    )
    write(str(result.out))
    for name, after in result.after.items():
        write(
            f"{name}: nDCG@10 first stage {result.first_stage[name]:.3f}; model alone "
            f"{result.before[name]:.3f} -> {after:.3f}"
        )
        if name in result.blended_after:
            write(
                f"{name}: with the default blend ({result.first_stage_weight:g} of the first "
                f"stage) {result.blended_before[name]:.3f} -> {result.blended_after[name]:.3f}"
            )
    if not result.after:
        write("no questions were held back: nothing was measured")
    return 0
