"""BM25 at one moment: passages, and the segments of postings that they are counted in."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._lazy import lazy
from rerank_plugins._progress import progress
from rerank_plugins._telemetry import traced_search, traced_survey
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.first_stage._checks import check_mask, check_texts, key_list
from rerank_plugins.first_stage._merging import REMOVED, merge_from
from rerank_plugins.first_stage._okapi import Okapi
from rerank_plugins.first_stage._passages import Passages
from rerank_plugins.first_stage._postings import Postings, Vocabulary, built, merged
from rerank_plugins.first_stage.base import Survey
from rerank_plugins.ordering import descending

# Fewer postings than one for so many passages are sorted; more are summed into an array of all.
_SPARSE: Final = 24

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
class BM25View:
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

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def __len__(self) -> int:
        return self.passages.count

    @property
    def size(self) -> int:
        """Keys ever given."""
        return self.passages.size

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): the keys that are not removed."""
        return self.passages.alive

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
        return self._asked(query, k, mask)[0]

    @traced_survey
    def survey(self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None) -> Survey:
        """As ``search``, with mean and deviation over all passages; others than matches have 0.

        Raises:
            InvalidInputError: If the query, ``k`` or the mask is invalid.
        """
        candidates, keys, scores = self._asked(query, k, mask)
        mean = float(scores.sum()) / max(len(self), 1)
        square = float(np.square(scores).sum()) / max(len(self), 1)

        def of(asked: NDArray[np.int64]) -> NDArray[np.float64]:
            places = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
            if not len(keys):
                return np.zeros(len(asked))
            return np.where(keys[places] == asked, scores[places], 0.0)

        return Survey(candidates, mean, math.sqrt(max(square - mean * mean, 0.0)), of)

    def idf(self, term: str) -> float:
        """Lucene's ln(1 + (N - n + .5) / (n + .5)) over the passages that are alive."""
        number = self.vocabulary.get(term)
        return self._idf(0 if number is None else self._found([number])[0][0])

    def _asked(
        self, query: str, k: int, mask: NDArray[np.bool_] | None
    ) -> tuple[list[Candidate], NDArray[np.int64], NDArray[np.float64]]:
        """The candidates, and the keys and scores of all matches."""
        query = check_query(query)
        k = check_count("k", k)
        mask = check_mask(mask, self.size)
        terms = self.settings.query_terms(query)
        numbers = [self.vocabulary[term] for term in terms if term in self.vocabulary]
        keys, scores = self._matches(numbers)
        found, values = keys, scores
        if mask is not None:
            allowed = mask[keys]
            found, values = keys[allowed], scores[allowed]
        candidates = [
            Candidate(key, self.passages.text(key), float(values[at]), rank)
            for rank, at in enumerate(descending(values, k), start=1)
            for key in (int(found[at]),)
        ]
        return candidates, keys, scores

    def _matches(self, numbers: Sequence[int]) -> Matches:
        nothing = np.empty(0, dtype=np.int64), np.empty(0)
        if not numbers or not self.words:
            return nothing
        if self.settings.engine == "rank-bm25":
            return self._okapi.match(numbers)
        times = Counter(numbers)  # in the order of first occurrence
        found_in, spans = self._found(list(times))
        idf = [self._idf(n) * often for n, often in zip(found_in, times.values(), strict=True)]
        parts = [self._scored(at, here, idf) for at, here in enumerate(spans)]
        keys, scores = zip(*parts, strict=True)
        return np.concatenate(keys), np.concatenate(scores)

    def _scored(self, at: int, spans: Sequence[slice | None], idf: Sequence[float]) -> Matches:
        """The matches of one segment."""
        segment = self.segments[at]
        some = [(span, weight) for span, weight in zip(spans, idf, strict=True) if span is not None]
        if not some:
            return np.empty(0, dtype=np.int64), np.empty(0)
        rows = np.concatenate([segment.rows[span] for span, _ in some])
        scores = self._impacts[at][np.concatenate([segment.codes[span] for span, _ in some])]
        scores *= np.repeat([w for _, w in some], [span.stop - span.start for span, _ in some])
        # Both ways add a passage's parts in the order of the query's terms.
        if len(rows) * _SPARSE < len(segment):
            order = np.argsort(rows, kind="stable")
            rows = rows[order]
            first = np.diff(rows, prepend=-1) > 0
            found, sums = rows[first], np.bincount(np.cumsum(first) - 1, weights=scores[order])
        else:
            matched = np.zeros(len(segment), dtype=np.bool_)
            matched[rows] = True
            found = np.flatnonzero(matched)  # far quicker for booleans than for the sums
            sums = np.bincount(rows, weights=scores, minlength=len(segment))[found]
        kept = self._kept(at)
        if kept is not None:
            stays = kept[found]
            found, sums = found[stays], sums[stays]
        return segment.keys[found], np.asarray(sums, dtype=np.float64)

    def _found(self, numbers: Sequence[int]) -> tuple[list[int], list[list[slice | None]]]:
        """How many passages that are alive have each term; where its postings are, by segment."""
        counts = [0] * len(numbers)
        spans = [segment.spans(numbers) for segment in self.segments]
        for at, (segment, here) in enumerate(zip(self.segments, spans, strict=True)):
            kept = self._kept(at)
            for place, span in enumerate(here):
                if span is not None and kept is None:
                    counts[place] += span.stop - span.start
                elif span is not None and kept is not None:
                    counts[place] += int(np.count_nonzero(kept[segment.rows[span]]))
        return counts, spans

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
