"""What the recipe learns from: sets allowed for weights that ship, cut into training and dev parts.

Evaluation splits are never opened here. Of each question set a contiguous block of passages (so,
mostly, whole articles) with its questions is held back; every choice is made on those dev parts.
"""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rerank_plugins import training

# folder, language, passages held back
QUESTION_SETS: list[tuple[str, str, int]] = [
    ("arcd-ar/train", "ar", 50),
    ("mlqa-ar/dev", "ar", 100),
    ("piaf-fr/all", "fr", 150),
    ("poquad-pl/train-early", "pl", 0),
    ("poquad-pl/testA-noflags", "pl", 0),
    ("poquad-pl/testB-noflags", "pl", 150),
    ("tydiqa-en/train", "en", 300),
    ("squadshifts-new-en/all", "en", 150),
    ("squadshifts-amazon-en/all", "en", 0),
    ("selqa-en/test", "en", 0),
    ("selqa-en/dev", "en", 0),
]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions, passages and which answers which.

    Attributes:
        name: folder of the set.
        language: "ar", "fr", "pl" or "en".
        passages: texts by id.
        questions: texts by id.
        positives: passage ids that answer, by question id; never empty.
    """

    name: str
    language: str
    passages: dict[str, str]
    questions: dict[str, str]
    positives: dict[str, set[str]]

    def judged(self) -> training.QuestionSet:
        """The same as the package's training and evaluation take it."""
        grades = {key: dict.fromkeys(sorted(of), 1.0) for key, of in self.positives.items()}
        return training.QuestionSet(self.name, self.passages, self.questions, grades)


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """Records of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def read_set(data: Path, name: str, language: str) -> QuestionSet:
    """One set of `QUESTION_SETS` or an evaluation set, as it lies in `data`."""
    folder = data / name
    passages = {r["id"]: r["text"] for r in read_lines(folder / "corpus.jsonl.gz")}
    questions = {r["id"]: r["text"] for r in read_lines(folder / "queries.jsonl.gz")}
    positives: dict[str, set[str]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        next(file)
        for line in file:
            question, passage, score = line.split("\t")
            if int(score) > 0 and question in questions and passage in passages:
                positives.setdefault(question, set()).add(passage)
    questions = {k: v for k, v in questions.items() if k in positives}
    return QuestionSet(name, language, passages, questions, positives)


def split(whole: QuestionSet, held: int) -> tuple[QuestionSet, QuestionSet]:
    """Cut a set by passages: its last `held` passages are the dev part.

    Args:
        whole: the set.
        held: passages of the dev part.

    Returns:
        Training part and dev part, with no passage in both; a question goes where all its
        positives are, and is dropped where they lie on both sides.
    """
    ids = list(whole.passages)
    dev = set(ids[len(ids) - held :]) if held else set()

    def part(chosen: set[str]) -> QuestionSet:
        kept = {q for q, found in whole.positives.items() if found <= chosen}
        return QuestionSet(
            whole.name,
            whole.language,
            {k: v for k, v in whole.passages.items() if k in chosen},
            {k: v for k, v in whole.questions.items() if k in kept},
            {k: v for k, v in whole.positives.items() if k in kept},
        )

    return part(set(ids) - dev), part(dev)


def load_questions(data: Path) -> tuple[list[QuestionSet], list[QuestionSet]]:
    """All question sets: training parts, and the dev parts that are not empty."""
    train, dev = [], []
    for name, language, held in QUESTION_SETS:
        kept, out = split(read_set(data, name, language), held)
        train.append(kept)
        if held:
            dev.append(out)
    return train, dev


# How often a source is drawn relative to its size; what is not named is drawn as it comes. Business
# documentation is most of the text and little of what people ask about.
SOURCE_WEIGHTS = {
    "ms-d365-project-ops": 0.15, "ms-customer-insights": 0.2, "ms-d365-ops-2019": 0.1,
    "ms-d365-operations": 0.1, "ms-alchemy": 0.15, "ms-m365-2019": 0.0, "ms-m365": 0.05,
    "ms-learning": 0.3, "azd-beginners": 0.15, "iot-beginners": 0.3, "edgeai-beginners": 0.15,
    "security-101": 0.3, "ai-agents-beginners": 0.2, "python-docs-fr": 0.3, "godot-editor": 0.15,
    "electron-i18n": 0.3, "react-dev": 0.4, "scratch-l10n": 0.5, "dspace": 0.3,
}  # fmt: skip


def keep(record: dict[str, str], rng: random.Random) -> bool:
    """Draw a record of the permissive texts by its source's weight, machine translation halved."""
    weight = SOURCE_WEIGHTS.get(record["src"], 1.0)
    return rng.random() < (weight / 2 if record.get("mt") else weight)


def read_headings(data: Path, seed: int = 0) -> list[tuple[str, str, str]]:
    """Sampled (language, heading, passage) of the permissive texts."""
    rng = random.Random(seed)
    return [
        (r["lang"], r["query"], r["text"])
        for r in read_lines(data / "permissive" / "heading_passage.jsonl.gz")
        if keep(r, rng) and len(r["query"].split()) >= 2 and len(r["text"].split()) >= 8
    ]


def read_parallel(data: Path, seed: int = 0) -> list[dict[str, str]]:
    """Sampled records of aligned text: language -> text, two languages or more."""
    rng = random.Random(seed)
    records = []
    for r in read_lines(data / "permissive" / "parallel.jsonl.gz"):
        if keep(r, rng):
            texts = {k: r[k] for k in ("en", "ar", "fr", "pl") if len(r.get(k, "").split()) >= 3}
            if len(texts) >= 2:
                records.append(texts)
    return records


def read_mono(data: Path, seed: int = 0) -> list[tuple[str, str]]:
    """Sampled (language, paragraph) of the further Arabic and Polish text."""
    rng = random.Random(seed)
    return [
        (r["lang"], r["text"])
        for r in read_lines(data / "permissive" / "mono.jsonl.gz")
        if keep(r, rng) and len(r["text"].split()) >= 8
    ]


def windows(text: str, size: int, step: int) -> list[str]:
    """Overlapping windows of `size` words that cover the text; the last is full if it can."""
    words = text.split()
    if len(words) <= size:
        return [" ".join(words)]
    starts = [*range(0, len(words) - size, step), len(words) - size]
    return [" ".join(words[s : s + size]) for s in starts]


def plain(text: str) -> str:
    """NFKC and single spaces, as both tokenizers see it."""
    return " ".join(unicodedata.normalize("NFKC", text).split())
