"""``rerank-plugins demo``: retrieve, rerank, assemble on the sample corpus, in four languages.

A worked example as much as a command: every call below is the public interface.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from rerank_plugins.candidates import Ranking
from rerank_plugins.cli._io import write
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.samples import load_passages, load_questions

LANGUAGES = {"ar": "Arabic", "fr": "French", "pl": "Polish", "en": "English"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins demo``."""
    parser.add_argument("--model", default=BUNDLED, help=f"the reranker (default {BUNDLED})")


def run(options: argparse.Namespace) -> int:
    """Prints the demo.

    Raises:
        RerankPluginsError: If the model failed.
    """
    for text in demo(options.model):
        write(text)
    return 0


def demo(model: str = "bundled", *, top_n: int = 5, candidates: int = 20) -> Iterator[str]:
    """Yields, language by language, text that shows what reranking does.

    Args:
        model: What `load_reranker` takes.
        top_n: Passages shown and packed.
        candidates: Passages that the first stage brings.
    """
    from rerank_plugins.context import ContextBuilder, context_passages
    from rerank_plugins.first_stage.bm25 import BM25
    from rerank_plugins.models.loading import load_reranker

    reranker = load_reranker(model)
    builder = ContextBuilder(max_tokens=400)
    for language, name in LANGUAGES.items():
        passages = load_passages(language)
        first_stage = BM25([passage.text for passage in passages], language=language)
        question = load_questions(language)[0]

        start = time.perf_counter()
        found = first_stage.search(question.text, candidates)
        seconds = time.perf_counter() - start
        ranking = reranker.rerank(question.text, found, first_stage_seconds=seconds)

        answers = {passage.id for passage in passages if passage.id in question.relevant}
        ids = [passage.id for passage in passages]
        yield f"\n{name}: {question.text}\n"
        yield _table(ranking, ids, answers, top_n)
        context = builder.build(
            context_passages(ranking[:top_n], sources=[ids[key] for key in ranking[:top_n].keys])
        )
        yield f"\nContext for the LLM ({context.tokens} tokens):\n\n{context.text}\n"


def _table(ranking: Ranking, ids: list[str], answers: set[str], top_n: int) -> str:
    """First-stage order on the left, reranked order on the right; * marks the answers."""
    from tabulate import tabulate

    before = sorted(ranking, key=lambda item: item.candidate.rank)[:top_n]
    rows = [
        (
            rank,
            _marked(ids[old.candidate.key], answers),
            old.candidate.score,
            _marked(ids[new.candidate.key], answers),
            new.score,
            new.candidate.rank,
            new.text[:60],
        )
        for rank, (old, new) in enumerate(zip(before, ranking, strict=False), start=1)
    ]
    headers = ["#", "BM25", "score", "reranked", "score", "was", "reranked passage (* answers)"]
    return tabulate(rows, headers=headers, floatfmt=("", "", ".2f", "", ".3f", "", ""))


def _marked(passage_id: str, answers: set[str]) -> str:
    return passage_id + (" *" if passage_id in answers else "")
