"""BM25 (Okapi) over analysed text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins._validation import check_choice, is_number
from rerank_plugins.candidates import check_query
from rerank_plugins.errors import IndexDamagedError, IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._bm25_view import BM25Settings, BM25View
from rerank_plugins.first_stage._checks import check_texts
from rerank_plugins.first_stage._holder import Holder
from rerank_plugins.first_stage._index_terms import check_terms, explain_score, library_versions
from rerank_plugins.first_stage._passages import Passages
from rerank_plugins.first_stage._postings import Postings, Vocabulary
from rerank_plugins.first_stage.analysis import Analyzer, analyzer_for
from rerank_plugins.first_stage.explain import Explanation

ENGINES: Final = ("auto", "rank-bm25", "bm25s")
"""What ``BM25(engine=...)`` takes; ``bm25s`` is an older name of ``auto``."""

# How many passages a stored index is tried on, to see that the analyzer is still the same.
_PROBES: Final = 16
_CHECKED_TOGETHER: Final = 1 << 22


class BM25(Holder[BM25View]):
    """Keyword search: a first stage over BM25 scores.

    The score is Okapi's with Lucene's idf, ln(1 + (N - n + .5) / (n + .5)), which is always
    positive, for N passages of which n have the term. A passage that shares no term with the
    query never comes back, so fewer than ``k`` may.

    Any number of threads may search, add and remove; a search sees all of a change or none of
    it. Scores are computed when searching, from the passages that are there, so a change costs
    what it changes, and the scores after it are those of an index built anew.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        *,
        language: str = "auto",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        engine: str = "auto",
        k1: float = 1.5,
        b: float = 0.75,
    ) -> None:
        """Indexes the texts; a text's key is its position.

        Args:
            texts: Passages; an iterator is read once. Empty ones are kept and never found.
            language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
            analyzer: Text to terms, in place of the language's; a ``query`` method beside the
                call, if it has one, reads the queries.
            engine: ``auto``; or ``rank-bm25``, which gives the same scores by that library,
                slowly: it builds its index anew for the first search after a change.
            k1: How fast repeats of a term stop counting; above 0. Default: rank-bm25's.
            b: How much long passages are held back, in [0, 1]. Default: rank-bm25's.

        Raises:
            InvalidInputError: If an argument is invalid.
        """
        check_choice("engine", engine, ENGINES)
        if not is_number(k1) or k1 <= 0:
            raise InvalidInputError(f"k1 must be a finite number above 0, but got {k1!r}")
        if not is_number(b) or not 0 <= b <= 1:
            raise InvalidInputError(f"b must be in [0, 1], but got {b!r}")
        listed = check_texts(texts)
        if analyzer is None:
            analyzer = analyzer_for(language, texts=listed)
        elif not callable(analyzer):
            raise InvalidInputError(
                "analyzer must be a function that gives the terms of a text, but got "
                f"{analyzer!r}; a language goes into language="
            )
        settings = BM25Settings(analyzer, engine, float(k1), float(b))
        super().__init__(BM25View(settings).with_added(listed))
        self._probed: str | None = None
        self._written_with: dict[str, str] = {}

    @property
    def analyzer(self) -> Analyzer | Callable[[str], Sequence[str]]:
        """Text to terms."""
        return self._view.settings.analyzer

    @property
    def engine(self) -> str:
        """As it was asked for."""
        return self._view.settings.engine

    @property
    def k1(self) -> float:
        """How fast repeats of a term stop counting."""
        return self._view.settings.k1

    @property
    def b(self) -> float:
        """How much long passages are held back."""
        return self._view.settings.b

    def explain(self, query: str, key: int) -> Explanation:
        """Each query term's share of a passage's score; ``print`` shows it as Lucene does.

        Raises:
            InvalidInputError: If the query is blank, or the key is not in the index.
        """
        return explain_score(self._view, check_query(query), key)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a folder, in place of the one that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: If it cannot be written.
        """
        storage.save(path, "BM25", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
    ) -> Self:
        """Reads an index that `save` wrote, its arrays mapped from the disk.

        Args:
            path: The folder.
            analyzer: The one that the index was made with, where it was not a language's:
                functions are not stored.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: Another version of this library wrote another format.
            IndexMismatchError: If the analyzer gives other terms than it did, or the index is of
                another kind.
        """
        found = storage.load(path, "BM25", lambda part: cls.restore(part, analyzer=analyzer))
        found.check_analyzer()
        return found

    def store(self, out: storage.Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts only if asked for.

        What is written is one segment, without a trace of removed passages.
        """
        ours = self.analyzer if isinstance(self.analyzer, Analyzer) else None
        view = self._view.with_merged().with_own_vocabulary()
        out.settings |= {
            "engine": self.engine,
            "k1": self.k1,
            "b": self.b,
            "analyzer": None if ours is None else ours.name,
            "analyzer_version": None if ours is None else ours.version,
            "probe": self._probe(),
            "libraries": library_versions(),
            "codes": None if not view.segments else view.segments[0].codes.dtype.name,
        }
        if texts:
            out.lines("texts.jsonl", view.passages.texts())
        out.array("live.npy", view.alive)
        for segment in view.segments:
            out.lines("vocabulary.jsonl", view.vocabulary)
            for name in ("lengths", "bounds", "rows", "codes", "pairs"):
                out.array(f"{name}.npy", getattr(segment, name))

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        *,
        texts: list[str] | None = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
    ) -> Self:
        """The index that `store` gave; call `check_analyzer` before it is used.

        Args:
            part: Where the files are.
            texts: The passages in the order of keys, where they were not stored with it.
            analyzer: As in `load`.
        """
        told = part.settings
        bm25 = cls(
            (),
            analyzer=_stored_analyzer(told, analyzer),
            engine=told["engine"],
            k1=told["k1"],
            b=told["b"],
        )
        alive = part.array("live.npy", np.bool_)
        keys = np.flatnonzero(alive).astype(np.int64, copy=False)
        texts = part.texts("texts.jsonl", len(keys)) if texts is None else texts
        view = replace(bm25._view, passages=Passages.restored(alive, texts))
        if told["codes"] is not None:
            words = part.texts("vocabulary.jsonl")
            segment = _stored_postings(part, keys, len(words), told["codes"])
            view = replace(
                view,
                vocabulary=Vocabulary((word, number) for number, word in enumerate(words)),
                segments=(segment,),
                removed=(0,),
                words=int(segment.lengths.sum()),
            )
            if len(view.vocabulary) != len(words):
                raise IndexDamagedError("a vocabulary must hold each term once, but repeats one")
        bm25._view = view
        bm25._probed = told["probe"]
        bm25._written_with = dict(told.get("libraries", {}))
        return bm25

    def check_analyzer(self) -> None:
        """Checks that the analyzer of a restored index gives the terms that it gave.

        Raises:
            IndexMismatchError: If it does not.
        """
        if self._probed is not None and self._probe() != self._probed:
            raise IndexMismatchError(
                "the analyzer must give the terms that it gave when the index was made, but it "
                "gives others for the same texts: load the index with the analyzer that made it "
                "and the same version of its libraries, or build it again"
            )
        if self._probed is not None:
            check_terms(self._view, self._written_with)

    def _probe(self) -> str:
        """A digest of what the analyzer makes of some passages, read both ways."""
        tried = [text for text in islice(self._view.passages.texts(), _PROBES) if text]
        query_terms = self._view.settings.query_terms
        terms = [[list(self.analyzer(text)), list(query_terms(text))] for text in tried]
        return hashlib.sha256(json.dumps(terms).encode()).hexdigest()


def _stored_postings(
    part: storage.Reader, keys: NDArray[np.int64], terms: int, kind: str
) -> Postings:
    """The postings of these keys, mapped from the disk.

    Raises:
        IndexDamagedError: If the arrays do not fit together.
    """
    bounds = part.array("bounds.npy", np.int64, terms + 1)
    found = Postings(
        keys=keys,
        lengths=part.array("lengths.npy", np.int32, len(keys)),
        terms=np.arange(terms, dtype=np.int32),
        bounds=bounds,
        rows=part.array("rows.npy", np.int32, int(bounds[-1])),
        codes=part.array(
            "codes.npy", {"uint16": np.uint16, "uint32": np.uint32}[kind], int(bounds[-1])
        ),
        pairs=part.array("pairs.npy", np.int64),
    )
    if not (
        bounds[0] == 0
        and (np.diff(bounds) > 0).all()
        and _below(found.rows, len(keys))
        and _below(found.codes, len(found.pairs))
        and (found.lengths >= 0).all()
        and (found.pairs > 0).all()
        and (found.frequencies > 0).all()
        # Otherwise what is made of them could have any size.
        and _occurrences(found) == int(found.lengths.sum(dtype=np.int64))
    ):
        raise IndexDamagedError("the arrays of the index do not fit together")
    return found


def _occurrences(postings: Postings) -> int:
    """Term frequencies summed, some postings at a time: all would be eight bytes each."""
    frequencies, codes = postings.frequencies, postings.codes
    starts = range(0, len(codes), _CHECKED_TOGETHER)
    return sum(int(frequencies[codes[at : at + _CHECKED_TOGETHER]].sum()) for at in starts)


def _below(numbers: NDArray[Any], size: int) -> bool:
    return not len(numbers) or bool(0 <= numbers.min() <= numbers.max() < size)


def _stored_analyzer(
    told: Any, given: Analyzer | Callable[[str], list[str]] | None
) -> Analyzer | Callable[[str], list[str]]:
    """The analyzer of an index, by name or as given.

    Raises:
        IndexMismatchError: If it is another one, or another version of it.
    """
    name, version = told["analyzer"], told["analyzer_version"]
    if name is None:
        if given is None:
            raise IndexMismatchError(
                "the index was made with a custom analyzer, which is not stored: "
                "give it again as analyzer="
            )
        return given
    analyzer = analyzer_for(name) if given is None else given
    found = (getattr(analyzer, "name", None), getattr(analyzer, "version", None))
    if found != (name, version):
        raise IndexMismatchError(
            f"the index was made with the analyzer {name!r}, version {version}, but this one is "
            f"{found[0]!r}, version {found[1]}: build the index again"
        )
    return analyzer
