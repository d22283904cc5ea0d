"""BM25 at one moment: passages, and the segments of postings that they are counted in."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._lazy import lazy
from rerank_plugins._progress import progress
from rerank_plugins._telemetry import traced_search, traced_survey
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.first_stage._bm25_scores import Scores
from rerank_plugins.first_stage._checks import check_mask, check_texts, key_list
from rerank_plugins.first_stage._merging import REMOVED, merge_from
from rerank_plugins.first_stage._okapi import Okapi
from rerank_plugins.first_stage._passages import Passages, PassagesView
from rerank_plugins.first_stage._postings import Occurrences, Postings, Vocabulary, built, merged
from rerank_plugins.first_stage.base import Survey

Matches = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Ascending keys, shape (m,), and their scores."""


@dataclass(frozen=True, eq=False)
class BM25Settings:
    """What does not change with the passages."""

    analyzer: Callable[[str], Sequence[str]]
    engine: str
    k1: float
    b: float

    @property
    def query_terms(self) -> Callable[[str], Sequence[str]]:
        """Reads a query."""
        terms: Callable[[str], Sequence[str]] = getattr(self.analyzer, "query", self.analyzer)
        return terms


@dataclass(frozen=True, eq=False)
class BM25View(PassagesView):
    """An immutable BM25 index, as `rerank_plugins.first_stage.base.StageView` asks.

    Scores are computed from the view's own counts: the number of its passages, how many of them
    have a term, and their mean length. Removed passages count in none of these. The sums of a
    passage go in the order of the query's terms, so that its score has the same bits whatever
    segments hold the passages, and ties stay ties.

    Attributes:
        settings: Analyzer, engine and parameters.
        passages: The texts by key.
        vocabulary: Shared with other views; see `Vocabulary`.
        segments: In the order of keys.
        removed: For each segment, how many of its passages are not alive.
        words: Terms in all passages that are alive.
    """

    settings: BM25Settings
    passages: Passages = field(default_factory=Passages)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    segments: tuple[Postings, ...] = ()
    removed: tuple[int, ...] = ()
    words: int = 0

    def with_added(self, texts: Sequence[str]) -> BM25View:
        """A view with these texts too.

        Raises:
            InvalidInputError: If a text is not a string.
        """
        listed = check_texts(texts)
        if not listed:
            return self
        analyzed = progress(listed, desc="Analyzing", unit=" passages", delay=1)
        new = built(map(self.settings.analyzer, analyzed), self.size, self.vocabulary)
        grown = replace(
            self,
            passages=self.passages.with_added(listed),
            segments=(*self.segments, new),
            removed=(*self.removed, 0),
            words=self.words + int(new.lengths.sum()),
        )
        return grown.with_merged(merge_from(list(map(len, grown.segments))))

    def with_removed(self, keys: Iterable[int]) -> BM25View:
        """A view without these passages.

        Raises:
            InvalidInputError: If a key is not in the index.
        """
        listed = key_list(keys)
        self.passages.check(listed)
        if not listed:
            return self
        removed, words = list(self.removed), self.words
        starts = [int(segment.keys[0]) for segment in self.segments]
        for key in listed:
            at = bisect_right(starts, key) - 1
            removed[at] += 1
            segment = self.segments[at]
            words -= int(segment.lengths[np.searchsorted(segment.keys, key)])
        view = replace(
            self,
            passages=self.passages.with_removed(listed),
            removed=tuple(removed),
            words=words,
        )
        for at in reversed(range(len(removed))):
            if removed[at] * REMOVED > len(self.segments[at]):
                view = view.with_merged(at, at + 1)
        return view

    def with_merged(self, start: int = 0, stop: int | None = None) -> BM25View:
        """The same passages, with some of the segments as one, or none if nothing is left."""
        chosen = range(len(self.segments))[start:stop]
        parts = [
            self.segments[at] if kept is None else self.segments[at].only(kept)
            for at in chosen
            if (kept := self._kept(at)) is None or kept.any()
        ]
        if len(chosen) == 1 and parts and parts[0] is self.segments[chosen.start]:
            return self
        whole = (merged(parts),) if parts else ()
        view = replace(
            self,
            segments=(*self.segments[:start], *whole, *self.segments[chosen.stop :]),
            removed=(*self.removed[:start], *(0 for _ in whole), *self.removed[chosen.stop :]),
        )
        # Terms that only removed passages had would fill the memory of a long-lived index.
        if len(view.segments) == 1 and len(self.vocabulary) > 2 * len(view.segments[0].terms):
            return view.with_own_vocabulary()
        return view

    def with_own_vocabulary(self) -> BM25View:
        """This view of at most one segment, with a vocabulary of no other terms than it has."""
        if not self.segments:
            return replace(self, vocabulary=Vocabulary())
        (segment,) = self.segments
        used = set(segment.terms.tolist())
        words = {number: word for word, number in dict(self.vocabulary).items() if number in used}
        numbered = ((words[number], new) for new, number in enumerate(segment.terms.tolist()))
        terms = np.arange(len(segment.terms), dtype=np.int32)
        return replace(
            self, vocabulary=Vocabulary(numbered), segments=(replace(segment, terms=terms),)
        )

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates that share a term with the query, best first.

        Raises:
            InvalidInputError: If the query, ``k`` or the mask is invalid.
        """
        numbers, k, mask = self._read(query, k, mask)
        return self._candidates(*self._matches(numbers, k, mask), k)

    @traced_survey
    def survey(self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None) -> Survey:
        """As ``search``, with mean and deviation over all passages; others than matches have 0.

        Raises:
            InvalidInputError: If the query, ``k`` or the mask is invalid.
        """
        numbers, k, mask = self._read(query, k, mask)
        keys, scores = self._matches(numbers)
        allowed = slice(None) if mask is None else mask[keys]
        mean = float(scores.sum()) / max(len(self), 1)
        square = float(np.square(scores).sum()) / max(len(self), 1)

        def of(asked: NDArray[np.int64]) -> NDArray[np.float64]:
            places = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
            if not len(keys):
                return np.zeros(len(asked))
            return np.where(keys[places] == asked, scores[places], 0.0)

        candidates = self._candidates(keys[allowed], scores[allowed], k)
        return Survey(candidates, mean, math.sqrt(max(square - mean * mean, 0.0)), of)

    def idf(self, term: str) -> float:
        """Lucene's ln(1 + (N - n + .5) / (n + .5)) over the passages that are alive."""
        number = self.vocabulary.get(term)
        return self._idf(0 if number is None else int(self._found([number])[1][0]))

    def _read(
        self, query: str, k: int, mask: NDArray[np.bool_] | None
    ) -> tuple[list[int], int, NDArray[np.bool_] | None]:
        """The query's terms that the vocabulary has, and the arguments once they are checked."""
        query, k, mask = check_query(query), check_count("k", k), check_mask(mask, self.size)
        terms = self.query_terms(query)
        return [self.vocabulary[term] for term in terms if term in self.vocabulary], k, mask

    def query_terms(self, query: str) -> list[str]:
        """The terms of a query; where a word of it is in no passage, also what it falls back to."""
        terms = list(self.settings.query_terms(query))
        fallbacks: Callable[[str, Callable[[str], bool]], list[str]] | None = getattr(
            self.settings.analyzer, "fallbacks", None
        )
        if fallbacks is None or len(known := self._known(terms)) == len(set(terms)):
            return terms

        def has(term: str) -> bool:
            return term in known or bool(self._known([term]))

        return terms + fallbacks(query, has)

    def _known(self, terms: Iterable[str]) -> set[str]:
        """Those of the terms that a passage which is alive has."""
        numbers = {term: self.vocabulary[term] for term in terms if term in self.vocabulary}
        known: set[str] = set()
        for at, segment in enumerate(self.segments if numbers else ()):
            kept = self._kept(at)
            for term, span in zip(numbers, segment.spans(list(numbers.values())), strict=True):
                if span is not None and (kept is None or kept[segment.rows[span]].any()):
                    known.add(term)
        return known

    def _matches(
        self, numbers: list[int], k: int | None = None, mask: NDArray[np.bool_] | None = None
    ) -> Matches:
        """All that match; with ``k``, those of the mask, of which only the best are needed."""
        nothing = np.empty(0, dtype=np.int64), np.empty(0)
        if not numbers or not self.words or k == 0:
            return nothing
        if self.settings.engine == "rank-bm25":
            keys, sums = self._okapi.match(numbers)
            kept = self._allowed(keys, mask)
            return keys[kept], sums[kept]
        scores = self._scores(numbers)
        if scores is None:
            return nothing
        if k is None:
            places, sums = scores.all()
        else:
            places, sums = scores.best(k, lambda at: self._allowed(self._keys_at(at), mask))
        keys = self._keys_at(places)
        kept = self._allowed(keys, mask)
        return keys[kept], sums[kept]

    def _scores(self, numbers: list[int]) -> Scores | None:
        """What each posting of the terms gives; None if there are none."""
        times = Counter(numbers)  # in the order of first occurrence
        found, counts = self._found(list(times))
        if not found:
            return None
        pairs = zip(counts.tolist(), times.values(), strict=True)
        idf = np.asarray([self._idf(n) * often for n, often in pairs])
        return Scores.of(
            (
                (
                    one.rows + self._starts[at],
                    self._impacts[at][one.codes] * np.repeat(idf[one.terms], one.lengths),
                    one.lengths,
                )
                for at, one in found
            ),
            self._starts[-1],
        )

    def _found(
        self, numbers: Sequence[int]
    ) -> tuple[list[tuple[int, Occurrences]], NDArray[np.int64]]:
        """The terms' postings by segment, and how many passages that are alive have each."""
        found = [
            (at, one)
            for at, segment in enumerate(self.segments)
            if (one := segment.occurrences(numbers)) is not None
        ]
        counts = np.zeros(len(numbers), dtype=np.int64)
        for at, one in found:
            counts[one.terms] += one.found_in(self._kept(at))
        return found, counts

    @lazy
    def _starts(self) -> list[int]:
        """The place where each segment starts, and how many places there are."""
        return list(accumulate(map(len, self.segments), initial=0))

    def _keys_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The keys at ascending places."""
        cuts = np.searchsorted(places, self._starts).tolist()
        keys = [
            segment.keys[places[first:last] - start]
            for segment, start, (first, last) in zip(
                self.segments, self._starts, pairwise(cuts), strict=False
            )
            if first < last
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *keys]) if len(keys) != 1 else keys[0]

    def _allowed(
        self, keys: NDArray[np.int64], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        """Which of the keys are alive and in the mask."""
        alive = self.alive[keys]
        return alive if mask is None else alive & mask[keys]

    def _idf(self, found_in: int) -> float:
        return math.log1p((len(self) - found_in + 0.5) / (found_in + 0.5))

    def _kept(self, at: int) -> NDArray[np.bool_] | None:
        """Which rows of a segment are alive; None for all."""
        if not self.removed[at]:
            return None
        kept = self._alive_rows.get(at)
        if kept is None:
            keys = self.segments[at].keys
            first, last = int(keys[0]), int(keys[-1])
            kept = self.passages.alive_between(first, last)
            if len(kept) > len(keys):
                kept = kept[keys - first]
            self._alive_rows[at] = kept
        return kept

    @lazy
    def _alive_rows(self) -> dict[int, NDArray[np.bool_]]:
        return {}

    @lazy
    def _impacts(self) -> list[NDArray[np.float64]]:
        mean, told = self.words / len(self), self.settings
        return [segment.impacts(mean, told.k1, told.b) for segment in self.segments]

    @lazy
    def _okapi(self) -> Okapi:
        parts = [
            segment if (kept := self._kept(at)) is None else segment.only(kept)
            for at, segment in enumerate(self.segments)
        ]
        return Okapi(merged(parts), k1=self.settings.k1, b=self.settings.b)
