"""What a BM25 index holds about single passages: to explain scores, and to check an analyzer."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import Counter
from importlib import metadata
from typing import Final

import numpy as np

from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage._bm25_view import BM25View
from rerank_plugins.first_stage._postings import Postings
from rerank_plugins.first_stage.explain import Explanation, explained

# Characters that are analysed again when an index is loaded: a tenth of a second where the
# libraries under the analyzer are the same, some seconds where one of them has changed.
_PROBED: Final = 50_000
_PROBED_AFTER_A_CHANGE: Final = 2_000_000
_LIBRARIES: Final = ("PyStemmer", "snowballstemmer", "regex")


def library_versions() -> dict[str, str]:
    """The versions that terms depend on, beside the analyzer's own."""
    found = {name: _version(name) for name in _LIBRARIES}
    return {"unicode": unicodedata.unidata_version, **{n: v for n, v in found.items() if v}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def explain_score(view: BM25View, query: str, key: int) -> Explanation:
    """The explanation of a passage's score.

    Raises:
        InvalidInputError: If the key is not in the index.
    """
    if not 0 <= key < view.size or not view.alive[key]:
        raise InvalidInputError(f"key must be in the index, but {key!r} is not")
    terms = view.query_terms(query)
    segment = _segment_of(view, key)
    row = int(np.searchsorted(segment.keys, key))
    counts = {term: (_found_in(view, term), _frequency(view, segment, row, term)) for term in terms}
    return explained(
        key,
        terms,
        counts,
        passages=len(view),
        length=int(segment.lengths[row]),
        mean_length=view.words / len(view),
        k1=view.settings.k1,
        b=view.settings.b,
    )


def check_terms(view: BM25View, written_with: dict[str, str]) -> None:
    """Checks that the analyzer still gives the terms that a loaded index holds.

    Passages all over the index are analysed again, far more of them if a library is another
    version than when the index was written.

    Raises:
        IndexMismatchError: If a passage has other terms now; names the versions that changed.
    """
    now = library_versions()
    changed = [
        f"{name} {old}, now {now.get(name, 'missing')}"
        for name, old in written_with.items()
        if now.get(name) != old
    ]
    keys = np.flatnonzero(view.alive)
    left = _PROBED_AFTER_A_CHANGE if changed else _PROBED
    for key in keys[_spread(len(keys))].tolist():
        text = view.passages.text(key)
        left -= len(text)
        if left < 0:
            return
        difference = _difference(view, key, text)
        if difference is not None:
            libraries = f" (it was written with {'; '.join(changed)})" if changed else ""
            raise IndexMismatchError(
                "the analyzer must give the terms that it gave when the index was made, but it "
                f"gives others for passage {key}, {difference!r} among them{libraries}: load the "
                "index with the analyzer and the library versions that made it, or build it again"
            )


def _difference(view: BM25View, key: int, text: str) -> str | None:
    """A term that the passage has now and had not, or more often; None if all are the same."""
    terms = view.settings.analyzer(text)
    if not view.segments:
        return terms[0] if terms else None
    segment = _segment_of(view, key)
    row = int(np.searchsorted(segment.keys, key))
    for term, tf in Counter(terms).items():
        if _frequency(view, segment, row, term) != tf:
            return term
    return None if len(terms) == segment.lengths[row] else "fewer terms"


def _spread(count: int) -> list[int]:
    """All positions, in an order whose beginning is spread over the whole: 0, 1/2, 1/4, 3/4..."""
    seen: dict[int, None] = {}
    step = 1 << max(count - 1, 0).bit_length()
    while step >= 1:
        seen.update(dict.fromkeys(range(0, count, step)))
        step //= 2
        if len(seen) * 50 > _PROBED_AFTER_A_CHANGE:  # no more can be read
            break
    return list(seen)


def _segment_of(view: BM25View, key: int) -> Postings:
    starts = [int(segment.keys[0]) for segment in view.segments]
    return view.segments[bisect_right(starts, key) - 1]


def _frequency(view: BM25View, segment: Postings, row: int, term: str) -> int:
    number = view.vocabulary.get(term)
    span = None if number is None else segment.spans([number])[0]
    if span is None:
        return 0
    place = span.start + int(np.searchsorted(segment.rows[span], row))
    if place == span.stop or segment.rows[place] != row:
        return 0
    return int(segment.pairs[segment.codes[place]] & 0xFFFFFFFF)


def _found_in(view: BM25View, term: str) -> int:
    number = view.vocabulary.get(term)
    if number is None:
        return 0
    found = 0
    for segment in view.segments:
        (span,) = segment.spans([number])
        if span is not None:
            found += int(np.count_nonzero(view.alive[segment.keys[segment.rows[span]]]))
    return found
