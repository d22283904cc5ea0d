"""Stage 3: four of the teacher's twelve layers, drawn back to the teacher's embeddings.

Writes `body/` (a BertModel). The student reads the new vocabulary; its mean-pooled output for a
text is drawn to the teacher's embedding of the same text, which knows the four languages in one
space.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from transformers import BertConfig, BertModel

from recipes.embedded import corpus, e5

log = logging.getLogger(__name__)

LAYERS = (0, 3, 7, 11)
HELD = 500  # texts kept out to measure on
TEMPERATURE = 0.05
TOKENS = 2000  # a batch
STEPS = 480  # about one pass and a half


def build(teacher: BertModel, rows: np.ndarray, layers: Sequence[int] = LAYERS) -> BertModel:
    """A student of the teacher's `layers`, with `rows` (pieces, hidden) as word embeddings."""
    config = BertConfig(**teacher.config.to_dict())
    config.vocab_size, config.num_hidden_layers = len(rows), len(layers)
    config.pad_token_id = 0
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    student = BertModel(config, add_pooling_layer=False)
    table = student.embeddings
    table.word_embeddings.weight.data.copy_(torch.from_numpy(rows))
    table.position_embeddings.load_state_dict(teacher.embeddings.position_embeddings.state_dict())
    table.LayerNorm.load_state_dict(teacher.embeddings.LayerNorm.state_dict())
    # The teacher was only ever given type 0; both rows start from it.
    types = teacher.embeddings.token_type_embeddings.weight.data[:1]
    table.token_type_embeddings.weight.data.copy_(types.expand(config.type_vocab_size, -1))
    student.encoder.layer = torch.nn.ModuleList(
        copy.deepcopy(teacher.encoder.layer[i]) for i in layers
    )
    return student


def pad(ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (texts, longest)."""
    width = max(map(len, ids))
    batch = torch.zeros((len(ids), width), dtype=torch.long)
    mask = torch.zeros((len(ids), width), dtype=torch.long)
    for row, text in enumerate(ids):
        batch[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return batch, mask


def batches(lengths: Sequence[int], tokens: int, rng: random.Random) -> list[list[int]]:
    """Indices of similar length, `tokens` a batch with padding, batches shuffled."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * rng.uniform(0.85, 1.15))
    out: list[list[int]] = [[]]
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if out[-1] and longest * (len(out[-1]) + 1) > tokens:
            out.append([])
            longest = lengths[i]
        out[-1].append(i)
    rng.shuffle(out)
    return out


def pooled(model: BertModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the last layer over the text, (texts, hidden)."""
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def loss(student: torch.Tensor, teacher: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Cosine to the teacher, and the teacher's similarities within the batch.

    Both are taken around the teacher's mean: its raw cosines all lie between 0.7 and 1.
    """
    s = normalize(normalize(student, dim=-1) - mean, dim=-1)
    t = normalize(teacher - mean, dim=-1)
    wanted = (t @ t.T / TEMPERATURE).softmax(-1)
    return 1 - cosine_similarity(s, t).mean() + 0.3 * cross_entropy(s @ t.T / TEMPERATURE, wanted)


@torch.inference_mode()
def measure(
    model: BertModel, ids: Sequence[Sequence[int]], teacher: torch.Tensor, mean: torch.Tensor
) -> tuple[float, float]:
    """Mean centred cosine to the teacher, and how often a text finds its own teacher vector."""
    model.eval()
    found = torch.cat([pooled(model, *pad(ids[i : i + 50])) for i in range(0, len(ids), 50)])
    s = normalize(normalize(found, dim=-1) - mean, dim=-1)
    t = normalize(teacher - mean, dim=-1)
    own = (s @ t.T).argmax(1) == torch.arange(len(s))
    return float((s * t).sum(1).mean()), float(own.float().mean())


def distil(
    student: BertModel,
    ids: list[list[int]],
    vectors: np.ndarray,
    *,
    epochs: int = 1,
    rate: float = 4e-4,
    most: int | None = None,
) -> BertModel:
    """Draw the student to the teacher.

    Args:
        student: trained in place.
        ids: token ids of the texts.
        vectors: the teacher's embeddings, (texts, hidden).
        epochs: passes over the texts.
        rate: peak learning rate, after a short warm-up, down to a tenth along a cosine.
        most: stop after so many steps.

    Returns:
        The student.
    """
    rng = random.Random(0)
    teacher = torch.from_numpy(vectors)
    mean = teacher.mean(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0.01, fused=True)
    lengths = [len(i) for i in ids]
    plan = [b for _ in range(epochs) for b in batches(lengths[HELD:], TOKENS, rng)][:most]
    start, total = time.time(), 0.0
    for step, batch in enumerate(plan):
        rows = [i + HELD for i in batch]
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, len(plan))
        student.train()
        value = loss(pooled(student, *pad([ids[i] for i in rows])), teacher[rows], mean)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        total += value.item()
        if (step + 1) % 80 == 0 or step + 1 == len(plan):
            cosine, own = measure(student, ids[:HELD], teacher[:HELD], mean)
            log.info(
                "body: step %d of %d, %.0f s, loss %.3f, cosine %.3f, own vector %.3f",
                step + 1, len(plan), time.time() - start, total / 80, cosine, own,
            )  # fmt: skip
            total = 0.0
    return student


def schedule(step: int, steps: int, warm: int = 40) -> float:
    """Linear warm-up, then a cosine to a tenth; a factor of the peak rate."""
    return min(1.0, (step + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], limit: int = 128) -> list[list[int]]:
    """Ids of single texts, `[CLS] text [SEP]`."""
    tokenizer.enable_truncation(limit)
    return [e.ids for e in tokenizer.encode_batch(list(texts))]


def run(work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "body" / "config.json").exists():
        return
    teacher, _ = e5.load(e5.fetch(work))
    student = build(teacher, np.load(work / "rows.npy"))
    del teacher
    texts, vectors = corpus.load(work)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    ids = tokenize(tokenizer, [x[2] for x in texts])
    log.info("body: %d texts, %d tokens", len(ids), sum(map(len, ids)))
    distil(student, ids, vectors, epochs=2, most=STEPS).save_pretrained(work / "body")
