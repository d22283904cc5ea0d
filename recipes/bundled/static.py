"""The static text encoder, a table of one vector a piece.

Writes `encoder/table.npy`. A text's vector is the mean of its pieces' vectors. The table starts as
the principal components of the teacher's rows and learns from the teacher's similarities and from
which passage answers which question; how much a piece counts becomes its vector's length.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, embedding_bag, normalize

from recipes.bundled import corpus, data, export, pairs, vocabulary

log = logging.getLogger(__name__)

SIZE = 160  # dimensions: 20,000 pieces of fp16 and the tokenizer make 7.7 MB
BATCH = 256
TEMPERATURE = 0.05
SMOOTH = 1e-3  # of the frequency weights the table starts from (Arora et al. 2017)


def start(rows: NDArray[np.float32], ids: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    """Principal components of the teacher's rows, scaled by a smooth inverse frequency."""
    counts = np.bincount(np.concatenate(ids), minlength=len(rows)) + 1.0
    share = counts / counts.sum()
    mean = (rows * share[:, None]).sum(0)
    centred = (rows - mean) * np.sqrt(share)[:, None]
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    table = (rows - mean) @ axes[:SIZE].T
    table /= np.linalg.norm(table, axis=1, keepdims=True) + 1e-6
    table *= (SMOOTH / (SMOOTH + share))[:, None]
    table[:4] = 0  # special pieces are never part of a text's vector
    return torch.from_numpy(table.astype(np.float32))


def vectors(table: torch.Tensor, ids: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    """Unit vectors of texts, (texts, dimensions)."""
    ends = np.cumsum([0] + [len(i) for i in ids])[:-1]
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    return normalize(embedding_bag(flat, table, torch.from_numpy(ends), mode="mean"), dim=-1)


def cut(tokenizer: Tokenizer, texts: Sequence[str], limit: int = 256) -> list[NDArray[np.int32]]:
    """Piece ids of texts; a text without any gets the unknown piece."""
    out = []
    for begin in range(0, len(texts), 2000):
        chunk = list(texts[begin : begin + 2000])
        cuts = tokenizer.encode_batch(chunk, add_special_tokens=False)
        out += [np.array(found.ids[:limit] or [1], dtype=np.int32) for found in cuts]
    return out


def train(
    table: torch.Tensor,
    texts: list[NDArray[np.int32]],
    teacher: NDArray[np.float32],
    couples: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]],
    *,
    minutes: float,
    rate: float = 3e-3,
) -> torch.Tensor:
    """Learn the table.

    Args:
        table: where it starts, (pieces, dimensions).
        texts: piece ids of the texts that the teacher embedded.
        teacher: its vectors, (texts, hidden).
        couples: piece ids of question, right passage, wrong passage.
        minutes: wall clock.
        rate: learning rate at the start; falls linearly to zero.

    Returns:
        The learned table.
    """
    table = table.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=rate * 0.05)
    wanted = torch.from_numpy(teacher)
    mean = wanted.mean(0)
    wanted = normalize(wanted - mean, dim=-1)
    rng = random.Random(0)
    begin, step, total = time.monotonic(), 0, 0.0
    while (spent := (time.monotonic() - begin) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = rate * (1 - spent)
        rows = rng.sample(range(len(texts)), BATCH)
        own = vectors(table, [texts[i] for i in rows])
        goal = (wanted[rows] @ wanted[rows].T / TEMPERATURE).fill_diagonal_(-100).softmax(-1)
        found = (own @ own.T / TEMPERATURE).fill_diagonal_(-100)
        loss = cross_entropy(found, goal)
        chosen = rng.sample(couples, BATCH)
        asked = vectors(table, [c[0] for c in chosen])
        given = vectors(table, [c[k] for k in (1, 2) for c in chosen])
        match = asked @ given.T / TEMPERATURE
        loss = loss + cross_entropy(match, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        table.grad[:4] = 0  # type: ignore[index]
        optimizer.step()
        step, total = step + 1, total + loss.item()
        if step % 200 == 0:
            log.info("encoder: step %d, %.0f%%, loss %.3f", step, 100 * spent, total / 200)
            total = 0.0
    return table.detach()


def couples_of(
    folder: Path, work: Path, tokenizer: Tokenizer
) -> list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]]:
    """Questions and headings with their passages, and parallel texts with each other."""
    rng = random.Random(0)
    found = [
        (group.query, group.positive, rng.choice(group.negatives)) for _, group in pairs.load(work)
    ]
    records = data.read_parallel(folder)
    for record, other in pairwise(records):
        one, two = rng.sample(sorted(record), 2)
        found.append((record[one], record[two], other.get(two) or next(iter(other.values()))))
    flat = cut(tokenizer, [t for triple in found for t in triple])
    return list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def run(folder: Path, work: Path, minutes: float = 6) -> None:
    """Do the stage; see the module."""
    target = work / "encoder" / "table.npy"
    if target.exists():
        return
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    texts, teacher = corpus.load(work)
    ids = cut(tokenizer, [x[2] for x in texts])
    table = start(np.load(work / "rows.npy"), ids)
    table = train(table, ids, teacher, couples_of(folder, work, tokenizer), minutes=minutes)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, table.numpy())


def main() -> None:
    """Make the static encoder, in a separate work folder."""
    parser = argparse.ArgumentParser(description="Make the static encoder from its data.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    corpus.run(given.data, given.work)
    vocabulary.run(given.data, given.work)
    pairs.run(given.data, given.work)
    run(given.data, given.work)
    tokenizer = Tokenizer.from_file(str(given.work / "tokenizer.json"))
    table = np.load(given.work / "encoder" / "table.npy")
    export.static_encoder(table, tokenizer, given.out / "static")


if __name__ == "__main__":
    main()
