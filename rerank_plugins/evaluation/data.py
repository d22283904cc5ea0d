"""What can be evaluated on: question sets, TREC judgements and runs, labelled pairs.

Folders in BEIR's layout are read by `rerank_plugins.training.data.read_question_set`, which
training uses too.
"""

from __future__ import annotations

import csv
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rerank_plugins._lines import json_objects, text_lines
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.data import QuestionSet, read_question_set

__all__ = [
    "LabelledPairs",
    "QuestionSet",
    "read_pairs",
    "read_qrels",
    "read_question_set",
    "read_run",
    "sample_queries",
]

logger = logging.getLogger(__name__)

PAIR_COLUMNS: Final = ("query", "passage", "label")


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """Pairs of query and passage with a label, grouped by query.

    Attributes:
        questions: Queries with at least one relevant passage, the distinct passages, and the
            labels as grades.
        candidates: By query id, the ids of the passages that it is paired with, in a seeded
            random order: files often list the relevant passage first, and ties in scores
            would be broken in its favour. Can be passed to `compare` as a first stage.
    """

    questions: QuestionSet
    candidates: Mapping[str, tuple[str, ...]]


def read_pairs(
    path: str | Path,
    *,
    columns: tuple[str, str, str] = PAIR_COLUMNS,
    seed: int = 0,
) -> LabelledPairs:
    """Labelled pairs from JSON lines, CSV or TSV (each plain or ``.gz``).

    A JSON line may also have the lists ``positive`` and ``negative`` beside the query, which
    is how the reranking tasks of MTEB come.

    Args:
        path: The ending tells the format: ``.jsonl``, ``.csv`` or ``.tsv``; CSV and TSV begin
            with a line of column names.
        columns: Names of the query, the passage and the label; labels are 0 or 1.
        seed: Of the candidates' order.

    Raises:
        InvalidInputError: If the format is unknown, or a line breaks it; names file and line.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    grades: dict[str, dict[str, int]] = {}
    conflicts = 0
    for query, passage, label in _pairs(path, columns):
        labels = grades.setdefault(query, {})
        conflicts += labels.get(passage, label) != label
        labels[passage] = max(label, labels.get(passage, 0))
    if conflicts:
        logger.warning("%s: %d pairs have both labels; they count as relevant", path, conflicts)
    judged = {query: labels for query, labels in grades.items() if any(labels.values())}
    if not judged:
        raise InvalidInputError(f"{path} has no pair with the label 1: nothing can be measured")
    if len(judged) < len(grades):
        logger.info("%s: %d queries without a 1 are left out", path, len(grades) - len(judged))
    passages: dict[str, str] = {}
    for labels in judged.values():
        for text in labels:
            passages.setdefault(text, f"p{len(passages)}")
    ids = {query: f"q{place}" for place, query in enumerate(judged)}
    candidates = {}
    for query, labels in judged.items():
        given = [passages[text] for text in labels]
        random.Random(f"{seed} {query}").shuffle(given)  # noqa: S311
        candidates[ids[query]] = tuple(given)
    questions = QuestionSet(
        name=path.name,
        corpus={place: text for text, place in passages.items()},
        queries={place: text for text, place in ids.items()},
        qrels={
            ids[query]: {passages[text]: float(label) for text, label in labels.items()}
            for query, labels in judged.items()
        },
    )
    return LabelledPairs(questions, candidates)


def read_qrels(path: str | Path) -> dict[str, dict[str, float]]:
    """Judgements from a TREC file (``query iteration passage grade``) or a ``qrels.tsv``.

    Raises:
        InvalidInputError: If a line breaks the format; the message names file and line.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    qrels: dict[str, dict[str, float]] = {}
    for number, line in _lines(path):
        cells = line.split("\t") if line.count("\t") == 2 else line.split()
        if number == 1 and len(cells) == 3 and cells[2] == "score":
            continue
        if len(cells) not in (3, 4):
            raise InvalidInputError(
                f"{path}, line {number}: needs 'query iteration passage grade' or "
                f"'query<tab>passage<tab>score', but got {line!r}"
            )
        query, passage, grade = cells[0], cells[-2], cells[-1]
        try:
            value = float(grade)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidInputError(
                f"{path}, line {number}: the grade must be a number, but got {grade!r}"
            )
        qrels.setdefault(query, {})[passage] = value
    return qrels


def read_run(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Rankings of a TREC run (``query Q0 passage rank score tag``), one query at a time.

    The score makes the order, as in trec_eval; equal scores keep the file's order. All lines
    of a query must stand together.

    Raises:
        InvalidInputError: If a line breaks the format; the message names file and line.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    current: str | None = None
    found: list[tuple[float, str]] = []
    for number, line in _lines(path):
        cells = line.split()
        try:
            query, _, passage, _, given, _ = cells
            score = float(given)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InvalidInputError(
                f"{path}, line {number}: needs 'query Q0 passage rank score tag' with a finite "
                f"score, but got {line!r}"
            )
        if query != current:
            if current is not None:
                yield current, _by_score(found)
            current, found = query, []
        found.append((score, passage))
    if current is not None:
        yield current, _by_score(found)


def sample_queries(data: QuestionSet, queries: int | None, *, seed: int = 0) -> QuestionSet:
    """The set with that many of its queries, drawn at random, in the set's order.

    The passages stay all: what a query competes against does not change.

    Args:
        data: The set.
        queries: How many; None, or more than there are, for all.
        seed: Of the draw.

    Raises:
        InvalidInputError: Fewer than one is asked for.
    """
    if queries is None or queries >= len(data.queries):
        return data
    if queries < 1:
        raise InvalidInputError(f"queries must be at least 1, but got {queries}")
    drawn = set(random.Random(f"evaluate {seed}").sample(sorted(data.queries), queries))  # noqa: S311
    kept = {query: text for query, text in data.queries.items() if query in drawn}
    return replace(data, queries=kept, qrels={query: data.qrels[query] for query in kept})


def _by_score(found: Sequence[tuple[float, str]]) -> list[str]:
    return [passage for _, passage in sorted(found, key=lambda one: -one[0])]


def _pairs(path: Path, columns: tuple[str, str, str]) -> Iterator[tuple[str, str, int]]:
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    kind = endings[-1] if endings else ""
    if kind == ".jsonl":
        records = json_objects(path)
    elif kind in (".csv", ".tsv"):
        records = _table_records(path, "," if kind == ".csv" else "\t", columns)
    else:
        raise InvalidInputError(
            f"labelled pairs must be a .jsonl, .csv or .tsv file (or one of them with .gz), "
            f"but got {path.name}"
        )
    name_of_query, name_of_passage, name_of_label = columns
    for where, record in records:
        query = _text(record, name_of_query, where)
        if "positive" in record and name_of_passage not in record:
            for label, key in ((1, "positive"), (0, "negative")):
                texts = record.get(key, [])
                if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
                    raise InvalidInputError(f"{where}: {key!r} must be a list of texts")
                yield from ((query, text, label) for text in texts)
            continue
        given = str(record.get(name_of_label)).strip()
        if given not in ("0", "1", "0.0", "1.0"):
            raise InvalidInputError(f"{where}: {name_of_label!r} must be 0 or 1, but got {given!r}")
        yield query, _text(record, name_of_passage, where), int(float(given))


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where}: {name!r} must be a non-empty text, but got {value!r}")
    return value


def _table_records(
    path: Path, delimiter: str, columns: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader((line for _, line in text_lines(path)), delimiter=delimiter)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise InvalidInputError(
                f"{path}, line 1: needs the columns {', '.join(columns)}, but lacks "
                f"{', '.join(missing)}"
            )
        for record in reader:
            yield f"{path}, line {reader.line_num}", record
    except csv.Error as error:
        raise InvalidInputError(f"{path}, after line {reader.line_num}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines without their ends; blank lines are skipped."""
    for number, line in text_lines(path):
        if line.strip():
            yield number, line.rstrip("\r\n")
