"""The language of filters: against plain Python, and against LangChain's own stores."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins.collection import Collection, Compare, Negated, Record, read
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25


def view_of(*metadata):
    """A view of records with these metadata."""
    records = [Record(str(at), "text", one, item=one) for at, one in enumerate(metadata)]
    return Collection([BM25([one.text for one in records])], records).view


def kept(condition, *metadata):
    """Positions of the metadata that a filter keeps."""
    return np.flatnonzero(view_of(*metadata).mask(read(condition))).tolist()


YEARS = ({"year": 2019}, {"year": 2020}, {"year": 2021.5}, {"year": None}, {})
TAGS = ({"tags": ["a", "b"]}, {"tags": ["b"]}, {"tags": "a"}, {"tags": []}, {})


@pytest.mark.parametrize(
    ("condition", "metadata", "positions"),
    [
        ({}, YEARS, [0, 1, 2, 3, 4]),
        ({"year": 2020}, YEARS, [1]),
        ({"year": None}, YEARS, [3]),
        ({"year": [2019, 2020]}, YEARS, [0, 1]),
        ({"year": {"$eq": 2020}}, YEARS, [1]),
        ({"year": {"$ne": 2020}}, YEARS, [0, 2, 3, 4]),
        ({"year": {"$neq": 2020}}, YEARS, [0, 2, 3, 4]),
        ({"year": {"$gt": 2020}}, YEARS, [2]),
        ({"year": {"$gte": 2020}}, YEARS, [1, 2]),
        ({"year": {"$lt": 2020}}, YEARS, [0]),
        ({"year": {"$lte": 2020}}, YEARS, [0, 1]),
        ({"year": {"$gte": 2020, "$lt": 2021}}, YEARS, [1]),
        ({"year": {"$in": [2019, 2021.5]}}, YEARS, [0, 2]),
        ({"year": {"$in": []}}, YEARS, []),
        ({"year": {"$nin": [2019, 2021.5]}}, YEARS, [1, 3, 4]),
        ({"year": {"$exists": True}}, YEARS, [0, 1, 2, 3]),
        ({"year": {"$exists": False}}, YEARS, [4]),
        ({"year": {"$not": {"$gt": 2020}}}, YEARS, [0, 1, 3, 4]),
        ({"$not": {"year": 2020}}, YEARS, [0, 2, 3, 4]),
        ({"$and": [{"year": {"$gt": 2019}}, {"year": {"$lt": 2021}}]}, YEARS, [1]),
        ({"$or": [{"year": 2019}, {"year": {"$exists": False}}]}, YEARS, [0, 4]),
        ({"$or": [{"year": 2019}, {"year": 2020}], "year": 2020}, YEARS, [1]),
        ({"tags": "a"}, TAGS, [0, 2]),
        ({"tags": ["a", "b"]}, TAGS, [0, 1, 2]),
        ({"tags": []}, TAGS, [3]),
        ({"tags": {"$eq": ["a", "b"]}}, TAGS, [0]),
        ({"tags": {"$in": ["b"]}}, TAGS, [0, 1]),
        ({"tags": {"$ne": "a"}}, TAGS, [1, 3, 4]),
        ({"tags": {"$nin": ["a"]}}, TAGS, [1, 3, 4]),
        ({"tags": {"$contains": "b"}}, TAGS, [0, 1]),
        ({"a": {"b": 1}}, ({"a": {"b": 1}}, {"a": {"b": 2}}, {"a": 1}), [0]),
        ({"a": (1, 2)}, ({"a": (1, 2)}, {"a": [1, 2]}), [0]),
        ({"a": {"$eq": [1, 2]}}, ({"a": (1, 2)}, {"a": [1, 2]}), [1]),
        ({"a": 1}, ({"a": True}, {"a": 1.0}, {"a": "1"}), [0, 1]),
        ({"a": "x"}, ({"a": {"x", "y"}}, {"a": frozenset("y")}), [0]),
        ({"a": {"$contains": "us"}}, ({"a": "museum"}, {"a": "bread"}), [0]),
        ({"a": {"$gt": 2**60}}, ({"a": 2**60}, {"a": 2**60 + 1}), [1]),
        ({"a": {"$gt": 1}}, ({"a": 2**60}, {"a": 1}, {"a": math.inf}), [0, 2]),
        ({"a": {"$lt": "m"}}, ({"a": "a"}, {"a": "z"}, {"a": None}), [0]),
        (
            {"day": {"$gte": dt.date(2024, 1, 1)}},
            ({"day": dt.date(2024, 5, 1)}, {"day": dt.date(2023, 5, 1)}),
            [0],
        ),
        ({"a": math.nan}, ({"a": math.nan}, {"a": 1}), []),
        ({7: "x"}, ({7: "x"}, {7: "y"}), [0]),
        ({"a": np.int64(3)}, ({"a": 3}, {"a": np.float32(3)}, {"a": 4}), [0, 1]),
        (lambda one: one.get("year") == 2020, YEARS, [1]),
    ],
)
def test_each_operator_keeps_what_it_says(condition, metadata, positions):
    """Missing fields pass $ne, $nin and $exists: False alone; lists are looked into."""
    assert kept(condition, *metadata) == positions


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"a": {"$regex": "x"}}, r"'\$regex' is unknown; known are \$eq"),
        ({"$nor": [{"a": 1}]}, r"'\$nor' is unknown"),
        ({"a": {"$gte": 1, "b": 2}}, "operators alone or a value alone"),
        ({"a": {"$in": "abc"}}, r"\$in must be a list"),
        ({"a": {"$nin": 3}}, r"\$nin must be a list"),
        ({"a": {"$exists": 1}}, r"\$exists must be True or False"),
        ({"a": {"$gt": None}}, r"\$gt must have a value"),
        ({"$and": []}, r"\$and must be a non-empty list"),
        ({"$or": {"a": 1}}, r"\$or must be a list"),
        ({"$or": [1]}, r"\$or must be a non-empty list of filters"),
        ({"$not": [1]}, r"\$not must be a filter"),
        ({"a": {"$not": 3}}, r"\$not of a field must be"),
        ("a", "filter must be a dict"),
        ([("a", 1)], "filter must be a dict"),
    ],
)
def test_what_is_no_filter_is_an_error_by_name(condition, words):
    """Never an empty result."""
    with pytest.raises(InvalidInputError, match=words):
        read(condition)


def test_values_that_cannot_be_ordered_are_an_error_that_names_the_record():
    """Not a silent miss; but what a deleted record held harms nobody."""
    records = [Record("a", "text", {"year": 2020}), Record("b", "text", {"year": "2021"})]
    collection = Collection([BM25(["text", "text"])], records)
    condition = read({"year": {"$gte": 2019}})
    with pytest.raises(InvalidInputError, match="'year' of record 'b'"):
        collection.view.mask(condition)
    collection.delete(["b"])
    assert collection.view.mask(condition).tolist() == [True, False]


def test_metadata_that_cannot_be_looked_up_are_an_error_when_filtered_by():
    """Arrays do not define equality as a truth value."""
    with pytest.raises(InvalidInputError, match="'a' is or holds ndarray"):
        kept({"a": 1}, {"a": np.zeros(2)})
    assert kept({"b": 1}, {"a": np.zeros(2), "b": 1}) == [0]


def test_columns_follow_what_is_added_replaced_and_deleted():
    """The same mask as over records indexed anew, after every change."""
    texts = ["text"] * 3
    records = [Record(str(at), "text", {"n": at}) for at in range(3)]
    collection = Collection([BM25(texts)], records)
    condition = read({"n": {"$lt": 2}})

    def found():
        view = collection.view
        keys = np.flatnonzero(view.mask(condition)).tolist()
        return sorted(str(view.record(key).id) for key in keys)

    assert found() == ["0", "1"]
    collection.add([Record("1", "text", {"n": 5}), Record("3", "text", {"n": 1})])
    assert found() == ["0", "3"]
    collection.delete(["0"])
    assert found() == ["3"]
    for number in range(100):
        collection.add([Record(f"x{number}", "text", {"n": number % 4})])
    assert len(found()) == 51


VALUES = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["a", "b"]), st.booleans())
METADATA = st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2)
OPERATORS = st.sampled_from(["$eq", "$neq", "$in", "$nin"])


@st.composite
def conditions(draw, depth=2):
    """Filters that langchain-community's FAISS understands, where it has a meaning for them."""
    kind = draw(st.sampled_from(["plain", "operator", "$and", "$or", "$not"]))
    if depth == 0 or kind in ("plain", "operator"):
        field = draw(st.sampled_from(["x", "y"]))
        if kind == "plain":
            return {field: draw(VALUES.filter(lambda one: one is not None))}
        sign = draw(OPERATORS)
        value = draw(VALUES.filter(lambda one: one is not None))
        return {field: {sign: [value] if sign in ("$in", "$nin") else value}}
    inner = draw(st.lists(conditions(depth=depth - 1), min_size=1, max_size=3))
    return {kind: inner[0] if kind == "$not" else inner}


@settings(max_examples=200, deadline=None)
@given(condition=conditions(), metadata=st.lists(METADATA, min_size=1, max_size=6))
def test_agrees_with_langchain_communitys_faiss(condition, metadata):
    """On all that both understand, however nested."""
    community = pytest.importorskip("langchain_community.vectorstores.faiss")
    passes = community.FAISS._create_filter_func(condition)
    expected = [at for at, one in enumerate(metadata) if passes(one)]
    assert kept(condition, *metadata) == expected


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.one_of(st.integers(-(2**70), 2**70), st.floats()), min_size=1),
    wanted=st.one_of(st.integers(-(2**70), 2**70), st.floats()),
    sign=st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
)
def test_orders_numbers_as_python_does(values, wanted, sign):
    """Beyond what floats hold exactly, too."""
    compare = {
        "$gt": lambda a, b: a > b,
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$lte": lambda a, b: a <= b,
    }[sign]
    expected = [at for at, one in enumerate(values) if compare(one, wanted)]
    assert kept({"n": {sign: wanted}}, *({"n": one} for one in values)) == expected


def test_parts_for_adapters_combine():
    """What MetadataFilters are made of."""
    view = view_of({"a": ["x"]}, {"a": "xy"}, {"a": ""}, {})
    assert view.mask(Compare("a", "contains_any", ["x"])).tolist() == [True, True, False, False]
    assert view.mask(Compare("a", "contains_all", "xy")).tolist() == [False, True, False, False]
    assert view.mask(Compare("a", "empty")).tolist() == [False, False, True, True]
    assert view.mask(Negated(Compare("a", "exists"))).tolist() == [False, False, False, True]
    with pytest.raises(InvalidInputError, match="text"):
        view.mask(Compare("a", "text", "x"))
