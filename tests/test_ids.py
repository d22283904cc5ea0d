"""Ids are checked once, at every door: on half of a surrogate pair, C code ends the process."""

from __future__ import annotations

import pytest

from rerank_plugins._validation import check_id, check_names
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training.data import QuestionSet

BAD = {
    "half a surrogate pair": "doc\ud800",
    "a number": 7,
    "bytes": b"doc",
    "too long": "x" * 10_001,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_id_is_refused_by_name(bad: object) -> None:
    """Alone, in a list, and in every part of a question set."""
    for refused in (lambda: check_id(bad), lambda: check_names(["fine", bad])):
        with pytest.raises(InvalidInputError, match="id must"):
            refused()
    fine = {"corpus": {"d": "text"}, "queries": {"q": "text"}, "qrels": {"q": {"d": 1.0}}}
    for part in (
        {"corpus": {bad: "text"}},
        {"queries": {bad: "text"}},
        {"qrels": {bad: {"d": 1.0}}},
        {"qrels": {"q": {bad: 1.0}}},
    ):
        with pytest.raises(InvalidInputError, match="id must"):
            QuestionSet("set", **{**fine, **part})


@pytest.mark.parametrize("good", ["", "doc 1", "وثيقة", "\U0001f600", "x" * 10_000])
def test_every_other_text_is_an_id(good: str) -> None:
    """As it is."""
    assert check_id(good) == good
    assert QuestionSet("set", {good: "text"}, {"q": "text"}, {"q": {good: 1.0}}).positives("q")


def test_measures_refuse_what_would_end_the_process() -> None:
    """Judgements and rankings that come without a question set are checked before trec_eval."""
    ir_measures = pytest.importorskip("ir_measures")
    from rerank_plugins.evaluation.measures import _values

    measures = {"nDCG@10": ir_measures.parse_measure("nDCG@10")}
    assert list(_values({"q": {"d": 1.0}}, [("q", ["d"])], measures))
    for qrels, rankings in (
        ({"q": {"d\ud800": 1.0}}, [("q", ["d"])]),
        ({"q": {"d": 1.0}}, [("q", ["d\ud800"])]),
        ({"q\ud800": {"d": 1.0}}, [("q\ud800", ["d"])]),
    ):
        with pytest.raises(InvalidInputError, match="surrogate"):
            list(_values(qrels, rankings, measures))
