"""Stage 2: question groups from all sets, old and new: one passage that answers, hard negatives.

Writes `groups.jsonl` (question, source, indices of passages) and `passages.jsonl`.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

from recipes.bundled import data, pairs
from rerank_plugins.training import Group

log = logging.getLogger(__name__)

# Questions drawn from each source; a source with fewer gives all.
DRAWN = {
    "arcd-ar": 600, "mlqa-ar": 600, "arabicaqa-stitched-ar": 5000, "arabicaqa-wiki2017-ar": 1900,
    "tydi-wiki2017-ar": 3000, "arabicaqa-answers-ar": 1500, "palgeo-ar": 1500,
    "wiki2017-lead-ar": 1200, "wiki2018-lead-arz": 1200, "arz-msa-lead": 600, "dz-rulings-ar": 400,
    "mentalqa-ar": 310, "heading-ar": 1500, "piaf-fr": 2500, "piaf11-new-fr": 2500,
    "heading-fr": 1200, "poquad-pl": 4000, "heading-pl": 1500, "tydiqa-en": 2500,
    "squadshifts-new": 1200, "squadshifts-amazon": 500, "selqa-en": 1000, "heading-en": 400,
}  # fmt: skip
_PAIRS = (
    "arabicaqa-answers-ar", "palgeo-ar", "wiki2017-lead-ar", "wiki2018-lead-arz", "arz-msa-lead",
    "dz-rulings-ar", "mentalqa-ar",
)  # fmt: skip
_ARABICAQA = ("arabicaqa-wiki2017-ar", "arabicaqa-stitched-ar", "arabicaqa-answers-ar")


def question_sets(folder: Path) -> Iterator[data.QuestionSet]:
    """Every set to train on, less what overlaps with a dev part or with another set."""
    yield from pairs.merge(data.load_questions(folder)[0])
    more = folder / "more"
    asked: set[str] = set()
    for name in ("arabicaqa-wiki2017-ar", "arabicaqa-stitched-ar", "tydi-wiki2017-ar"):
        whole = data.read_set(more, name, "ar")
        overlap = (more / name / "overlaps_arcd_train_or_mlqa_dev.txt").read_text("utf-8").split()
        dropped = set(overlap) | _inner(more / name / "kind.tsv")
        if name in _ARABICAQA:
            dropped |= {key for key, text in whole.questions.items() if text in asked}
            asked |= set(whole.questions.values())
        yield _without(whole, dropped)
    yield data.read_set(more, "piaf11-new-fr", "fr")
    for name in _PAIRS:
        rows = [
            (row["query"], row["text"])
            for row in data.read_lines(more / name / "pairs.jsonl.gz")
            if not (name in _ARABICAQA and row["query"] in asked)
        ]
        yield _of_pairs(name, "ar", rows)
    yield from pairs.headings(folder)


def _inner(path: Path) -> set[str]:
    """Questions whose passage is right in three of four cases only."""
    if not path.exists():
        return set()
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    return {row[0] for row in rows if row[-1].strip() == "inner"}


def _without(whole: data.QuestionSet, dropped: set[str]) -> data.QuestionSet:
    return data.QuestionSet(
        whole.name,
        whole.language,
        whole.passages,
        {key: text for key, text in whole.questions.items() if key not in dropped},
        {key: found for key, found in whole.positives.items() if key not in dropped},
    )


def _of_pairs(name: str, language: str, rows: list[tuple[str, str]]) -> data.QuestionSet:
    """Pairs as a set; equal texts are one passage, so that none is its own negative."""
    place: dict[str, str] = {}
    questions, positives = {}, {}
    for number, (question, text) in enumerate(rows):
        key = place.setdefault(text, f"p{len(place)}")
        questions[f"q{number}"], positives[f"q{number}"] = question, {key}
    return data.QuestionSet(
        name, language, {key: text for text, key in place.items()}, questions, positives
    )


def draw(whole: data.QuestionSet, number: int) -> data.QuestionSet:
    """At most `number` of its questions, by a fixed seed; all its passages."""
    keys = sorted(whole.questions)
    chosen = set(random.Random(f"draw {whole.name}").sample(keys, min(number, len(keys))))
    return _without(whole, set(keys) - chosen)


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "groups.jsonl").exists():
        return
    place: dict[str, int] = {}
    with (work / "groups.tmp").open("w", encoding="utf-8") as file:
        for whole in question_sets(folder):
            groups = pairs.mine(draw(whole, DRAWN[whole.name]))
            log.info("%s: %d groups of %d questions", whole.name, len(groups), len(whole.questions))
            for group in groups:
                texts = [place.setdefault(text, len(place)) for text in group.passages]
                row = {
                    "source": whole.name,
                    "language": whole.language,
                    "question": group.query,
                    "passages": texts,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (work / "passages.jsonl").open("w", encoding="utf-8") as file:
        for text in place:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
    (work / "groups.tmp").rename(work / "groups.jsonl")


def load(work: Path) -> list[tuple[str, Group]]:
    """Groups, each with the name of its source."""
    return pairs.load(work)
