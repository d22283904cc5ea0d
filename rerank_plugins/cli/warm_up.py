"""``rerank-plugins warm-up``: fetches, converts and loads models before anyone waits for them."""

from __future__ import annotations

import argparse
import time

from rerank_plugins.cli._io import say, write, write_json
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.scoring.engines import ENGINES, PRECISIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins warm-up``."""
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"one or more rerankers (default {BUNDLED})",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="inference engine (default auto)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of the weights (default auto)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, mps or cuda:N (default auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")


def run(options: argparse.Namespace) -> int:
    """Prints what each model runs on, and how long it took to be ready.

    Raises:
        RerankPluginsError: If a model could not be fetched, converted or loaded.
    """
    from rerank_plugins.models.loading import load_reranker

    models = options.model or [BUNDLED]
    rerankers = {
        model: load_reranker(
            model, engine=options.engine, precision=options.precision, device=options.device
        )
        for model in models  # a wrong name is refused before the first model is fetched
    }
    for model, reranker in rerankers.items():
        say(f"loading {model}", only_on_terminal=True)
        start = time.perf_counter()
        reranker.warm_up()
        seconds = time.perf_counter() - start
        told = reranker.describe()
        if options.json:
            write_json({**told, "model": model, "seconds": seconds})
        else:
            write(
                f"{model}: ready in {seconds:.1f} s; engine {told['engine']}, device "
                f"{told['device']}, precision {told['precision']}"
            )
    return 0
