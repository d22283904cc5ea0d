"""Stage 4: questions with one passage that answers and seven that BM25 takes for it.

Writes `groups.jsonl` and `passages.jsonl` (training) and `dev.jsonl` (questions of the dev parts
with BM25's top 50).
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recipes.embedded import data
from recipes.embedded.bm25 import Index

log = logging.getLogger(__name__)

NEGATIVES = 7
RANKS = 40  # negatives come from BM25's first so many
NEAR = 0.5  # share of the shorter text's word triples that makes two passages one
DEV_QUESTIONS = 100  # a set


@dataclass(frozen=True, slots=True)
class Group:
    """One question, its passages (the first one answers), and BM25's scores of them."""

    source: str
    language: str
    question: str
    passages: list[str]
    scores: list[float]


@dataclass(frozen=True, slots=True)
class DevQuestion:
    """A dev question and BM25's candidates; `relevant` are places in them, `wanted` counts all."""

    source: str
    question: str
    passages: list[str]
    scores: list[float]
    relevant: list[int]
    wanted: int


def triples(text: str) -> set[tuple[str, ...]]:
    """Word triples, lower case."""
    words = text.lower().split()
    return set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}


def near(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> bool:
    """Whether two passages are probably the same text."""
    return len(one & other) >= NEAR * min(len(one), len(other))


def mine(
    source: str,
    language: str,
    passages: Mapping[str, str],
    questions: Mapping[str, str],
    positives: Mapping[str, set[str]],
    *,
    rng: random.Random,
) -> Iterator[Group]:
    """Groups of one set; candidates that share half of their triples with a positive left out."""
    ids, texts = list(passages), list(passages.values())
    place = {key: i for i, key in enumerate(ids)}
    index = Index(texts, language)
    grams: dict[int, set[tuple[str, ...]]] = {}

    def gram(i: int) -> set[tuple[str, ...]]:
        if i not in grams:
            grams[i] = triples(texts[i])
        return grams[i]

    for key, question in questions.items():
        right = [place[p] for p in positives[key]]
        scores = index.scores(question)
        found = [i for i in index.top(scores, RANKS) if i not in right]
        found = [i for i in found if not any(near(gram(i), gram(r)) for r in right)]
        if len(found) < NEGATIVES:
            continue
        # Half from the very top, half from further down, as a list of fifty has both.
        chosen = found[:4] + rng.sample(found[4:], NEGATIVES - 4)
        for r in right[:2]:
            rows = [r, *chosen]
            yield Group(
                source,
                language,
                question,
                [texts[i] for i in rows],
                [round(float(scores[i]), 3) for i in rows],
            )


def headings(folder: Path, rng: random.Random) -> Iterator[Group]:
    """Weak supervision: headings and the text under them, where the heading stands once."""
    by_language: dict[str, list[tuple[str, str]]] = {}
    for language, heading, text in data.read_headings(folder):
        by_language.setdefault(language, []).append((heading, text))
    for language, found in by_language.items():
        seen = Counter(h for h, _ in found)
        rows = [(h, t) for h, t in found if seen[h] == 1]
        log.info("headings in %s: %d", language, len(rows))
        keys = [f"h{i}" for i in range(len(rows))]
        yield from mine(
            "heading",
            language,
            dict(zip(keys, (t for _, t in rows), strict=True)),
            dict(zip(keys, (h for h, _ in rows), strict=True)),
            {k: {k} for k in keys},
            rng=rng,
        )


def dev(part: data.QuestionSet, rng: random.Random) -> list[DevQuestion]:
    """At most `DEV_QUESTIONS` questions of a dev part, with BM25's top 50 of its passages."""
    ids, texts = list(part.passages), list(part.passages.values())
    index = Index(texts, part.language)
    chosen = rng.sample(sorted(part.questions), min(DEV_QUESTIONS, len(part.questions)))
    out = []
    for key in chosen:
        scores = index.scores(part.questions[key])
        top = index.top(scores, 50)
        relevant = [at for at, i in enumerate(top) if ids[i] in part.positives[key]]
        out.append(
            DevQuestion(
                part.name,
                part.questions[key],
                [texts[i] for i in top],
                [float(scores[i]) for i in top],
                relevant,
                len(part.positives[key]),
            )
        )
    return out


def merge(parts: Sequence[data.QuestionSet]) -> list[data.QuestionSet]:
    """Sets whose passages can serve each other's questions as negatives, made one."""
    out: dict[str, data.QuestionSet] = {}
    for part in parts:
        family = "-".join(part.name.split("/")[0].split("-")[:2])
        if family not in out:
            out[family] = data.QuestionSet(family, part.language, {}, {}, {})
        for name in ("passages", "questions", "positives"):
            getattr(out[family], name).update(getattr(part, name))
    return list(out.values())


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "groups.jsonl").exists():
        return
    rng = random.Random(0)
    train, held = data.load_questions(folder)
    with (work / "dev.jsonl").open("w", encoding="utf-8") as file:
        for part in held:
            for question in dev(part, rng):
                file.write(json.dumps(asdict(question), ensure_ascii=False) + "\n")
    groups = []
    for part in merge(train):
        found = list(
            mine(
                part.name,
                part.language,
                part.passages,
                part.questions,
                part.positives,
                rng=rng,
            )
        )
        log.info("%s: %d groups of %d questions", part.name, len(found), len(part.questions))
        groups += found
    groups += headings(folder, rng)
    save(work, groups)


def save(work: Path, groups: Sequence[Group]) -> None:
    """Write groups, every distinct passage once."""
    place: dict[str, int] = {}
    with (work / "groups.tmp").open("w", encoding="utf-8") as file:
        for group in groups:
            row = asdict(group)
            row["passages"] = [place.setdefault(p, len(place)) for p in group.passages]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (work / "passages.jsonl").open("w", encoding="utf-8") as file:
        for passage in place:
            file.write(json.dumps(passage, ensure_ascii=False) + "\n")
    (work / "groups.tmp").rename(work / "groups.jsonl")


def load(work: Path) -> tuple[list[Group], list[DevQuestion]]:
    """Training groups and dev questions."""
    with (work / "passages.jsonl").open(encoding="utf-8") as file:
        passages = [json.loads(line) for line in file]
    groups = []
    with (work / "groups.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            groups.append(Group(**row | {"passages": [passages[i] for i in row["passages"]]}))
    with (work / "dev.jsonl").open(encoding="utf-8") as file:
        return groups, [DevQuestion(**json.loads(line)) for line in file]
