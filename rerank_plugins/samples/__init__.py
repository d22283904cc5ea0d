"""A small corpus in Arabic, French, Polish and English, with questions, for demos and tests.

The passages were written for this project (see README.md beside this file). Each question
comes with passages that repeat its words without answering it, so that a ranking by shared
words fails and the effect of a reranker shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rerank_plugins.errors import InvalidInputError

__all__ = [
    "LANGUAGES",
    "SamplePassage",
    "SampleQuestion",
    "corpus_path",
    "load_passages",
    "load_questions",
]

LANGUAGES = ("ar", "fr", "pl", "en")


@dataclass(frozen=True, slots=True)
class SamplePassage:
    """A passage of the sample corpus.

    Attributes:
        id: Language and number, such as ``ar-07``.
        language: One of `LANGUAGES`.
        title: A few words; not part of the text.
        text: 30 to 90 words, or 200 to 300 in a few long ones of several paragraphs.
        topic: One English word, such as ``cooking``.
    """

    id: str
    language: str
    title: str
    text: str
    topic: str


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question with the passages that answer it and those that only look like it.

    Attributes:
        id: Language and number, such as ``ar-q1``; the first of a language is the demo's.
        language: One of `LANGUAGES`; its passages have the same.
        text: The question.
        relevant: Ids of the passages that answer it.
        distractors: Ids of passages that share words with it without answering it.
    """

    id: str
    language: str
    text: str
    relevant: tuple[str, ...]
    distractors: tuple[str, ...]


def corpus_path() -> Path:
    """The file with all passages, one JSON object per line, as the command line reads it."""
    return Path(str(files(__name__).joinpath("passages.jsonl")))


def load_passages(language: str | None = None) -> list[SamplePassage]:
    """The passages of a language, or of all when None, in the order of the file.

    Raises:
        InvalidInputError: If there are no samples in that language.
    """
    return [SamplePassage(**row) for row in _rows("passages.jsonl", language)]


def load_questions(language: str | None = None) -> list[SampleQuestion]:
    """The questions of a language, or of all when None, in the order of the file.

    Raises:
        InvalidInputError: If there are no samples in that language.
    """
    return [
        SampleQuestion(
            **{
                **row,
                "relevant": tuple(row["relevant"]),
                "distractors": tuple(row["distractors"]),
            }
        )
        for row in _rows("questions.jsonl", language)
    ]


def _rows(name: str, language: str | None) -> list[dict[str, Any]]:
    if language is not None and language not in LANGUAGES:
        raise InvalidInputError(
            f"language must be one of {', '.join(LANGUAGES)} or None, but got {language!r}"
        )
    lines = files(__name__).joinpath(name).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [row for row in rows if language is None or row["language"] == language]
