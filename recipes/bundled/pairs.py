"""Stage 4: questions with a passage that answers and seven that BM25 takes for it.

Writes `groups.jsonl` and, every distinct passage once, `passages.jsonl`.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipes.bundled import data
from rerank_plugins.first_stage import BM25
from rerank_plugins.training import Group, QuestionSet, mine_hard_negatives

log = logging.getLogger(__name__)

NEGATIVES = 7
RANKS = (1, 20)  # of BM25's list, where negatives are drawn from


def mine(part: data.QuestionSet) -> list[Group]:
    """Groups of one set, by the package's own mining."""
    whole = part.judged()
    first_stage = BM25(whole.corpus.values(), language=part.language, engine="bm25s")
    return mine_hard_negatives(
        whole.corpus, whole.queries, whole.qrels, first_stage, ranks=RANKS, negatives=NEGATIVES
    )


def headings(folder: Path) -> Iterator[data.QuestionSet]:
    """Weak supervision: headings and the text under them, where the heading stands once."""
    by_language: dict[str, list[tuple[str, str]]] = {}
    for language, heading, text in data.read_headings(folder):
        by_language.setdefault(language, []).append((heading, text))
    for language, found in by_language.items():
        seen = Counter(heading for heading, _ in found)
        rows = [row for row in found if seen[row[0]] == 1]
        log.info("headings in %s: %d", language, len(rows))
        keys = [f"h{i}" for i in range(len(rows))]
        yield data.QuestionSet(
            f"heading-{language}",
            language,
            {key: text for key, (_, text) in zip(keys, rows, strict=True)},
            {key: heading for key, (heading, _) in zip(keys, rows, strict=True)},
            {key: {key} for key in keys},
        )


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
    train, _ = data.load_questions(folder)
    place: dict[str, int] = {}
    with (work / "groups.tmp").open("w", encoding="utf-8") as file:
        for part in [*merge(train), *headings(folder)]:
            groups = mine(part)
            log.info("%s: %d groups of %d questions", part.name, len(groups), len(part.questions))
            for group in groups:
                texts = [place.setdefault(text, len(place)) for text in group.passages]
                row = {"source": part.name, "question": group.query, "passages": texts}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (work / "passages.jsonl").open("w", encoding="utf-8") as file:
        for text in place:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
    (work / "groups.tmp").rename(work / "groups.jsonl")


def load(work: Path) -> list[tuple[str, Group]]:
    """Groups, each with the name of its source."""
    with (work / "passages.jsonl").open(encoding="utf-8") as file:
        passages = [json.loads(line) for line in file]
    found = []
    with (work / "groups.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            positive, *negatives = (passages[i] for i in row["passages"])
            found.append((row["source"], Group(row["question"], positive, tuple(negatives))))
    return found


def dev(folder: Path) -> Iterator[tuple[QuestionSet, BM25]]:
    """The dev parts with the first stage that every choice is made over."""
    for part in data.load_questions(folder)[1]:
        whole = part.judged()
        yield whole, BM25(whole.corpus.values(), language=part.language, engine="bm25s")
