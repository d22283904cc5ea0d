"""Stage 3: the cross-encoder, from e5's twelve layers and the groups, by `rerank_plugins.training`.

Writes `start/`, e5 as a cross-encoder that was never trained as one, and `trained/`.
"""

from __future__ import annotations

import json
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel

from recipes.bundled import e5, export, pairs
from rerank_plugins.training import Group, TrainingConfig, fit

log = logging.getLogger(__name__)

WINDOW_WORDS = 48  # in training, where time is short
NEGATIVES = 3  # a group, of the seven mined
UNANSWERED = 0.1  # of the groups
# Groups of an epoch by source.
MIX = {
    "arcd-ar": 405, "mlqa-ar": 405, "arabicaqa-stitched-ar": 2600, "arabicaqa-wiki2017-ar": 1899,
    "tydi-wiki2017-ar": 3292, "palgeo-ar": 500, "wiki2017-lead-ar": 400, "wiki2018-lead-arz": 700,
    "arz-msa-lead": 300, "dz-rulings-ar": 250, "mentalqa-ar": 310, "heading-ar": 600,
    "piaf-fr": 1500, "piaf11-new-fr": 1600, "heading-fr": 500, "poquad-pl": 2800,
    "heading-pl": 700, "tydiqa-en": 2000, "squadshifts-new": 900, "squadshifts-amazon": 400,
    "selqa-en": 700, "heading-en": 250,
}  # fmt: skip


def epoch(found: Sequence[tuple[str, Group]], rng: random.Random) -> list[Group]:
    """The groups of an epoch, mixed by `MIX`, each with its own draw of negatives."""
    by_source: dict[str, list[Group]] = defaultdict(list)
    for source, group in found:
        if len(group.negatives) >= NEGATIVES:
            by_source[source].append(group)
    chosen: list[Group] = []
    for source, number in MIX.items():
        groups = by_source[source]
        chosen += rng.sample(groups, min(number, len(groups)))
    return [
        replace(group, negatives=tuple(rng.sample(group.negatives, NEGATIVES))) for group in chosen
    ]


def as_cross_encoder(body: BertModel, kept: Sequence[int]) -> BertForSequenceClassification:
    """A cross-encoder that scores nothing yet, over the word rows `kept` of an encoder.

    The encoder has no pooler; through an identity nothing is lost. Both token types start alike.
    """
    config = BertConfig(**body.config.to_dict())
    config.vocab_size, config.num_labels, config.classifier_dropout = len(kept), 1, 0.0
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.pad_token_id = 1
    model = BertForSequenceClassification(config)
    state = body.state_dict()
    state[export.WORDS] = state[export.WORDS][list(kept)]
    found = model.bert.load_state_dict(state, strict=False)
    assert all(name.startswith("pooler.") for name in found.missing_keys), found
    torch.nn.init.eye_(model.bert.pooler.dense.weight)
    torch.nn.init.zeros_(model.bert.pooler.dense.bias)
    return model


def start(work: Path) -> Path:
    """e5 with the pieces kept, as a cross-encoder."""
    folder = work / "start"
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        body, _ = e5.load(e5.fetch(work))
        kept = json.loads((work / "pieces.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        model = as_cross_encoder(body, kept)
        export.reranker(model, tokenizer, folder, export.SETTINGS, dtype=torch.float32)
    return folder


def run(work: Path, *, epochs: float = 1.0, device: str = "auto") -> Path:
    """Do the stage; see the module."""
    out = work / "trained"
    if not out.exists():
        config = TrainingConfig(
            out=out,
            base=start(work),
            recipe="listwise",
            queries_per_batch=12,
            learning_rate=1e-4,
            embeddings_rate=0.0,
            warmup=0.06,
            window_words=WINDOW_WORDS,
            unanswered=UNANSWERED,
            candidates=20,
            epochs=epochs,
            device=device,
        )
        groups = epoch(pairs.load(work), random.Random(0))
        result = fit(config, groups)
        curve = {"first_stage": result.first_stage, "after": result.after, "mean": result.history}
        (work / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
        log.info("%d steps in %.0f s, %s", result.steps, result.seconds, curve)
    return out
