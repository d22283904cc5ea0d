"""Candidate, Ranked and Ranking."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from rerank_plugins import Candidate, Ranked, Ranking
from rerank_plugins.candidates import as_candidates
from rerank_plugins.errors import InvalidInputError


def ranking() -> Ranking:
    """Three passages, best first."""
    items = tuple(
        Ranked(Candidate(key, f"text {key}", score=10.0 - key, rank=key + 1), score, score, rank)
        for rank, (key, score) in enumerate([(2, 0.9), (0, 0.5), (1, 0.1)], start=1)
    )
    return Ranking("q", items, "a model", "probability", 5, truncated=1, deduplicated=2)


def test_a_ranking_is_a_sequence_of_ranked() -> None:
    """Length, iteration, index from both ends, membership, as of a tuple."""
    found = ranking()
    assert len(found) == 3
    assert [item.candidate.key for item in found] == [2, 0, 1]
    assert found[0] is found.items[0]
    assert found[-1].candidate.key == 1
    assert found.items[1] in found
    assert found.index(found.items[1]) == 1
    with pytest.raises(IndexError):
        found[3]


def test_a_slice_of_a_ranking_is_a_ranking_that_knows_the_same() -> None:
    """The best two, with model, scale and counts of the whole."""
    part = ranking()[:2]
    assert isinstance(part, Ranking)
    assert part.keys == [2, 0]
    assert (part.model, part.scale, part.candidates) == ("a model", "probability", 5)
    assert ranking()[5:].items == ()


def test_texts_scores_and_keys_come_best_first() -> None:
    """The columns that most callers want."""
    found = ranking()
    assert found.texts == ["text 2", "text 0", "text 1"]
    assert found.scores == [0.9, 0.5, 0.1]
    assert found.keys == [2, 0, 1]


def test_records_are_frozen_and_hashable() -> None:
    """What passes between stages cannot be changed on the way."""
    with pytest.raises(FrozenInstanceError):
        Candidate(0, "x").text = "y"
    with pytest.raises(FrozenInstanceError):
        ranking().query = "other"
    with pytest.raises(FrozenInstanceError):
        ranking()[0].score = 1.0
    assert len({Candidate(0, "x"), Candidate(0, "x"), Candidate(1, "x")}) == 2
    assert {ranking()}


def test_records_survive_pickle_and_deepcopy() -> None:
    """Checkpointers and process pools move rankings about."""
    found = ranking()
    assert pickle.loads(pickle.dumps(found)) == found
    assert copy.deepcopy(found) == found


def test_dicts_hold_native_python_types_even_from_numpy() -> None:
    """A first stage that leaves numpy scalars in its candidates breaks no JSON."""
    candidate = Candidate(np.int64(7), "x", score=np.float32(0.5), rank=np.int32(3))
    found = Ranking("q", (Ranked(candidate, 0.25, -1.0, 1),), "m", "probability", 1)
    text = json.dumps(found.to_dict())
    assert json.loads(text)["results"] == [
        {
            "key": 7,
            "text": "x",
            "score": 0.25,
            "logit": -1.0,
            "rank": 1,
            "retrieval_score": 0.5,
            "retrieval_rank": 3,
            "truncated": False,
            "source": "model",
            "span": None,
        }
    ]
    row = found.to_dicts()[0]
    assert type(row["key"]) is int
    assert type(row["retrieval_score"]) is float
    assert type(row["retrieval_rank"]) is int


def test_to_dict_tells_all_that_the_ranking_knows() -> None:
    """Nothing of the ranking is lost on the way to JSON."""
    found = ranking()
    told = found.to_dict()
    assert told["results"] == found.to_dicts()
    for name in (
        "query",
        "model",
        "scale",
        "candidates",
        "truncated",
        "deduplicated",
        "first_stage_seconds",
        "scoring_seconds",
        "error",
    ):
        assert told[name] == getattr(found, name)


def test_texts_become_candidates_by_position() -> None:
    """Key from 0, rank from 1, no score."""
    assert as_candidates(["a", "b"]) == [
        Candidate(0, "a", None, 1),
        Candidate(1, "b", None, 2),
    ]


def test_candidates_pass_as_they_are_even_among_texts() -> None:
    """A candidate keeps its own key, score and rank."""
    own = Candidate(9, "x", score=2.0, rank=4)
    assert as_candidates(iter([own, "y"])) == [own, Candidate(1, "y", None, 2)]


@pytest.mark.parametrize(
    ("passages", "message"),
    [
        ("one string", "one string: put it in a list"),
        (None, "but got NoneType"),
        (7, "but got int"),
        (["a", None], "number 1 is NoneType"),
        ([b"bytes"], "number 0 is bytes"),
        ([Candidate(0, None)], "number 0 is NoneType"),
        ([{"text": "a"}], "number 0 is dict"),
    ],
)
def test_what_is_no_list_of_texts_is_named(passages: object, message: str) -> None:
    """The message says which element, and what it is."""
    with pytest.raises(InvalidInputError, match=message):
        as_candidates(passages)
