"""Collections: changes, snapshots, copies, pickles, interrupts."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from machines import SETTINGS, CollectionMachine

from rerank_plugins.collection import Collection, Compare, Record, check_id, own
from rerank_plugins.collection.records import LONGEST_ID
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import BM25, Dense


def record(name, text="museum", **metadata):
    """One with little in it."""
    return Record(name, text, metadata)


def collection_of(*records):
    """Over words."""
    return Collection([BM25([one.text for one in records], language="en")], records)


def ids(collection):
    """Of the living, in order."""
    return [one.id for one in collection.view]


class CoreMachine(CollectionMachine):
    """The core's own door."""

    def __init__(self):
        self.collection = Collection([BM25((), language="en")])
        super().__init__()

    def add(self, items):
        """As the class asks."""
        self.collection.add(Record(name, text, {"source": source}) for name, text, source in items)

    def delete(self, ids):
        """As the class asks."""
        self.collection.delete(ids)

    def delete_source(self, source):
        """As the class asks."""
        self.collection.delete_where(Compare("source", "eq", source))

    def search(self, query, source):
        """As the class asks."""
        kept = None if source is None else Compare("source", "eq", source)
        return [
            (one.id, one.text, one.metadata["source"], found.score)
            for one, found in self.collection.view.search(query, 100, kept)
        ]


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = SETTINGS


def test_a_view_stays_what_it_was():
    """Whatever is done to the collection afterwards."""
    collection = collection_of(record("a"), record("b", "bread"))
    before = collection.view
    collection.add([record("a", "river"), record("c")])
    collection.delete(["b"])
    assert [one.id for one in before] == ["a", "b"]
    assert [one.id for one, _ in before.search("museum", 9)] == ["a"]
    assert ids(collection) == ["a", "c"]
    assert [one.id for one, _ in collection.view.search("museum", 9)] == ["c"]


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies_and_pickles_go_their_own_ways(make):
    """They hold what the original held, and share no later change with it."""
    first = collection_of(record("a"), record("b"))
    second = make(first)
    first.add([record("c")])
    second.add([record("d")])
    second.delete(["a"])
    assert ids(first) == ["a", "b", "c"]
    assert ids(second) == ["b", "d"]
    for one in (first, second):
        assert {hit.id for hit, _ in one.view.search("museum", 9)} == set(ids(one))


def test_of_several_with_one_id_the_last_counts():
    """In the list that a collection is made of, too; records without an id stay apart."""
    records = [record("a", "one"), record(None, "two"), record("a", "three"), record(None, "two")]
    collection = Collection([BM25(())], records)
    assert [one.text for one in collection.view] == ["two", "three", "two"]


def test_stages_must_fit_the_records_and_each_other():
    """Before anything is searched."""
    with pytest.raises(InvalidInputError, match="2 passages for 1 records"):
        Collection([BM25(["x", "y"])], [record("a")])
    with pytest.raises(InvalidInputError, match="same keys"):
        Collection([BM25(["x", "y"]), BM25(["x"])], [record("a"), record("b")])


def test_a_ready_stage_may_have_lost_passages():
    """Records are then those of the living keys."""
    stage = BM25(["museum one", "museum two", "museum three"])
    stage.remove([1])
    collection = Collection([stage], [record("a", "museum one"), record("c", "museum three")])
    assert {one.id for one, _ in collection.view.search("museum", 9)} == {"a", "c"}
    assert collection.view.key("c") == 2


def test_all_stages_see_a_change_at_once():
    """A view's stages have the same keys."""
    texts = ["museum one", "bread two"]
    records = [record(str(at), text) for at, text in enumerate(texts)]
    collection = Collection([BM25(texts), Dense(texts)], records)
    collection.add([record("2", "museum three")])
    collection.delete(["0"])
    for stage in (0, 1):
        found = collection.view.search("museum", 9, stage=stage)
        assert "2" in {one.id for one, _ in found}
        assert "0" not in {one.id for one, _ in found}


def test_hidden_records_are_listed_and_deleted_but_never_found():
    """Images without text, say."""
    hidden = Record("h", "", {"source": "a"}, hidden=True)
    collection = Collection([Dense((), embed=lambda texts: np.ones((len(texts), 3)))])
    collection.add([record("a", "text", source="a"), hidden])
    assert [one.id for one, _ in collection.view.search("museum", 9)] == ["a"]
    assert ids(collection) == ["a", "h"]
    collection.delete_where(Compare("source", "eq", "a"))
    assert ids(collection) == []


def test_what_fails_changes_nothing():
    """An interrupt between two stages leaves the old records and the old stages."""

    class Stops(Dense):
        armed = False

        def __len__(self):
            return super().__len__()

    def embed(texts):
        if Stops.armed:
            raise KeyboardInterrupt
        return np.ones((len(texts), 3))

    collection = Collection([BM25(["museum"]), Stops(["museum"], embed=embed)], [record("a")])
    Stops.armed = True
    with pytest.raises(KeyboardInterrupt):
        collection.add([record("a", "bread"), record("b")])
    Stops.armed = False
    assert ids(collection) == ["a"]
    assert [one.id for one, _ in collection.view.search("museum", 9)] == ["a"]
    collection.add([record("b")])
    assert ids(collection) == ["a", "b"]


def test_writers_wait_for_each_other():
    """No addition is lost, whoever swaps last."""
    collection = collection_of()
    threads = [
        threading.Thread(
            target=lambda n=number: [collection.add([record(f"{n}-{at}")]) for at in range(20)]
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(collection)) == sorted(f"{n}-{at}" for n in range(4) for at in range(20))


def test_dropped_records_are_let_go_of():
    """A collection whose records are replaced again and again does not keep them all."""
    collection = collection_of(*(record(str(at)) for at in range(50)))
    for _ in range(20):
        collection.add([record(str(at)) for at in range(50)])
    held = sum(one is not None for block in collection.view.blocks for one in block.records)
    assert held <= 150
    assert len(collection) == 50


@pytest.mark.parametrize("bad", ["", "x" * (LONGEST_ID + 1), "\ud800", None, True, 1.5, b"a"])
def test_an_id_is_text_of_some_length_that_can_be_written(bad):
    """Others are refused at the door."""
    with pytest.raises(InvalidInputError, match="every id must"):
        check_id(bad)


def test_a_whole_number_is_an_id_by_its_digits():
    """It goes in, is found and is deleted as the same."""
    assert check_id(7) == "7"
    collection = collection_of(record("7"))
    collection.delete([7])
    assert ids(collection) == []
    with pytest.raises(InvalidInputError, match="must be a list"):
        collection.delete("7")


def test_metadata_that_cannot_be_copied_is_an_error():
    """A lock, say: what comes back must be the caller's own."""
    assert own({"a": [1, {"b": (2,)}]}) == {"a": [1, {"b": (2,)}]}
    with pytest.raises(InvalidInputError, match="can be copied"):
        own({"lock": threading.Lock()})


def test_vectors_that_records_bring_are_not_computed_again():
    """Not one text is embedded, and a search by vector finds the record whose it is."""
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    dense = Dense(embed=embed)
    collection = Collection([dense])
    vectors = np.eye(2, dtype=np.float32)
    collection.add(
        Record(f"{at}", f"text {at}", {}, vector=vectors[at : at + 1]) for at in range(2)
    )
    assert asked == []
    assert [found.key for found in dense_of(collection).view.search_by_vector(vectors[1], 1)] == [1]


def dense_of(collection):
    """The stage of vectors, as it is now."""
    return collection.view.stages[0]
