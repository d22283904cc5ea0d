"""``rerank-plugins train``: the command line of `rerank_plugins.training.train`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rerank_plugins.cli._io import show_log
from rerank_plugins.models.catalog import EMBEDDED

# Kept beside the parser because the choices must be known without importing torch.
_RECIPES = ("binary", "hard-negatives", "listwise", "ranknet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``rerank-plugins train`` takes."""
    parser.add_argument(
        "--dataset",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder with corpus.jsonl[.gz], queries.jsonl[.gz], qrels.tsv; may be repeated",
    )
    parser.add_argument(
        "--licence",
        action="append",
        default=[],
        metavar="TEXT",
        help="licence of the data, for the card: one for all, or one a --dataset in order",
    )
    parser.add_argument("--base", default=EMBEDDED, help=f"model to tune (default {EMBEDDED})")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--recipe", choices=_RECIPES, default="listwise")
    parser.add_argument("--teacher", help="model whose scores ranknet learns")
    parser.add_argument(
        "--merge", type=float, metavar="SHARE", help="merge that share of the tuned weights in"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, default=1.0, help="passes (default 1)")
    length.add_argument("--minutes", type=float, help="about how long to train, instead")
    parser.add_argument("--negatives", type=int, default=7, help="a question (default 7)")
    parser.add_argument(
        "--ranks",
        type=int,
        nargs=2,
        default=(1, 50),
        metavar=("FIRST", "LAST"),
        help="first-stage ranks that negatives come from (default 1 50)",
    )
    parser.add_argument("--margin", type=float, help="share below the positive's BM25 score")
    parser.add_argument("--batch", type=int, default=16, help="questions a step (default 16)")
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step, for memory")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument(
        "--embeddings-rate", type=float, default=1.0, help="times the learning rate (default 1)"
    )
    parser.add_argument("--max-length", type=int, help="tokens a pair")
    parser.add_argument("--window-words", type=int, help="train on the best window of that size")
    parser.add_argument(
        "--held-back", type=int, default=200, help="questions a set for evaluation (default 200)"
    )
    parser.add_argument("--evaluations", type=int, default=10, help="at most (default 10)")
    parser.add_argument("--patience", type=int, default=3, help="evaluations (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")


def run(options: argparse.Namespace) -> int:
    """Trains; shows the log on standard error, and the folder and its figures as the result.

    Raises:
        RerankPluginsError: See `rerank_plugins.training.train`.
    """
    show_log()
    from rerank_plugins.training import TrainingConfig, train

    result = train(
        TrainingConfig(
            out=options.out,
            datasets=tuple(options.dataset),
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
            queries_per_batch=options.batch,
            accumulate=options.accumulate,
            learning_rate=options.learning_rate,
            embeddings_rate=options.embeddings_rate,
            max_length=options.max_length,
            window_words=options.window_words,
            held_back=options.held_back,
            evaluations=options.evaluations,
            patience=options.patience,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
        )
    )
    lines = [str(result.out)]
    lines += [
        f"{name}: nDCG@10 {result.before[name]:.3f} -> {after:.3f} "
        f"(first stage {result.first_stage[name]:.3f})"
        for name, after in result.after.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
