"""Stage 5: the cross-encoder, from the body and the groups.

Writes `reranker/last.pt` (all that a resumed run needs), `reranker/curve.jsonl` and, at each
evaluation, the averaged weights as a checkpoint folder `reranker/step-N`.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    scaled_dot_product_attention,
)
from transformers import BertForSequenceClassification

from recipes.embedded import pairs

log = logging.getLogger(__name__)

WINDOW = 72  # passage tokens in training, where time is short
SCORED = 128  # and when it is used: better on the dev parts than 72 or 240, and no dearer
QUESTION = 40  # question tokens, in training
LENGTH = 256  # tokens a pair when it is scored; a question takes three quarters at most
SHORT = 20  # candidates a dev question while training: an evaluation takes a minute, not ten
# Groups of an epoch by source; a source with fewer is repeated, one with more is sampled.
MIX = {
    "arcd-ar": 3.0, "mlqa-ar": 3.0, "piaf-fr": 1.0, "poquad-pl": 0.6, "tydiqa-en": 0.6,
    "squadshifts-new": 0.35, "squadshifts-amazon": 0.2, "selqa-en": 0.3,
    "heading-ar": 0.25, "heading-fr": 0.15, "heading-pl": 0.1, "heading-en": 0.0,
}  # fmt: skip


@dataclass(slots=True)
class Plan:
    """What a run does: its time budget decides the learning rate's schedule.

    Attributes:
        minutes: wall clock of the whole run, resumptions included.
        groups: groups a step.
        negatives: negatives a group, out of the seven mined.
        rate: peak learning rate of the body; the word embeddings take `boost` times that.
        boost: see `rate`.
        decay: last share of the time in which the rate falls to zero.
        every: minutes between evaluations.
    """

    minutes: float
    groups: int = 12
    negatives: int = 3
    rate: float = 2e-4
    boost: float = 3.0
    decay: float = 0.35
    every: float = 12.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of every distinct text, without special tokens."""

    ids: dict[str, NDArray[np.int32]]

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
        """Tokenize each text once."""
        distinct = list(dict.fromkeys(texts))
        ids: dict[str, NDArray[np.int32]] = {}
        for start in range(0, len(distinct), 2000):
            chunk = distinct[start : start + 2000]
            for text, cut in zip(
                chunk, tokenizer.encode_batch(chunk, add_special_tokens=False), strict=True
            ):
                ids[text] = np.array(cut.ids, dtype=np.int32)
        return cls(ids)


def windows(ids: NDArray[np.int32], size: int) -> list[NDArray[np.int32]]:
    """Windows of nearly equal size, as the package cuts them when it scores."""
    count = max(1, -(-len(ids) // size))
    edges = [len(ids) * part // count for part in range(count + 1)]
    return [ids[a:b] for a, b in pairwise(edges)]


class Weigher:
    """How much of a question a window holds: rare tokens count more."""

    def __init__(self, tokens: Tokens, size: int) -> None:
        seen = np.zeros(size)
        for ids in tokens.ids.values():
            seen[np.unique(ids)] += 1
        self.idf = np.log(len(tokens.ids) / (seen + 1.0)).clip(0.1)

    def best(self, question: NDArray[np.int32], parts: list[NDArray[np.int32]]) -> int:
        """Place of the window that holds most of the question."""
        wanted = np.unique(question)
        return int(np.argmax([self.idf[wanted[np.isin(wanted, p)]].sum() for p in parts]))


Row = tuple[NDArray[np.int32], NDArray[np.int32]]


def collate(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """`[CLS] question [SEP] window [SEP]`, padded to the longest."""
    width = max(len(q) + len(p) for q, p in rows) + 3
    ids = np.zeros((len(rows), width), dtype=np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for at, (q, p) in enumerate(rows):
        end = len(q) + len(p) + 3
        ids[at, :end] = np.concatenate([[2], q, [3], p, [3]])
        types[at, len(q) + 2 : end] = 1
        mask[at, :end] = 1
    return {
        "input_ids": torch.from_numpy(ids),
        "token_type_ids": torch.from_numpy(types),
        "attention_mask": torch.from_numpy(mask),
    }


def forward(model: BertForSequenceClassification, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own logits, (rows,), with the last layer computed for `[CLS]` alone.

    Nothing else of the last layer reaches the classifier: a fifth of the work less, same numbers.
    """
    bert = model.bert
    hidden = bert.embeddings(batch["input_ids"], token_type_ids=batch["token_type_ids"])
    mask = batch["attention_mask"][:, None, None, :].bool()
    size = model.config.hidden_size // model.config.num_attention_heads
    for at, layer in enumerate(bert.encoder.layer):
        asking = hidden[:, :1] if at + 1 == len(bert.encoder.layer) else hidden
        own = layer.attention.self
        query, key, value = (
            part.unflatten(-1, (-1, size)).transpose(1, 2)
            for part in (own.query(asking), own.key(hidden), own.value(hidden))
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = layer.attention.output(mixed.transpose(1, 2).flatten(2), asking)
        hidden = layer.output(layer.intermediate(attended), attended)
    logits: torch.Tensor = model.classifier(bert.pooler(hidden))[:, 0]
    return logits


Forward = Callable[[dict[str, torch.Tensor]], torch.Tensor]


class _Logits(torch.nn.Module):
    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        batch = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        return forward(self.model, batch | {"attention_mask": attention_mask})


def quick(model: BertForSequenceClassification) -> Forward:
    """The model's forward pass for measuring: through OpenVINO where it is installed."""
    try:
        import openvino
    except ImportError:
        return partial(forward, model.eval())
    example = collate([(np.arange(5, 9), np.arange(5, 19)), (np.arange(5, 7), np.arange(5, 12))])
    shape = {0: torch.export.Dim("rows", max=8192), 1: torch.export.Dim("width", min=4, max=512)}
    exported = torch.export.export(
        _Logits(model).eval(), (), example, dynamic_shapes=dict.fromkeys(example, shape)
    )
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(exported), "CPU", settings)

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found = compiled({name: value.numpy() for name, value in batch.items()})[0]
        return torch.from_numpy(np.array(found))

    return run


def score(run: Forward, rows: Sequence[Row], budget: int) -> torch.Tensor:
    """Logits of rows, (rows,), computed in slices of similar length, gradients kept."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    out: list[torch.Tensor] = []
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order):
            longest = sum(map(len, rows[order[stop]])) + 3
            if longest * (stop + 1 - start) > budget:
                break
            stop += 1
        out.append(run(collate([rows[i] for i in order[start:stop]])))
        start = stop
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(out)[back]


def ndcg(order: Sequence[int], relevant: Sequence[int], wanted: int) -> float:
    """nDCG@10 with binary grades; `wanted` counts those that the first stage missed too."""
    gain = sum(1 / math.log2(at + 2) for at, i in enumerate(order[:10]) if i in relevant)
    return gain / sum(1 / math.log2(at + 2) for at in range(min(10, wanted)))


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and standard deviation 1; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


BLENDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)


@torch.inference_mode()
def logits_of(
    run: Forward,
    tokens: Tokens,
    questions: Sequence[pairs.DevQuestion],
    size: int = SCORED,
) -> list[NDArray[np.float64]]:
    """Logit of each candidate of each question: the maximum over its windows."""
    rows: list[Row] = []
    owner: list[tuple[int, int]] = []
    for at, question in enumerate(questions):
        q = tokens.ids[question.question][: LENGTH * 3 // 4]
        for place, passage in enumerate(question.passages):
            for part in windows(tokens.ids[passage], min(size, LENGTH - 3 - len(q))):
                rows.append((q, part))
                owner.append((at, place))
    found = score(run, rows, 6000).double().numpy()
    out = [np.full(len(q.passages), -np.inf) for q in questions]
    for (at, place), value in zip(owner, found, strict=True):
        out[at][place] = max(out[at][place], value)
    return out


def measure(
    questions: Sequence[pairs.DevQuestion], logits: Sequence[NDArray[np.float64]]
) -> dict[str, dict[float, float]]:
    """nDCG@10 by source and blend weight (0: the model alone, 1: BM25 alone)."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, own in zip(questions, logits, strict=True):
        first = standardise(np.array(question.scores))
        for w in BLENDS:
            order = np.argsort(-((1 - w) * standardise(own) + w * first), kind="stable")
            value = ndcg(order.tolist(), question.relevant, question.wanted)
            found[question.source][w].append(value)
    return {s: {w: float(np.mean(v)) for w, v in b.items()} for s, b in found.items()}


def epoch(groups: Sequence[pairs.Group], rng: random.Random) -> list[int]:
    """Places of an epoch's groups, mixed by `MIX`."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for at, group in enumerate(groups):
        name = f"heading-{group.language}" if group.source == "heading" else group.source
        by_source[name].append(at)
    chosen: list[int] = []
    for name, found in by_source.items():
        times = MIX[name]
        chosen += found * int(times)
        chosen += rng.sample(found, round(len(found) * (times - int(times))))
    rng.shuffle(chosen)
    return chosen


class Trainer:
    """The loop, with its state in one file.

    Args:
        body: folder of a BertModel or a BertForSequenceClassification to start from.
        work: folder with `groups.jsonl`, `dev.jsonl`, `tokenizer.json`.
        out: folder for the state, the curve and the checkpoints.
        plan: see `Plan`.
        dev: dev questions measured at each evaluation.
    """

    def __init__(self, body: Path, work: Path, out: Path, plan: Plan, dev: int = 90) -> None:
        self.plan, self.out = plan, out
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.model = BertForSequenceClassification.from_pretrained(
            body, num_labels=1, classifier_dropout=0.0, dtype=torch.float32
        )
        config = json.loads((body / "config.json").read_text(encoding="utf-8"))
        if config["architectures"] != ["BertForSequenceClassification"]:
            # A bare body has no pooler that was trained; through this one nothing is lost.
            torch.nn.init.eye_(self.model.bert.pooler.dense.weight)
        self.groups, questions = pairs.load(work)
        self.questions = [
            replace(q, passages=q.passages[:SHORT], scores=q.scores[:SHORT])
            for q in questions[:: max(1, len(questions) // dev)]
        ]
        texts = [t for g in self.groups for t in (g.question, *g.passages)]
        texts += [t for q in questions for t in (q.question, *q.passages)]
        self.tokens = Tokens.of(Tokenizer.from_file(str(work / "tokenizer.json")), texts)
        self.weigher = Weigher(self.tokens, self.model.config.vocab_size)
        words = self.model.bert.embeddings.word_embeddings.weight
        others = [p for p in self.model.parameters() if p is not words]
        self.optimizer = torch.optim.AdamW(
            [{"params": others, "scale": 1.0}, {"params": [words], "scale": plan.boost}],
            lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self.rng = random.Random(0)
        self.step, self.spent, self.queue = 0, 0.0, list[int]()
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if (out / "last.pt").exists():
            self._restore()

    def _restore(self) -> None:
        state = torch.load(self.out / "last.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
        self.rng.seed(self.step)
        log.info("resumed at step %d, %.1f minutes", self.step, self.spent / 60)

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average, "step": self.step, "spent": self.spent,
        }  # fmt: skip
        torch.save(state, self.out / "last.tmp")
        (self.out / "last.tmp").rename(self.out / "last.pt")

    def _rate(self) -> float:
        """Factor of the peak rate: warm-up, level, then down to zero in the last share."""
        left = 1 - self.spent / (60 * self.plan.minutes)
        return min(1.0, (self.step + 1) / 60) * max(0.0, min(1.0, left / self.plan.decay))

    def _rows(self, group: pairs.Group) -> list[Row]:
        question = self.tokens.ids[group.question][:QUESTION]
        # Near the top of BM25's list twice as often as further down, as in the file's order.
        places = self.rng.sample(range(1, len(group.passages)), self.plan.negatives)
        rows = []
        for place in [0, *places]:
            parts = windows(self.tokens.ids[group.passages[place]][:600], WINDOW)
            rows.append((question, parts[self.weigher.best(question, parts)]))
        return rows

    def _next(self) -> list[int]:
        """Groups of a step: of similar length, so that little is padding."""
        if not self.queue:
            chosen = epoch(self.groups, self.rng)
            size = self.plan.groups
            steps = []
            for start in range(0, len(chosen), size * 40):
                pool = chosen[start : start + size * 40]
                pool.sort(key=lambda i: len(self.tokens.ids[self.groups[i].question]))
                cut = [pool[s : s + size] for s in range(0, len(pool), size)]
                self.rng.shuffle(cut)
                steps += [c for c in cut if len(c) == size]
            self.queue = [i for c in steps for i in c]
        taken, self.queue = self.queue[: self.plan.groups], self.queue[self.plan.groups :]
        return taken

    def train_step(self) -> tuple[float, float]:
        """One step; its loss and the share of groups whose right passage comes first."""
        groups = [self.groups[i] for i in self._next()]
        rows = [row for g in groups for row in self._rows(g)]
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * group["scale"] * self._rate()
        logits = score(partial(forward, self.model), rows, 2500)
        table = logits.view(len(groups), -1)
        target = torch.zeros(len(groups), dtype=torch.long)
        right = torch.zeros_like(table)
        right[:, 0] = 1
        # The listwise part orders; a little of the pointwise part keeps sigmoid a probability.
        loss = cross_entropy(table, target) + 0.2 * binary_cross_entropy_with_logits(table, right)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # Averaged weights stand in for a decayed rate at any moment of the level part.
        keep = min(0.99, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        self.step += 1
        return loss.item(), (table.argmax(1) == 0).float().mean().item()

    def evaluate(self) -> None:
        """Measure the averaged weights on the dev questions, note it, write a checkpoint."""
        live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        run = partial(forward, self.model.eval())
        found = measure(self.questions, logits_of(run, self.tokens, self.questions))
        mean = {w: float(np.mean([b[w] for b in found.values()])) for w in BLENDS}
        log.info("step %d: %s", self.step, " ".join(f"{w}:{v:.4f}" for w, v in mean.items()))
        for source, by in found.items():
            log.info("  %s %s", source, " ".join(f"{w}:{v:.3f}" for w, v in by.items()))
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as file:
            row = {"step": self.step, "minutes": self.spent / 60, "mean": mean, "sets": found}
            file.write(json.dumps(row) + "\n")
        self.model.save_pretrained(self.out / f"step-{self.step}")
        self.model.load_state_dict(live)

    def run(self) -> None:
        """Train until the plan's minutes are spent."""
        losses: list[tuple[float, float]] = []
        since = self.spent
        while self.spent < 60 * self.plan.minutes:
            start = time.monotonic()
            losses.append(self.train_step())
            self.spent += time.monotonic() - start
            if self.step % 50 == 0:
                loss, right = np.mean(losses[-50:], axis=0)
                speed = len(losses[-50:]) * self.plan.groups * (self.plan.negatives + 1)
                log.info(
                    "step %d, %.1f min, loss %.3f, first of its group %.3f, pairs %d",
                    self.step, self.spent / 60, loss, right, speed,
                )  # fmt: skip
            if self.spent - since > 60 * self.plan.every:
                since = self.spent
                self._save()
                self.evaluate()
        self._save()
        self.evaluate()


def latest(out: Path) -> Path:
    """The last checkpoint of a run."""
    return max(out.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))
