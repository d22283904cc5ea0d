"""Stage 8: the shipped files on the evaluation splits, once, after every choice is made.

Writes `figures.json` beside the weights: nDCG@10 of reranking BM25's top 50, with paired bootstrap
intervals of the difference to BM25, and what LangChain's default gives on the same questions.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from recipes.embedded import data, pairs
from recipes.embedded.bm25 import Index
from recipes.embedded.rerank import Tokens, logits_of, ndcg, quick, standardise

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
DRAWS = 10_000


def questions_of(
    folder: Path, name: str, language: str, count: int | None
) -> tuple[list[pairs.DevQuestion], list[float]]:
    """Questions of a set with BM25's candidates, and nDCG@10 of LangChain's default on them.

    LangChain's `BM25Retriever` is rank-bm25's Okapi over `text.split()`, with no analysis.
    """
    whole = data.read_set(folder, name, language)
    ids, texts = list(whole.passages), list(whole.passages.values())
    index, plain = Index(texts, language), BM25Okapi([t.split() for t in texts])
    keys = sorted(whole.questions)
    if count is not None and count < len(keys):
        keys = random.Random(0).sample(keys, count)
    found, default = [], []
    for key in keys:
        right = whole.positives[key]
        scores = index.scores(whole.questions[key])
        top = index.top(scores, TOP)
        relevant = [at for at, i in enumerate(top) if ids[i] in right]
        found.append(
            pairs.DevQuestion(
                name,
                whole.questions[key],
                [texts[i] for i in top],
                [float(scores[i]) for i in top],
                relevant,
                len(right),
            )
        )
        order = np.argsort(-plain.get_scores(whole.questions[key].split()), kind="stable")[:10]
        hits = [at for at, i in enumerate(order) if ids[i] in right]
        default.append(ndcg(range(10), hits, len(right)))
    return found, default


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean of paired differences."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(differences), (DRAWS, len(differences)))
    low, high = np.percentile(differences[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)


def measure(
    questions: Sequence[pairs.DevQuestion], logits: Sequence[NDArray[np.float64]], weight: float
) -> dict[str, NDArray[np.float64]]:
    """nDCG@10 a question: BM25, the model alone, and blended with `weight` of BM25."""
    out: dict[str, list[float]] = {"bm25": [], "model": [], "blended": []}
    for question, own in zip(questions, logits, strict=True):
        first = np.array(question.scores)
        both = (1 - weight) * standardise(own) + weight * standardise(first)
        for name, values in (("bm25", first), ("model", own), ("blended", both)):
            order = np.argsort(-values, kind="stable").tolist()
            out[name].append(ndcg(order, question.relevant, question.wanted))
    return {name: np.array(values) for name, values in out.items()}


def run(folder: Path, out: Path, weight: float, count: int | None) -> None:
    """Measure the shipped cross-encoder on all sets and write `figures.json`.

    Args:
        folder: the data.
        out: the folder of the weights.
        weight: the blend's share of the first stage.
        count: questions a set, drawn at random with a fixed seed; None for all.
    """
    model = BertForSequenceClassification.from_pretrained(out / "reranker", dtype=torch.float32)
    forward = quick(model)
    tokenizer = Tokenizer.from_file(str(out / "reranker" / "tokenizer.json"))
    sets: dict[str, dict[str, object]] = {}
    for name, language in SETS:
        begin = time.monotonic()
        questions, default = questions_of(folder, name, language, count)
        texts = [t for q in questions for t in (q.question, *q.passages)]
        logits = logits_of(forward, Tokens.of(tokenizer, texts), questions)
        found = measure(questions, logits, weight)
        row: dict[str, object] = {"questions": len(questions), "langchain": float(np.mean(default))}
        for kind, values in found.items():
            row[kind] = float(values.mean())
        for kind in ("model", "blended"):
            row[f"{kind}_minus_bm25"] = interval(found[kind] - found["bm25"])
        sets[name] = row
        log.info("%s %.0f s %s", name, time.monotonic() - begin, row)
        figures = {"top": TOP, "first_stage_weight": weight, "sets": sets}
        target = out / "figures.json"
        target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
