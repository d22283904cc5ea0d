"""What int8 is calibrated with and measured on: the caller's pairs, or the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rerank_plugins.samples import LANGUAGES, load_passages, load_questions
from rerank_plugins.scoring.agreement import LabelledList, by_query

# nncf's own default: more rows barely move the ranges that it notes.
CALIBRATION_PAIRS: Final = 300
_PASSAGES_PER_QUESTION: Final = 20
# Of a user's queries, one in so many is kept for measuring.
_EVERY: Final = 3


def spread(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most 300 of the pairs, taken evenly."""
    count = min(CALIBRATION_PAIRS, len(pairs))
    return [pairs[number * len(pairs) // count] for number in range(count)]


def split(
    pairs: Sequence[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[LabelledList], str]:
    """Pairs to calibrate with, lists to measure with, and what these are.

    Every third query that has two passages is kept apart for measuring, whole. Where that
    leaves nothing on one side, the calibration pairs serve both; where no query has two
    passages, the samples measure.
    """
    lists = [some for some in by_query(pairs) if len(some.passages) > 1]
    if not lists:
        return spread(pairs), sample_lists(odd=True), "samples"
    apart = lists[::_EVERY] if len(lists) > 1 else []
    queries = {some.query for some in apart}
    rest = [pair for pair in pairs if pair[0] not in queries]
    if not apart or not rest:
        calibration = spread(pairs)
        kept = [some for some in by_query(calibration) if len(some.passages) > 1]
        return calibration, kept or lists[:1], "the calibration pairs"
    measured: list[LabelledList] = []
    for some in apart:
        if measured and sum(len(one.passages) for one in measured) >= CALIBRATION_PAIRS:
            break
        measured.append(some)
    return spread(rest), measured, "other pairs"


def sample_pairs() -> list[tuple[str, str]]:
    """To calibrate with: every other sample question of each language with its passages."""
    return [(some.query, passage) for some in sample_lists(odd=False) for passage in some.passages]


def sample_lists(*, odd: bool) -> list[LabelledList]:
    """Every other sample question of each language, with 20 passages: its own ones first."""
    lists = []
    for language in LANGUAGES:
        passages = {passage.id: passage.text for passage in load_passages(language)}
        for number, question in enumerate(load_questions(language)):
            if number % 2 != odd:
                continue
            ids = dict.fromkeys([*question.relevant, *question.distractors, *passages])
            chosen = list(ids)[:_PASSAGES_PER_QUESTION]
            lists.append(
                LabelledList(
                    question.text,
                    [passages[name] for name in chosen],
                    [float(name in question.relevant) for name in chosen],
                )
            )
    return lists
