"""Stage 5: which window of each passage the teacher takes for the answer, and how sure it is.

The teacher compares two embeddings; on the dev parts it orders better than a cross-encoder that
has only seen the labels (.898 to .882, 150 questions). So training ends on its opinions: of every
passage the window that it likes best, and its score. Writes `taught.jsonl` and its passages.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

from recipes.embedded import data, pairs
from recipes.embedded.e5 import Teacher
from recipes.embedded.rerank import WINDOW, edges

log = logging.getLogger(__name__)

# Sets whose passages serve many questions: each is embedded once. SelQA's serve one or two.
SOURCES = ("arcd-ar", "mlqa-ar", "piaf-fr", "poquad-pl", "tydiqa-en", "squadshifts-new")
HEADINGS = 2500  # Arabic ones, their negatives among themselves
KEPT = 600  # tokens of a passage, as in training
TEMPERATURES = np.geomspace(0.005, 0.1, 25)


def cut(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    """The windows of each text, as training has them."""
    found = []
    for start in range(0, len(texts), 1000):
        some = texts[start : start + 1000]
        for text, tokens in zip(
            some, tokenizer.encode_batch(some, add_special_tokens=False), strict=True
        ):
            spans = tokens.offsets[:KEPT]
            found.append(
                [text[spans[a][0] : spans[b - 1][1]] for a, b in edges(len(spans), WINDOW)]
            )
    return found


def headings(folder: Path) -> list[pairs.Group]:
    """Arabic headings, mined among so few passages that each serves several."""
    rng = random.Random(1)
    rows = [(heading, text) for lang, heading, text in data.read_headings(folder) if lang == "ar"]
    return list(pairs.mined_headings("ar", rng.sample(rows, HEADINGS), rng))


def temperature(scores: NDArray[np.float64]) -> float:
    """Under which the softmax of the scores, (groups, passages), fits the labels best."""
    right = torch.zeros(len(scores), dtype=torch.long)
    losses = [cross_entropy(torch.from_numpy(scores / t), right).item() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "taught.jsonl").exists():
        return
    groups = [group for group in pairs.load(work)[0] if group.source in SOURCES]
    groups += headings(folder)
    texts = list(dict.fromkeys(text for group in groups for text in group.passages))
    windows = cut(Tokenizer.from_file(str(work / "tokenizer.json")), texts)
    first = np.cumsum([0, *map(len, windows)])
    place = {text: at for at, text in enumerate(texts)}
    log.info("%d groups, %d passages, %d windows", len(groups), len(texts), first[-1])
    teacher = Teacher(work)
    flat = [window for some in windows for window in some]
    embedded = []
    for start in range(0, len(flat), 2000):
        embedded.append(teacher.embed(flat[start : start + 2000], "passage: ", limit=160))
        log.info("%d windows of %d", start + len(embedded[-1]), len(flat))
    vectors = np.concatenate(embedded)
    questions = teacher.embed([group.question for group in groups], "query: ")
    taught, scores = [], []
    for group, question in zip(groups, questions, strict=True):
        chosen, liked = [], []
        for text in group.passages:
            at = place[text]
            cosines = vectors[first[at] : first[at + 1]] @ question
            best = int(np.argmax(cosines))
            chosen.append(windows[at][best])
            liked.append(float(cosines[best]))
        taught.append(replace(group, passages=chosen))
        scores.append(liked)
    table = np.array(scores)
    warmth = temperature(table)
    log.info("temperature %.4f, right first %.3f", warmth, np.mean(table.argmax(1) == 0))
    rows = [
        replace(group, teacher=[round(score / warmth, 3) for score in liked])
        for group, liked in zip(taught, scores, strict=True)
    ]
    pairs.save(work, rows, "taught")
