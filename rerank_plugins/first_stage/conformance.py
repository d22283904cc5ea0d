"""What every first stage must do, as tests that a subclass runs over its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage, StageView

PASSAGES = (
    "The museum opens at nine every morning except Monday.",
    "Le musée ouvre à neuf heures tous les matins sauf le lundi.",
    "Muzeum jest otwarte codziennie od dziewiątej oprócz poniedziałku.",
    "يفتح المتحف أبوابه في التاسعة صباحا كل يوم عدا الاثنين.",
    "Bees dance to tell the hive where flowers are.",
    "Les abeilles dansent pour dire où sont les fleurs.",
    "Pszczoły tańczą, żeby wskazać, gdzie są kwiaty.",
    "يرقص النحل ليدل الخلية على مكان الأزهار.",
    "The museum keeps a glass hive with living bees.",
    "A morning in the garden: flowers, bees and tea.",
)
QUERY = "museum bees in the morning"
ODD_TEXTS = (
    "",
    " \t\n",
    "half of a pair \ud83d alone",
    "nul \x00 inside",
    "\u202bright to left\u202c and \u200bzero width",
    "مُحَمَّدٌ رَسُولٌ",
    "٣ مارس ١٩٥٦",
    "🐝🌸 👩‍🚀",
    "Zażółć gęślą jaźń, l'été d'où, Москва 東京",
    "word " * 20_000,
)


class FirstStageConformance:
    """Subclass it in a test module, give ``make``, and pytest runs the rest.

    ``make`` must give a stage over these very texts, keys being positions.
    """

    def make(self, texts: Iterable[str]) -> FirstStage:
        """A new first stage over the texts, which may be an iterator."""
        raise NotImplementedError

    def test_follows_the_protocol_and_counts_its_passages(self) -> None:
        """It is a FirstStage, and its length is the number of texts."""
        stage = self.make(PASSAGES)
        assert isinstance(stage, FirstStage)
        assert len(stage) == len(PASSAGES)

    def test_finds_a_passage_by_its_own_words(self) -> None:
        """Each passage, asked for in its own words, comes first."""
        stage = self.make(PASSAGES)
        for key, text in enumerate(PASSAGES):
            assert stage.search(text, 3)[0].key == key

    def test_candidates_are_ordered_ranked_and_of_native_types(self) -> None:
        """Keys are positions, scores finite and falling, ranks 1, 2, 3; nothing is numpy's."""
        found = self.make(PASSAGES).search(QUERY, len(PASSAGES))
        assert found
        assert [c.rank for c in found] == list(range(1, len(found) + 1))
        assert len({c.key for c in found}) == len(found)
        for candidate in found:
            assert isinstance(candidate, Candidate)
            assert type(candidate.key) is int
            assert type(candidate.score) is float
            assert math.isfinite(candidate.score)
            assert candidate.text == PASSAGES[candidate.key]
        scores = _scores(found)
        assert scores == sorted(scores, reverse=True)

    def test_k_cuts_and_changes_nothing_else(self) -> None:
        """The best k are the first k of all; 0 returns nothing; more than all returns all."""
        stage = self.make(PASSAGES)
        everything = stage.search(QUERY, 1000)
        for k in range(len(everything) + 1):
            assert stage.search(QUERY, k) == everything[:k]

    def test_a_mask_never_leaks_and_still_fills_k(self) -> None:
        """What comes back under a mask is what matches and is allowed, for every k."""
        stage = self.make(PASSAGES)
        matching = {c.key for c in stage.search(QUERY, 1000)}
        generator = np.random.default_rng(0)
        for share in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
            mask = generator.random(len(PASSAGES)) < share
            before = mask.copy()
            allowed = matching & set(np.flatnonzero(mask).tolist())
            for k in range(len(PASSAGES) + 2):
                keys = [c.key for c in stage.search(QUERY, k, mask=mask)]
                assert set(keys) <= allowed
                assert len(keys) == min(k, len(allowed))
            assert (mask == before).all()

    def test_equal_passages_are_all_found_in_order_of_keys(self) -> None:
        """Duplicates score alike and the earlier comes first, also where k cuts among them."""
        texts = [PASSAGES[4], PASSAGES[0], PASSAGES[4], PASSAGES[3], PASSAGES[4]]
        stage = self.make(texts)
        for k in (1, 2, 3):
            assert [c.key for c in stage.search(PASSAGES[4], k)] == [0, 2, 4][:k]

    def test_an_iterator_is_read_once_and_wholly(self) -> None:
        """A generator indexes as its list does."""
        stage = self.make(text for text in PASSAGES)
        assert len(stage) == len(PASSAGES)
        assert stage.search(QUERY, 5) == self.make(list(PASSAGES)).search(QUERY, 5)

    def test_nothing_indexed_finds_nothing(self) -> None:
        """An empty corpus is fine, with and without a mask."""
        stage = self.make([])
        assert len(stage) == 0
        assert stage.search(QUERY, 5) == []
        assert stage.search(QUERY, 5, mask=np.empty(0, dtype=bool)) == []

    def test_empty_passages_do_not_hide_the_others(self) -> None:
        """A corpus with blank passages works, and so does one of nothing else."""
        stage = self.make(["", PASSAGES[0], "   ", PASSAGES[4]])
        assert stage.search(PASSAGES[4], 1)[0].key == 3
        assert len(self.make(["", ""])) == 2
        self.make(["", ""]).search(QUERY, 2)

    def test_any_text_can_be_indexed_and_asked_for(self) -> None:
        """Surrogates, NUL, bidi marks, vowelled Arabic, emoji and long passages are text."""
        texts = [*ODD_TEXTS, *PASSAGES]
        stage = self.make(texts)
        assert stage.search(PASSAGES[4], 1)[0].text == PASSAGES[4]
        for text in ODD_TEXTS:
            if text.strip():
                for candidate in stage.search(text, 3):
                    assert candidate.text == texts[candidate.key]

    def test_refuses_what_is_no_query(self) -> None:
        """A query that is blank or not text is an error."""
        stage = self.make(PASSAGES)
        _refused(stage, "query", query="", k=3)
        _refused(stage, "query", query=" \n", k=3)
        _refused(stage, "query", query=None, k=3)
        _refused(stage, "query", query=b"bees", k=3)

    def test_refuses_what_is_no_count(self) -> None:
        """K is a whole number of at least 0."""
        stage = self.make(PASSAGES)
        for k in (-1, 1.5, "3", None, True):
            _refused(stage, "k must", query=QUERY, k=k)

    def test_refuses_a_mask_that_does_not_fit(self) -> None:
        """A mask has one boolean a key; integers, lists of keys and other lengths are errors."""
        stage = self.make(PASSAGES)
        for mask in (
            np.ones(len(PASSAGES) - 1, dtype=bool),
            np.ones(len(PASSAGES) + 1, dtype=bool),
            np.ones(len(PASSAGES), dtype=np.int64),
            np.ones((len(PASSAGES), 1), dtype=bool),
        ):
            _refused(stage, "mask", query=QUERY, k=3, mask=mask)

    def test_refuses_what_is_no_text(self) -> None:
        """The error names the position of a non-string element; a single string is refused."""
        import pytest

        for texts in (["fine", None], ["fine", 3], ["fine", b"bytes"]):
            with pytest.raises(InvalidInputError, match="number 1"):
                self.make(texts)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="list"):
            self.make("one string")

    def test_threads_get_what_one_caller_gets(self) -> None:
        """Searches from many threads give the answers of one."""
        stage = self.make(PASSAGES)
        queries = [*PASSAGES, QUERY] * 8
        alone = [stage.search(query, 5) for query in queries]
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda query: stage.search(query, 5), queries)) == alone


class StoredStageConformance:
    """For first stages that can change and be stored: subclass it, give ``make`` and ``load``."""

    def make(self, texts: Iterable[str]) -> Any:
        """A new first stage over the texts."""
        raise NotImplementedError

    def load(self, path: Any) -> Any:
        """The stage that was saved there, with the encoder or analyzer that ``make`` uses."""
        raise NotImplementedError

    def same(self, one: Any, other: Any) -> None:
        """Both find the same, with the same scores, for every passage as query."""
        assert len(one) == len(other)
        assert one.keys_given == other.keys_given
        for text in (*PASSAGES, QUERY):
            assert one.search(text, 20) == other.search(text, 20)

    def test_a_loaded_index_is_the_saved_one(self, tmp_path: Any) -> None:
        """Texts of every kind, keys and scores come back; a second save and load too."""
        stage = self.make([*PASSAGES, *ODD_TEXTS])
        for _ in range(2):
            stage.save(tmp_path / "index")
            loaded = self.load(tmp_path / "index")
            self.same(loaded, stage)
            for text in ODD_TEXTS:
                if text.strip():
                    assert loaded.search(text, 3) == stage.search(text, 3)
            stage = loaded

    def test_nothing_indexed_can_be_saved(self, tmp_path: Any) -> None:
        """An empty index comes back empty, and takes passages."""
        self.make([]).save(tmp_path / "index")
        loaded = self.load(tmp_path / "index")
        assert len(loaded) == 0
        assert loaded.search(QUERY, 3) == []
        loaded.add(PASSAGES)
        self.same(loaded, self.make(PASSAGES))

    def test_a_loaded_index_takes_additions_and_removals(self, tmp_path: Any) -> None:
        """It then is what one that was never stored would be, and can be stored again."""
        stage, twin = self.make(PASSAGES[:6]), self.make(PASSAGES[:6])
        stage.save(tmp_path / "index")
        loaded = self.load(tmp_path / "index")
        for one in (loaded, twin):
            assert one.add(PASSAGES[6:9]) == [6, 7, 8]
            one.remove([0, 7])
            assert one.add(PASSAGES[9:]) == [9]
        self.same(loaded, twin)
        loaded.save(tmp_path / "index")
        self.same(self.load(tmp_path / "index"), twin)

    def test_what_is_removed_is_as_if_it_had_never_been(self) -> None:
        """The others keep keys and texts, and score as in an index without the removed ones."""
        stage, fresh = self.make(PASSAGES), self.make(PASSAGES[2:])
        stage.remove([0, 1])
        for text in (*PASSAGES, QUERY):
            found, expected = stage.search(text, 20), fresh.search(text, 20)
            assert [one.text for one in found] == [one.text for one in expected]
            assert [one.key - 2 for one in found] == [one.key for one in expected]
            for one, other in zip(found, expected, strict=True):
                assert math.isclose(one.score, other.score, rel_tol=1e-6, abs_tol=1e-6)

    def test_an_unknown_key_cannot_be_removed(self) -> None:
        """It is named, and nothing is removed."""
        import pytest

        stage = self.make(PASSAGES)
        with pytest.raises(InvalidInputError, match="99"):
            stage.remove([1, 99])
        assert len(stage) == len(PASSAGES)

    def test_it_pickles_and_copies(self) -> None:
        """A copy finds the same, and from then on changes by itself."""
        import copy
        import pickle

        stage = self.make(PASSAGES)
        stage.remove([1])
        pickled = pickle.loads(pickle.dumps(stage))  # noqa: S301  (our own)
        for other in (pickled, copy.deepcopy(stage), copy.copy(stage)):
            self.same(other, stage)
            before = len(stage)
            assert other.add(["passing museum bees"]) == [len(PASSAGES)]
            other.remove([0])
            assert (len(other), len(stage)) == (before, before)
            assert all(one.key < len(PASSAGES) for one in stage.search("passing museum", 20))

    def test_a_view_stays_as_it_was(self) -> None:
        """Changes make other views, of the stage and of the view itself, and leave it alone."""
        stage = self.make(PASSAGES)
        view: StageView = stage.view
        assert isinstance(view, StageView)
        before = [view.search(text, 20) for text in PASSAGES]
        stage.remove([2, 5])
        stage.add(["passing museum bees"])
        one, other = view.with_added(["one bee"]), view.with_added(["other museum", "third bee"])
        less = view.with_removed([0])
        assert [view.search(text, 20) for text in PASSAGES] == before
        assert (view.size, int(view.alive.sum()), len(view)) == (len(PASSAGES),) * 3
        assert (one.size, other.size, less.size) == (
            len(PASSAGES) + 1,
            len(PASSAGES) + 2,
            len(PASSAGES),
        )
        assert [c.text for c in one.search("one bee", 1)] == ["one bee"]
        assert "one bee" not in [c.text for c in other.search("one bee", 20)]
        assert not less.alive[0]
        assert 0 not in [c.key for c in less.search(PASSAGES[0], 20)]
        self.same(stage.at(view), self.make(PASSAGES))

    def test_threads_see_all_of_a_change_or_nothing(self) -> None:
        """Searches beside additions and removals find the fixed passages and whole additions."""
        stage = self.make(PASSAGES)
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                stage.remove(stage.add(["passing museum bees", "passing bees museum"]))
                stop.wait(0.005)  # writers go first: without a pause, readers would wait long

        writer = threading.Thread(target=change)
        writer.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(lambda _: stage.search("passing museum", 20), range(60)))
        finally:
            stop.set()
            writer.join()
        for found in results:
            passing = [one for one in found if one.text.startswith("passing")]
            assert len(passing) in (0, 2)


def _scores(found: list[Candidate]) -> list[float]:
    return [c.score for c in found if c.score is not None]


def _refused(stage: FirstStage, match: str, **arguments: Any) -> None:
    import pytest

    with pytest.raises(InvalidInputError, match=match):
        stage.search(**arguments)
