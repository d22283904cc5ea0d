"""Stage 8: the shipped files on the evaluation splits, once, after every choice is made.

Writes `figures.json` beside the weights: nDCG@10 of reranking BM25's top 50, with paired bootstrap
intervals of the difference to BM25, and what LangChain's default gives on the same questions.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rank_bm25 import BM25Okapi

from recipes.bundled import pairs
from rerank_plugins import ScoreCache, load_reranker
from rerank_plugins.bundled import StaticEncoder
from rerank_plugins.evaluation import Comparison, compare, read_question_set
from rerank_plugins.first_stage import BM25, Dense, Hybrid

log = logging.getLogger(__name__)

SETS = [
    ("arcd-ar/test", "ar"),
    ("xquad-ar/test", "ar"),
    ("kaiflematha-ar/dev", "ar"),
    ("fquad-fr/valid", "fr"),
    ("poquad-pl/dev", "pl"),
    ("tydiqa-en/dev", "en"),
    ("xquad-en/test", "en"),
]
TOP = 50
HYBRID = (0.8, 0.2)  # BM25 and encoder, the default of the package's retrievers


def split_bm25(corpus: dict[str, str]) -> Callable[[str, int], Sequence[str]]:
    """What LangChain's `BM25Retriever` does: rank-bm25's Okapi over `text.split()`."""
    ids = list(corpus)
    index = BM25Okapi([text.split() for text in corpus.values()])

    def search(query: str, k: int) -> Sequence[str]:
        found: list[str] = index.get_top_n(query.split(), ids, n=k)
        return found

    return search


def row(found: Comparison) -> dict[str, Any]:
    """The figures of one set, with 95% intervals of the differences to analysed BM25."""
    names = {"langchain": "LangChain's default", "bm25": "BM25"}
    names |= {kind: f"BM25 + {kind}" for kind in ("model", "blended")}
    means = {
        short: float(found.systems[name].values["nDCG@10"].mean()) for short, name in names.items()
    }
    gains = {
        f"{kind}_minus_bm25": difference.interval
        for difference in found.versus("BM25")
        for kind in ("model", "blended")
        if difference.system == names[kind]
    }
    return {"questions": len(found.queries), **means, **gains}


def encoder(folder: Path, out: Path) -> dict[str, float]:
    """The text encoder on the dev parts, whole passages ranked: nDCG@10, mean of the sets."""
    embed = StaticEncoder(out / "encoder")
    rows = []
    for data, bm25 in pairs.dev(folder):
        dense = Dense(data.corpus.values(), embed=embed)
        stages = {"BM25": bm25, "encoder": dense}
        stages["hybrid"] = Hybrid([bm25, dense], weights=HYBRID)
        found = compare(data, stages, measures=["nDCG@10"], candidates=TOP)
        rows.append([float(system.values["nDCG@10"].mean()) for system in found.systems.values()])
    return dict(zip(("bm25", "encoder", "hybrid"), np.mean(rows, axis=0).tolist(), strict=True))


def run(folder: Path, out: Path, work: Path, count: int | None) -> None:
    """Measure the shipped cross-encoder on all sets and write `figures.json`.

    Args:
        folder: the data.
        out: the folder of the weights.
        work: where answers are kept, so that a break loses none.
        count: questions a set, drawn at random with a fixed seed; None for all.
    """
    # A copy, so that no engine leaves its conversion beside the weights that ship.
    model = shutil.copytree(out / "reranker", work / "shipped", dirs_exist_ok=True)
    cache = ScoreCache(1 << 20)  # the blend is made of the model's own logits
    rerankers = {
        "model": load_reranker(model, first_stage_weight=0, deduplicate=False, cache=cache),
        "blended": load_reranker(model, deduplicate=False, cache=cache),
    }
    sets: dict[str, dict[str, Any]] = {}
    for name, language in SETS:
        data = read_question_set(folder / name, name)
        stages = {
            "BM25": BM25(data.corpus.values(), language=language, engine="bm25s"),
            "LangChain's default": split_bm25(dict(data.corpus)),
        }
        found = compare(
            data, stages, rerankers, candidates=TOP, measures=["nDCG@10"],
            queries=None if count is None else min(count, len(data.queries)),
            alone=["LangChain's default"], runs=work / "runs",
        )  # fmt: skip
        sets[name] = row(found)
        log.info("%s: %s", name, sets[name])
    figures = {"top": TOP, "sets": sets, "encoder_on_dev": encoder(folder, out)}
    text = json.dumps(figures, indent=1) + "\n"
    (out / "figures.json").write_text(text, encoding="utf-8")
