"""A machine that changes a collection through some door, with readers beside the writer."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rerank_plugins.first_stage import BM25

WORDS = ("museum", "opens", "nine", "bread", "river", "tram", "night", "old")
IDS = st.integers(0, 30).map(str)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
SOURCES = st.sampled_from(["a", "b", "c"])
QUERIES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)

LONG = os.environ.get("RERANK_PLUGINS_LONG_TESTS") == "1"
# Shrinking runs the readers again and again: a failure is told as it was found.
SETTINGS = settings(
    max_examples=30 if LONG else 6,
    stateful_step_count=100 if LONG else 50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


class CollectionMachine(RuleBasedStateMachine):
    """What a door to a collection does, beside a dict that does the same.

    Every passage carries its source as its last word, so that a reader can see whether text and
    metadata belong together. A subclass writes the four methods of a door.
    """

    def add(self, items):
        """Adds (id, text, source) triples."""
        raise NotImplementedError

    def delete(self, ids):
        """Deletes by id."""
        raise NotImplementedError

    def delete_source(self, source):
        """Deletes by the source in the metadata."""
        raise NotImplementedError

    def search(self, query, source):
        """(id, text, source, score) of what is found, best first; all sources when None."""
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.held = {}
        self.problems = []
        self.done = threading.Event()
        self.readers = [threading.Thread(target=self._read, args=(n,)) for n in range(4)]
        for reader in self.readers:
            reader.start()

    def _read(self, number):
        """Searches for as long as the machine runs; what is found must be whole."""
        try:
            while not self.done.is_set():
                source = "abc"[number] if number < 3 else None
                for _, text, of, _ in self.search("museum opens nine", source):
                    if text.split()[-1] != of or (source is not None and of != source):
                        self.problems.append((text, of, source))
        except BaseException as error:
            self.problems.append(error)

    def teardown(self):
        """No reader met half a change."""
        self.done.set()
        for reader in self.readers:
            reader.join()
        assert self.problems == []

    @rule(items=st.lists(st.tuples(IDS, TEXTS, SOURCES), min_size=1, max_size=4))
    def adds(self, items):
        """New ids, known ones, and ids twice in one list."""
        whole = [(name, f"{text} {source}", source) for name, text, source in items]
        self.add(whole)
        for name, *_ in whole:
            self.held.pop(name, None)
        last = {name: at for at, (name, *_) in enumerate(whole)}
        self.held |= {
            name: (text, source)
            for at, (name, text, source) in enumerate(whole)
            if last[name] == at
        }

    @rule(ids=st.lists(IDS, max_size=3))
    def deletes(self, ids):
        """Known ids and unknown ones."""
        self.delete(ids)
        for name in ids:
            self.held.pop(name, None)

    @rule(source=SOURCES)
    def deletes_by_source(self, source):
        """All of one source."""
        self.delete_source(source)
        self.held = {name: one for name, one in self.held.items() if one[1] != source}

    @rule(query=QUERIES, source=st.none() | SOURCES)
    def searches(self, query, source):
        """Scores, order and ties are those of an index built anew."""
        names = list(self.held)
        fresh = BM25([text for text, _ in self.held.values()], language="en")
        mask = np.array([source in (None, of) for _, of in self.held.values()], dtype=bool)
        expected = fresh.search(query, 100, mask=mask)
        found = self.search(query, source)
        assert [name for name, *_ in found] == [names[one.key] for one in expected]
        assert [score for *_, score in found] == pytest.approx(
            [one.score for one in expected], abs=1e-9
        )

    @invariant()
    def readers_are_well(self):
        """As soon as one is not, the steps that led there are known."""
        assert self.problems == []
