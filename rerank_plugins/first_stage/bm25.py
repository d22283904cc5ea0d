"""BM25 (Okapi) over analysed text."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from typing_extensions import Self

from rerank_plugins._telemetry import traced_search
from rerank_plugins._validation import check_choice, check_count, is_number
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._bm25_engines import ENGINES, Engine, Terms
from rerank_plugins.first_stage._checks import check_keys, check_mask, check_texts, key_list
from rerank_plugins.first_stage.analysis import Analyzer, analyzer_for
from rerank_plugins.ordering import descending

# How many passages a stored index is tried on, to see that the analyzer is still the same.
_PROBES: Final = 16


@dataclass(frozen=True)
class _Index:
    """What is indexed at one moment; replaced as a whole, so that searches need no lock.

    Attributes:
        texts: By key; empty where a passage was removed.
        keys: Shape (passages,), ascending: the key of each row of terms and engine.
        terms: The passages' terms.
        engine: None as long as no passage has a term: Okapi divides by the mean length.
    """

    texts: list[str]
    keys: NDArray[np.int64]
    terms: Terms
    engine: Engine | None


class BM25:
    """Keyword search: a first stage over BM25 scores.

    A passage comes back when it shares a term with the query; one that shares no term never
    does, so fewer than ``k`` may. The score is Okapi's with Lucene's idf,
    ln(1 + (N - n + .5) / (n + .5)) for a term in n of N passages, which is positive for every
    term: each score is above 0, and a further match never lowers it.

    Any number of threads may search, add and remove; a search sees all of a change or none of
    it. Scores depend on the whole corpus, so a change computes them all again, which takes as
    long as building less the analysis: better add many passages at once.
    """

    def __init__(
        self,
        texts: Iterable[str],
        *,
        language: str = "auto",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        engine: str = "rank-bm25",
        k1: float = 1.5,
        b: float = 0.75,
    ) -> None:
        """Indexes the texts; a text's key is its position.

        Args:
            texts: Passages; an iterator is read once. Empty ones are kept and never found.
            language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
            analyzer: Text to terms, in place of the language's; a ``query`` method beside the
                call, if it has one, reads the queries.
            engine: ``rank-bm25``, or ``bm25s``: the same scores from more memory, in a
                fraction of the time once there are tens of thousands of passages.
            k1: How fast repeats of a term stop counting; above 0. Default: rank-bm25's.
            b: How much long passages are held back, in [0, 1]. Default: rank-bm25's.

        Raises:
            InvalidInputError: A value breaks one of these rules.
        """
        check_choice("engine", engine, ENGINES)
        if not is_number(k1) or k1 <= 0:
            raise InvalidInputError(f"k1 must be a finite number above 0, but got {k1!r}")
        if not is_number(b) or not 0 <= b <= 1:
            raise InvalidInputError(f"b must be in [0, 1], but got {b!r}")
        listed = check_texts(texts)
        self.analyzer = analyzer_for(language, texts=listed) if analyzer is None else analyzer
        self.engine = engine
        self.k1 = k1
        self.b = b
        self._query_terms = getattr(self.analyzer, "query", self.analyzer)
        self._changing = threading.Lock()
        self._probed: str | None = None
        self._index = _Index([], np.empty(0, dtype=np.int64), Terms.none(), None)
        self.add(listed)

    def __len__(self) -> int:
        return len(self._index.keys)

    @property
    def keys(self) -> list[int]:
        """The keys of the passages that can be found, ascending."""
        keys: list[int] = self._index.keys.tolist()
        return keys

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask."""
        return len(self._index.texts)

    def add(self, texts: Iterable[str]) -> list[int]:
        """Indexes more texts.

        Returns:
            Their keys, which are never given again, not even after a removal.

        Raises:
            InvalidInputError: A text is no string.
        """
        listed = check_texts(texts)
        if not listed:
            return []
        with self._changing:
            old = self._index
            terms = old.terms.followed_by(
                self.analyzer(text)
                for text in tqdm(listed, desc="Analysing", unit=" passages", disable=None, delay=1)
            )
            keys = range(len(old.texts), len(old.texts) + len(listed))
            self._index = self._indexed(
                old.texts + listed, np.append(old.keys, np.asarray(keys)), terms
            )
        return list(keys)

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable; the scores of the others are as if they had never been.

        Raises:
            InvalidInputError: A key is not in the index; nothing is removed then.
        """
        listed = key_list(keys)
        with self._changing:
            old = self._index
            check_keys(listed, set(old.keys.tolist()))
            if not listed:
                return
            kept = ~np.isin(old.keys, listed)
            texts = list(old.texts)
            for key in listed:
                texts[key] = ""
            self._index = self._indexed(texts, old.keys[kept], old.terms.only(kept))

    def _indexed(self, texts: list[str], keys: NDArray[np.int64], terms: Terms) -> _Index:
        engine = ENGINES[self.engine](terms, k1=self.k1, b=self.b) if len(terms.ids) else None
        return _Index(texts, keys, terms, engine)

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates that share a term with the query, best first.

        Args:
            query: Non-blank text.
            k: How many at most.
            mask: One boolean for each key ever given, shape (largest such key + 1,); only
                passages where it is True come back. Scores do not depend on it: idf is always
                that of the whole corpus.

        Returns:
            Candidates with their BM25 score, above 0; equal scores keep the order of keys.

        Raises:
            InvalidInputError: The query, ``k`` or the mask breaks the rule above.
        """
        query = check_query(query)
        k = check_count("k", k)
        index = self._index
        mask = check_mask(mask, len(index.texts))
        if index.engine is None:
            return []
        rows, scores = index.engine.match(self._query_terms(query))
        keys = index.keys[rows]
        if mask is not None:
            keys, scores = keys[mask[keys]], scores[mask[keys]]
        return [
            Candidate(
                key=int(keys[at]), text=index.texts[keys[at]], score=float(scores[at]), rank=rank
            )
            for rank, at in enumerate(descending(scores, k), start=1)
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a folder, in place of the one that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
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
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: The analyzer gives other terms than it did, or the index is of
                another kind.
        """
        found = storage.load(path, "BM25", lambda part: cls.restore(part, analyzer=analyzer))
        found.check_analyzer()
        return found

    def store(self, out: storage.Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts only if asked for."""
        index = self._index
        ours = self.analyzer if isinstance(self.analyzer, Analyzer) else None
        out.settings |= {
            "engine": self.engine,
            "k1": self.k1,
            "b": self.b,
            "analyzer": None if ours is None else ours.name,
            "analyzer_version": None if ours is None else ours.version,
            "probe": self._probe(),
        }
        if texts:
            out.lines("texts.jsonl", (index.texts[key] for key in index.keys))
        live = np.zeros(len(index.texts), dtype=np.bool_)
        live[index.keys] = True
        out.array("live.npy", live)
        index.terms.store(out)
        if index.engine is not None:
            index.engine.store(out)

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
            analyzer: As of `load`.
        """
        told = part.settings
        bm25 = cls(
            (),
            analyzer=_stored_analyzer(told, analyzer),
            engine=told["engine"],
            k1=told["k1"],
            b=told["b"],
        )
        live = part.array("live.npy", np.bool_)
        keys = np.flatnonzero(live).astype(np.int64, copy=False)
        texts = part.texts("texts.jsonl", len(keys)) if texts is None else texts
        by_key = [""] * len(live)
        for key, text in zip(keys.tolist(), texts, strict=True):
            by_key[key] = text
        terms = Terms.restore(part, len(keys))
        engine = None
        if len(terms.ids):
            engine = ENGINES[bm25.engine].restore(part, terms, k1=bm25.k1, b=bm25.b)
        bm25._index = _Index(by_key, keys, terms, engine)
        bm25._probed = told["probe"]
        return bm25

    def check_analyzer(self) -> None:
        """Checks that the analyzer of a restored index gives the terms that it gave.

        Raises:
            IndexMismatchError: It does not.
        """
        if self._probed is not None and self._probe() != self._probed:
            raise IndexMismatchError(
                "the analyzer must give the terms that it gave when the index was made, but it "
                "gives others for the same texts: load the index with the analyzer that made it "
                "and the same version of its libraries, or build it again"
            )

    def _probe(self) -> str:
        """A digest of what the analyzer makes of some passages, read both ways."""
        index = self._index
        tried = [text for text in (index.texts[key] for key in index.keys[:_PROBES]) if text]
        terms = [[list(self.analyzer(text)), list(self._query_terms(text))] for text in tried]
        return hashlib.sha256(json.dumps(terms).encode()).hexdigest()


def _stored_analyzer(
    told: Any, given: Analyzer | Callable[[str], list[str]] | None
) -> Analyzer | Callable[[str], list[str]]:
    """The analyzer of an index, by name or as given.

    Raises:
        IndexMismatchError: It is another one, or another version of it.
    """
    name, version = told["analyzer"], told["analyzer_version"]
    if name is None:
        if given is None:
            raise IndexMismatchError(
                "the index was made with an analyzer of its own, which is not stored: "
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
