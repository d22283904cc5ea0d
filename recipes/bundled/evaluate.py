"""Stage 6: the shipped files on the evaluation splits, once, after every choice is made.

Writes `figures.json` beside the weights: nDCG@10, MRR@10 and recall@50 of first stages and of
rerankers over them, with paired bootstrap intervals of the difference to analysed BM25.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from rerank_plugins import Cascade, Reranker, load_reranker
from rerank_plugins.bundled import BundledEncoder
from rerank_plugins.evaluation import Comparison, compare, read_question_set
from rerank_plugins.evaluation.significance import bootstrap_interval
from rerank_plugins.first_stage import BM25, Dense, Hybrid
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS
from rerank_plugins.scoring.vectors import VectorScorer

log = logging.getLogger(__name__)

SETS = [
    ("arcd-ar/test", "ar"),
    ("xquad-ar/test", "ar"),
    ("kaiflematha-ar/dev", "ar"),
    ("tydiqa-en/dev", "en"),
    ("xquad-en/test", "en"),
    ("fquad-fr/valid", "fr"),
    ("poquad-pl/dev", "pl"),
]
MEASURES = ["nDCG@10", "MRR@10", "Recall@50"]
TOP = 50
HEAD = 10  # what the cross-encoder scores


class Remembering(BundledEncoder):
    """The encoder with every query's vector kept: stages and scorers ask for it again."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder's."""
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, super().encode_query(new), strict=True))
        return np.stack([self._known[text] for text in texts])


class Kept:
    """An encoder whose passages come from a `VectorScorer`, which keeps them in a file."""

    def __init__(self, scorer: VectorScorer) -> None:
        self.scorer = scorer
        self.encode_query = scorer.encoder.encode_query

    def embed_windows(self, texts: list[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """As the encoder's."""
        known = self.scorer.vectors_of(texts)
        found = [known[text] for text in texts]
        owners = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
        return np.concatenate(found), owners

    encode = embed_windows


def split_bm25(corpus: dict[str, str]) -> Callable[[str, int], Sequence[str]]:
    """What LangChain's `BM25Retriever` does: rank-bm25's Okapi over `text.split()`."""
    ids = list(corpus)
    index = BM25Okapi([text.split() for text in corpus.values()])

    def search(query: str, k: int) -> Sequence[str]:
        found: list[str] = index.get_top_n(query.split(), ids, n=k)
        return found

    return search


def rerankers(scorer: VectorScorer, *, cross_encoder: bool) -> dict[str, Reranker]:
    """Vectors, the cross-encoder over the head of the first stage, and one after the other."""
    vectors = Reranker(scorer, deduplicate=False)
    if not cross_encoder:
        return {"vectors": vectors}
    # Stages and stacks bring much of the same; a pair is scored once.
    crossed = load_reranker("bundled", deduplicate=False, cache=1_000_000)
    as_it_comes = Reranker(scorer, deduplicate=False, first_stage_weight=1.0)
    return {
        "vectors": vectors,
        "cross-encoder": Cascade(as_it_comes, crossed, head=HEAD),
        "both": Cascade(vectors, crossed, head=HEAD),
    }


def row(found: Comparison) -> dict[str, Any]:
    """The figures of one set, with 95% intervals of the differences to analysed BM25."""
    base = found.systems["BM25"].values
    out: dict[str, Any] = {"questions": len(found.queries), "systems": {}}
    for name, system in found.systems.items():
        figures: dict[str, Any] = {
            measure: float(system.values[measure].mean()) for measure in MEASURES
        }
        interval = bootstrap_interval(system.values["nDCG@10"] - base["nDCG@10"], seed=0)
        figures["minus_bm25"] = list(interval)
        out["systems"][name] = figures
    return out


def run(folder: Path, out: Path, work: Path, count: int | None, *, cross_encoder: bool) -> None:
    """Measure on all sets and write `figures.json` after each.

    Args:
        folder: the data.
        out: the folder of the weights, where the figures go.
        work: where vectors and answers are kept, so that a break loses none.
        count: questions per set, drawn at random with a fixed seed; None for all.
        cross_encoder: whether the cross-encoder is measured too.
    """
    scorer = VectorScorer(Remembering(), path=work / "vectors.db")
    sets: dict[str, dict[str, Any]] = {}
    for name, language in SETS:
        data = read_question_set(folder / name, name)
        bm25 = BM25(data.corpus.values(), language=language)
        dense = Dense(data.corpus.values(), embed=Kept(scorer))
        stages = {
            "LangChain's default": split_bm25(dict(data.corpus)),
            "BM25": bm25,
            "hybrid": Hybrid([bm25, dense], weights=SHIPPED_WEIGHTS),
            "encoder": dense,
        }
        found = compare(
            data, stages, rerankers(scorer, cross_encoder=cross_encoder), candidates=TOP,
            measures=MEASURES, alone=["LangChain's default", "encoder"],
            queries=None if count is None else min(count, len(data.queries)), runs=work / "runs",
        )  # fmt: skip
        sets[name] = row(found)
        log.info("%s: %s", name, json.dumps(sets[name]))
        text = json.dumps({"top": TOP, "head": HEAD, "sets": sets}, indent=1) + "\n"
        (out / "figures.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the stage alone."""
    parser = argparse.ArgumentParser(description="Measure the bundled models.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=0, help="per set; 0 for all")
    parser.add_argument("--without-cross-encoder", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run(
        given.data, given.out, given.work, given.questions or None,
        cross_encoder=not given.without_cross_encoder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
