"""Question sets on disk, and a held-back part of them that training never sees.

The layout is BEIR's: ``corpus.jsonl`` and ``queries.jsonl`` (plain or ``.gz``) with ``_id`` (or
``id``) and ``text``, and judgements in ``qrels/test.tsv`` (or ``train``, ``dev``) or, where a set
has no splits, in ``qrels.tsv``, with the header ``query-id corpus-id score``. A query may carry
``answers``, a list of strings; the qrels may have a fourth column, ``teacher-score``. A ``title``
is read only where the text is blank: a reranker in use sees the passage's text alone.
"""

from __future__ import annotations

import logging
import math
import random
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rerank_plugins._lines import json_objects, text_lines
from rerank_plugins._text import normalize
from rerank_plugins._validation import check_id
from rerank_plugins.errors import InvalidInputError

logger = logging.getLogger(__name__)

QRELS_HEADER = ("query-id", "corpus-id", "score")
TEACHER_COLUMN = "teacher-score"


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions, passages and which passage answers which question.

    Attributes:
        name: What logs and the model card call it.
        corpus: Passage text by passage id.
        queries: Question text by question id.
        qrels: By question id, the grade of each judged passage: above 0 relevant, 0 judged
            not relevant.
        answers: By question id, strings that answer it, where the set has them.
        teacher_scores: By question id, a teacher's score of passages, where the set has them.

    Raises:
        InvalidInputError: If an id is not text, is not well-formed, or is too long.
    """

    name: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    teacher_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for ids in (self.corpus, self.queries, self.qrels, *self.qrels.values()):
            for one in ids:
                check_id(one)

    def positives(self, query_id: str) -> list[str]:
        """Ids of the passages judged relevant, in the order of the qrels."""
        return [doc for doc, grade in self.qrels.get(query_id, {}).items() if grade > 0]


def read_question_set(
    folder: str | Path, name: str | None = None, *, split: str | None = None
) -> QuestionSet:
    """Reads a folder in BEIR's layout.

    Args:
        folder: Holds ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]`` and judgements:
            ``qrels.tsv`` or ``qrels/<split>.tsv``, plain or ``.gz``.
        name: What to call the set; the folder's last two names when None, since the last one
            is often just ``train``.
        split: Which file of ``qrels/`` to read. None for ``qrels.tsv``; without that file, for
            ``qrels/test.tsv`` or the only file in ``qrels/``.

    Returns:
        The set, holding only questions with at least one relevant passage.

    Raises:
        InvalidInputError: If a file is missing or a line breaks the layout; the message names
            file and line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInputError(f"data set folder not found: {folder}")
    judgements = qrels_file(folder, split)
    corpus, blank = _corpus(_one_of(folder, "corpus.jsonl"))
    queries: dict[str, str] = {}
    answers: dict[str, tuple[str, ...]] = {}
    for where, record in json_objects(_one_of(folder, "queries.jsonl")):
        query_id = _text(record, "id", where)
        _add(queries, query_id, _text(record, "text", where), where)
        if "answers" in record:
            answers[query_id] = _answers(record["answers"], where)
    qrels, teacher = _read_qrels(judgements, corpus, queries, blank)
    judged = {
        query: text
        for query, text in queries.items()
        if any(grade > 0 for grade in qrels.get(query, {}).values())
    }
    if not judged:
        raise InvalidInputError(
            f"{judgements} gives no question a relevant passage (score above 0): there is nothing "
            "to measure or to learn from"
        )
    if len(judged) < len(queries):
        logger.info(
            "%s: %d of %d questions have no relevant passage in %s and are left out",
            folder,
            len(queries) - len(judged),
            len(queries),
            judgements.name,
        )
    if name is None:
        parts = folder.resolve().parts
        name = "/".join(parts[-2:]) if len(parts) > 2 else parts[-1]
    return QuestionSet(name, corpus, judged, qrels, answers, teacher)


def qrels_file(folder: Path, split: str | None = None) -> Path:
    """The judgements of a folder; see `read_question_set`.

    Raises:
        InvalidInputError: If there are none, no such split, or several and none was chosen.
    """
    splits = qrels_splits(folder)
    if split is not None:
        if split not in splits:
            raise InvalidInputError(
                f"{folder} has no qrels/{split}.tsv; its splits: {', '.join(splits) or 'none'}"
            )
        return splits[split]
    for path in (folder / "qrels.tsv", folder / "qrels.tsv.gz"):
        if path.is_file():
            return path
    if "test" in splits:
        return splits["test"]
    if len(splits) == 1:
        return next(iter(splits.values()))
    if splits:
        raise InvalidInputError(f"{folder} has several splits, choose one: {', '.join(splits)}")
    raise InvalidInputError(f"{folder} needs qrels.tsv or qrels/test.tsv, but has neither")


def qrels_splits(folder: Path) -> dict[str, Path]:
    """The files in ``qrels/``, by the name of the split, in alphabetical order."""
    found = sorted([*folder.glob("qrels/*.tsv"), *folder.glob("qrels/*.tsv.gz")])
    return {path.name.partition(".tsv")[0]: path for path in found}


def hold_back(
    data: QuestionSet, queries: int, *, seed: int = 0
) -> tuple[QuestionSet, QuestionSet | None]:
    """Splits a set by question, so that both parts share no relevant passage where possible.

    Questions are tied together when they share a relevant passage (by id or by text) or have
    the same wording; whole ties are held back, in seeded random order. Only where ties are
    too large for that are some of them cut, and the log says so.

    Args:
        data: What to split.
        queries: How many questions to hold back, about; 0 for none.
        seed: Of the order.

    Returns:
        The part to train on, whose corpus lacks the passages that only held-back questions
        need, and the part held back with the whole corpus (None when nothing is).

    Raises:
        InvalidInputError: Fewer than 0 questions or all of them are to be held back.
    """
    if not 0 <= queries < len(data.queries):
        raise InvalidInputError(
            f"the questions to hold back must be at least 0 and fewer than the set has "
            f"({len(data.queries)} in {data.name}), but got {queries}"
        )
    if queries == 0:
        return data, None
    ties = _ties(data)
    order = random.Random(f"hold back {seed}")  # noqa: S311
    order.shuffle(ties)
    held: list[str] = []
    for tie in ties:
        if len(held) + len(tie) <= queries:
            held.extend(tie)
    if len(held) < queries / 2:
        taken = set(held)
        rest = [query for tie in ties for query in tie if query not in taken]
        held.extend(order.sample(rest, queries - len(held)))
        logger.warning(
            "%s: too many questions share passages to hold %d back by whole passages; "
            "some relevant passages stand in both parts",
            data.name,
            queries,
        )
    kept = set(data.queries).difference(held)
    needed = {doc for query in kept for doc in data.positives(query)}
    hidden = {doc for query in held for doc in data.positives(query)} - needed
    hidden_texts = {data.corpus[doc] for doc in hidden}
    corpus = {
        doc: text
        for doc, text in data.corpus.items()
        if doc in needed or (doc not in hidden and text not in hidden_texts)
    }
    return _part(data, kept, corpus), _part(data, set(held), data.corpus)


def normalized(text: str) -> str:
    """The text for comparing: NFKC, case and diacritics dropped, one space between words.

    Diacritics go because two copies of an Arabic passage often differ in nothing else.
    """
    folded = normalize("NFKD", normalize("NFKC", text).casefold())
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    return " ".join("".join(char if char.isalnum() else " " for char in bare).split())


def _part(data: QuestionSet, queries: set[str], corpus: Mapping[str, str]) -> QuestionSet:
    return replace(
        data,
        corpus=corpus,
        queries={query: text for query, text in data.queries.items() if query in queries},
        qrels={
            query: {doc: grade for doc, grade in grades.items() if doc in corpus}
            for query, grades in data.qrels.items()
            if query in queries
        },
    )


def _ties(data: QuestionSet) -> list[list[str]]:
    """Questions grouped by shared wording or relevant passage, in the order of the set."""
    parent = {query: query for query in data.queries}

    def root(query: str) -> str:
        while parent[query] != query:
            parent[query] = parent[parent[query]]
            query = parent[query]
        return query

    first_with: dict[tuple[str, str], str] = {}
    for query, text in data.queries.items():
        marks = [("query", normalized(text))]
        marks += [("passage", normalized(data.corpus[doc])) for doc in data.positives(query)]
        for mark in marks:
            parent[root(query)] = root(first_with.setdefault(mark, query))
    groups: dict[str, list[str]] = {}
    for query in data.queries:
        groups.setdefault(root(query), []).append(query)
    return list(groups.values())


def _one_of(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidInputError(f"{folder} needs {name} or {name}.gz, but has neither")


def _corpus(path: Path) -> tuple[dict[str, str], set[str]]:
    """Passages by id, and the ids of those that have neither text nor title."""
    corpus: dict[str, str] = {}
    blank: set[str] = set()
    for where, record in json_objects(path):
        passage = _text(record, "id", where)
        text, title = record.get("text"), record.get("title")
        column = "text"
        if isinstance(text, str) and not text.strip() and isinstance(title, str):
            # BEIR's collections hold such passages: the title is all that there is.
            if not title.strip():
                blank.add(passage)
                continue
            column = "title"
        _add(corpus, passage, _text(record, column, where), where)
    if blank:
        logger.warning("%s: %d passages have neither text nor title: left out", path, len(blank))
    return corpus, blank


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key, record.get("_id") if key == "id" else None)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where}: {key!r} must be a non-empty string, but got {value!r}")
    return value


def _add(texts: dict[str, str], key: str, text: str, where: str) -> None:
    if key in texts:
        raise InvalidInputError(f"{where}: duplicate id {key!r}")
    texts[key] = text


def _answers(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(answer, str) for answer in value):
        raise InvalidInputError(f"{where}: 'answers' must be a list of strings, but got {value!r}")
    return tuple(value)


def _read_qrels(
    path: Path, corpus: Mapping[str, str], queries: Mapping[str, str], blank: Collection[str]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    qrels: dict[str, dict[str, float]] = {}
    teacher: dict[str, dict[str, float]] = {}
    lines = text_lines(path)
    header = tuple(next(lines, (0, ""))[1].rstrip("\r\n").split("\t"))
    if header not in (QRELS_HEADER, (*QRELS_HEADER, TEACHER_COLUMN)):
        raise InvalidInputError(
            f"{path}, line 1: the header must be {' '.join(QRELS_HEADER)} (and perhaps "
            f"{TEACHER_COLUMN}), separated by tabs, but got {header}"
        )
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != len(header):
            raise InvalidInputError(f"{where}: needs {len(header)} columns, got {len(cells)}")
        query, doc = cells[:2]
        if query not in queries:
            raise InvalidInputError(f"{where}: no query has the id {query!r}")
        if doc in blank:
            continue
        if doc not in corpus:
            raise InvalidInputError(f"{where}: no passage has the id {doc!r}")
        qrels.setdefault(query, {})[doc] = _number(cells[2], "score", where)
        if len(cells) > 3:
            teacher.setdefault(query, {})[doc] = _number(cells[3], TEACHER_COLUMN, where)
    return qrels, teacher


def _number(cell: str, column: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInputError(f"{where}: {column} must be a finite number, but got {cell!r}")
    return value
