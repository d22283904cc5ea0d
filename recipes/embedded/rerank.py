"""Stage 6: the cross-encoder, from the body and the groups, by `rerank_plugins.training`.

Writes `start/`, the body with a scoring head, and `trained/`, the checkpoint with its own card.
"""

from __future__ import annotations

import json
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from recipes.embedded import export, pairs
from rerank_plugins.evaluation import sample_queries
from rerank_plugins.first_stage import FirstStage
from rerank_plugins.training import Group, HeldBack, TrainingConfig, fit, held_back_samples

log = logging.getLogger(__name__)

WINDOW_WORDS = 48  # in training, where time is short
NEGATIVES = 3  # a group, drawn anew of the seven mined each time that it comes
DEV = 15  # questions a set while training: an evaluation takes a minute, not ten
# Groups of an epoch by source; a source with fewer is repeated, one with more is sampled.
MIX = {
    "arcd-ar": 3.0, "mlqa-ar": 3.0, "piaf-fr": 1.0, "poquad-pl": 0.6, "tydiqa-en": 0.6,
    "squadshifts-new": 0.35, "squadshifts-amazon": 0.2, "selqa-en": 0.3,
    "heading-ar": 0.25, "heading-fr": 0.15, "heading-pl": 0.1, "heading-en": 0.0,
}  # fmt: skip


def epoch(found: Sequence[tuple[str, Group]], rng: random.Random) -> list[Group]:
    """The groups of an epoch, mixed by `MIX`, each with its own draw of negatives."""
    by_source: dict[str, list[Group]] = defaultdict(list)
    for source, group in found:
        by_source[source].append(group)
    chosen: list[Group] = []
    for source, groups in by_source.items():
        whole = int(MIX[source])
        chosen += groups * whole
        chosen += rng.sample(groups, round(len(groups) * (MIX[source] - whole)))
    return [
        replace(group, negatives=tuple(rng.sample(group.negatives, NEGATIVES)))
        for group in chosen
        if len(group.negatives) >= NEGATIVES
    ]


def start(work: Path) -> Path:
    """The body as a cross-encoder that scores nothing yet, in the layout that ships."""
    folder = work / "start"
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        model = BertForSequenceClassification.from_pretrained(
            work / "body", num_labels=1, classifier_dropout=0.0, dtype=torch.float32
        )
        # The body has no pooler that was trained; through this one nothing is lost.
        torch.nn.init.eye_(model.bert.pooler.dense.weight)
        tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        export.reranker(model, tokenizer, folder, export.SETTINGS, dtype=torch.float32)
    return folder


def held_back(folder: Path, config: TrainingConfig) -> Iterator[HeldBack]:
    """A few questions of each dev part, with BM25's candidates."""
    for data, first_stage in pairs.dev(folder):
        over = replace(config, first_stage=partial(_given, first_stage))
        yield held_back_samples(over, sample_queries(data, DEV))


def _given(first_stage: FirstStage, _: Sequence[str]) -> FirstStage:
    return first_stage


def run(folder: Path, work: Path, minutes: float) -> Path:
    """Do the stage; see the module."""
    out = work / "trained"
    if not out.exists():
        config = TrainingConfig(
            out=out,
            base=start(work),
            recipe="listwise",
            minutes=minutes,
            queries_per_batch=12,
            learning_rate=2e-4,
            embeddings_rate=3.0,
            warmup=0.05,
            window_words=WINDOW_WORDS,
            candidates=20,
            evaluations=4,
            patience=4,
        )
        groups = epoch(pairs.load(work), random.Random(0))
        result = fit(config, groups, list(held_back(folder, config)))
        curve = {"first_stage": result.first_stage, "after": result.after, "mean": result.history}
        (work / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
        log.info("%d steps in %.0f s, %s", result.steps, result.seconds, curve)
    return out
