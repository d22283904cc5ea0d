"""Stage 1: the short texts, four languages, on which the body learns from its teacher.

Writes `texts.jsonl` (language, kind, text) and `teacher.npy`, the teacher's embeddings of them.
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import numpy as np

from recipes.bundled import data, e5

log = logging.getLogger(__name__)

WINDOW = 48  # words
QUESTIONS = {"ar": 1000, "fr": 1800, "pl": 2200, "en": 2200}
PASSAGES = {"ar": 600, "fr": 700, "pl": 1000, "en": 1000}
HEADINGS = {"ar": 1500, "fr": 500, "pl": 500, "en": 200}
HEADED = {"ar": 2500, "fr": 500, "pl": 500, "en": 100}
PARALLEL = {"ar": 2200, "fr": 1500, "pl": 1700, "en": 1200}


def collect(folder: Path, seed: int = 0) -> list[tuple[str, str, str]]:
    """Draw the texts: (language, "query" or "passage", text), shuffled, no text twice."""
    rng = random.Random(seed)
    found: list[tuple[str, str, str]] = []

    def take(kind: str, texts: dict[str, list[str]], counts: dict[str, int]) -> None:
        for language, count in counts.items():
            pool = sorted(set(map(data.plain, texts.get(language, []))))
            found.extend((language, kind, t) for t in rng.sample(pool, min(count, len(pool))))

    questions: dict[str, list[str]] = {}
    passages: dict[str, list[str]] = {}
    for part in data.load_questions(folder)[0]:
        questions.setdefault(part.language, []).extend(part.questions.values())
        for text in part.passages.values():
            passages.setdefault(part.language, []).append(
                rng.choice(data.windows(text, WINDOW, WINDOW // 2))
            )
    headings: dict[str, list[str]] = {}
    headed: dict[str, list[str]] = {}
    for language, heading, text in data.read_headings(folder):
        headings.setdefault(language, []).append(heading)
        headed.setdefault(language, []).append(rng.choice(data.windows(text, WINDOW, WINDOW // 2)))
    for language, text in data.read_mono(folder):
        headed.setdefault(language, []).append(rng.choice(data.windows(text, WINDOW, WINDOW // 2)))
    parallel: dict[str, list[str]] = {}
    for record in data.read_parallel(folder):
        for language, text in record.items():
            parallel.setdefault(language, []).append(data.windows(text, WINDOW, WINDOW)[0])
    take("query", questions, QUESTIONS)
    take("passage", passages, PASSAGES)
    take("query", headings, HEADINGS)
    take("passage", headed, HEADED)
    take("passage", parallel, PARALLEL)
    unique = list({(x[0], x[2]): x for x in found}.values())
    rng.shuffle(unique)
    return unique


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "teacher.npy").exists():
        return
    texts = collect(folder)
    with (work / "texts.jsonl").open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
    teacher = e5.Teacher(work)
    vectors = np.zeros((len(texts), 384), dtype=np.float16)
    for kind in ("query", "passage"):
        rows = [i for i, x in enumerate(texts) if x[1] == kind]
        log.info("teacher: %d texts of kind %s", len(rows), kind)
        vectors[rows] = teacher.embed([texts[i][2] for i in rows], f"{kind}: ")
    np.save(work / "teacher.npy", vectors)


def load(work: Path) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Texts and teacher's vectors, (texts, 384)."""
    with (work / "texts.jsonl").open(encoding="utf-8") as file:
        texts = [tuple(json.loads(line)) for line in file]
    return texts, np.load(work / "teacher.npy").astype(np.float32)
