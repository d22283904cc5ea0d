"""Several first stages as one: by the scores that they give, or by the ranks alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins._telemetry import traced_search
from rerank_plugins._validation import check_choice, check_count, check_iterable, is_number
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import IndexDamagedError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._checks import check_texts, key_list
from rerank_plugins.first_stage._locks import SharedLock
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.base import FirstStage, StoredStage
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.ordering import descending

Fusion = Literal["scores", "ranks"]
# BM25's and the embedded text encoder's: on held-back parts of the training sets, the largest share
# of the encoder with which no set falls below BM25 alone.
SHIPPED_WEIGHTS = (0.8, 0.2)
SETTINGS = ("weights", "fusion", "rank_constant", "candidates")


@dataclass(frozen=True, slots=True)
class HybridCandidate(Candidate):
    """A candidate with what each stage thought of it.

    Attributes:
        stage_scores: One a stage, in the order of ``Hybrid.stages``; None where the stage did
            not find the passage.
        stage_ranks: Likewise, from 1.
    """

    stage_scores: tuple[float | None, ...] = ()
    stage_ranks: tuple[int | None, ...] = ()


class Hybrid:
    """Fuses first stages over one corpus.

    By ``scores``, the score of a passage is the weighted mean of its stages' scores, each divided
    by the highest of its list (scores below 0 are first raised by the lowest); a stage that did
    not find the passage counts as 0; one that gives no scores, or scores that contradict its
    ranks, as its reciprocal ranks. A convex combination of normalised scores keeps how sure a
    stage is, and does better than ranks (Bruch, Gai and Ingber, 2023); with a weak dense stage
    beside BM25, much better.

    By ``ranks``, it is the sum over the stages that found it of
    ``weight / (rank_constant + rank)``, ranks from 1 (reciprocal rank fusion: Cormack, Clarke
    and Büttcher, 2009, whose constant is 60).
    """

    def __init__(
        self,
        stages: Sequence[FirstStage],
        *,
        weights: Sequence[float] | None = None,
        fusion: Fusion = "scores",
        rank_constant: float = 60.0,
        candidates: int = 100,
    ) -> None:
        """Takes stages that indexed the same texts in the same order.

        Args:
            stages: One or more.
            weights: One a stage, finite and above 0; None: all equal 1.
            fusion: By ``scores`` or by ``ranks``; see the class.
            rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks
                count.
            candidates: How many each stage is asked for; ``k`` when that is more.

        Raises:
            InvalidInputError: An argument breaks one of these rules, or the stages differ in
                length.
        """
        self.stages = tuple(check_iterable("stages", stages))
        for stage in self.stages:
            if not isinstance(stage, FirstStage):
                raise InvalidInputError(
                    f"stages must be first stages, but one is {type(stage).__name__}"
                )
        if not self.stages:
            raise InvalidInputError("stages must hold at least one first stage, but got none")
        self.weights = (
            (1.0,) * len(self.stages)
            if weights is None
            else tuple(check_iterable("weights", weights))
        )
        if len(self.weights) != len(self.stages):
            raise InvalidInputError(
                f"weights must be one for each of the {len(self.stages)} stages, "
                f"but got {len(self.weights)}"
            )
        for weight in self.weights:
            if not is_number(weight) or weight <= 0:
                raise InvalidInputError(f"weights must be finite and above 0, but got {weight!r}")
        check_choice("fusion", fusion, get_args(Fusion))
        self.fusion: Fusion = fusion
        if not is_number(rank_constant) or rank_constant < 0:
            raise InvalidInputError(
                f"rank_constant must be a finite number of at least 0, but got {rank_constant!r}"
            )
        self.rank_constant = rank_constant
        self.candidates = check_count("candidates", candidates, minimum=1)
        self._lock = SharedLock()
        len(self)

    def __len__(self) -> int:
        sizes = [len(stage) for stage in self.stages]
        if len(set(sizes)) > 1:
            raise InvalidInputError(
                "the stages of a hybrid must index the same texts, but they hold "
                + ", ".join(map(str, sizes))
            )
        return sizes[0]

    @property
    def keys_given(self) -> int:
        """How many keys were ever given: the length of a mask."""
        return max(_stored(stage).keys_given for stage in self.stages)

    def add(self, texts: Iterable[str]) -> list[int]:
        """Indexes more texts in every stage; a search sees all of it or none.

        Returns:
            Their keys, the same in each.

        Raises:
            InvalidInputError: A stage takes no additions or refuses a text, or the stages do not
                give the same keys.
        """
        listed = check_texts(texts)
        with self._lock.write():
            stages = [_stored(stage) for stage in self.stages]
            given = [stage.keys_given for stage in stages]
            if len(set(given)) > 1:
                raise InvalidInputError(
                    "the stages of a hybrid must give the same keys, but have given "
                    f"{', '.join(map(str, given))}: build them anew"
                )
            keys: list[int] = []
            # The last is dense as a rule, and embedding is what fails: then nothing is changed.
            for stage in reversed(stages):
                keys = stage.add(listed)
        return keys

    def remove(self, keys: Iterable[int]) -> None:
        """Makes passages unfindable in every stage.

        Raises:
            InvalidInputError: A stage takes no removals, or does not have a key.
        """
        listed = key_list(keys)
        with self._lock.write():
            for stage in [_stored(stage) for stage in self.stages]:
                stage.remove(listed)

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates, best first, each a ``HybridCandidate``.

        Args:
            query: Non-blank text.
            k: How many at most.
            mask: Handed to every stage.

        Returns:
            Candidates with the fused score; equal scores keep the order of keys.

        Raises:
            InvalidInputError: A stage refuses the query, ``k`` or the mask, or two stages
                find different texts under one key.
        """
        query = check_query(query)
        k = check_count("k", k)
        depth = max(k, self.candidates) if k else 0
        with self._lock.read():
            len(self)
            lists = [stage.search(query, depth, mask=mask) for stage in self.stages]
        texts: dict[int, str] = {}
        by_key: list[dict[int, Candidate]] = []
        for found in lists:
            by_key.append({candidate.key: candidate for candidate in found})
            for candidate in found:
                if texts.setdefault(candidate.key, candidate.text) != candidate.text:
                    raise InvalidInputError(
                        "the stages of a hybrid must index the same texts, "
                        f"but differ in the text of key {candidate.key}"
                    )
        keys = sorted(texts)
        parts = [self._parts(found) for found in by_key]
        # By scores, a mean of values from 0 to 1; by ranks, the sum of the paper.
        share = sum(self.weights) if self.fusion == "scores" else 1.0
        scores = [
            sum(
                weight * part.get(key, 0.0)
                for weight, part in zip(self.weights, parts, strict=True)
            )
            / share
            for key in keys
        ]
        return [
            HybridCandidate(
                key=keys[at],
                text=texts[keys[at]],
                score=scores[at],
                rank=rank,
                stage_scores=tuple(f[keys[at]].score if keys[at] in f else None for f in by_key),
                stage_ranks=tuple(f[keys[at]].rank if keys[at] in f else None for f in by_key),
            )
            for rank, at in enumerate(descending(scores, k), start=1)
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """What `Hybrid` takes beside its stages (`SETTINGS`), ready for JSON."""
        return {
            "weights": [float(weight) for weight in self.weights],
            "fusion": self.fusion,
            "rank_constant": float(self.rank_constant),
            "candidates": self.candidates,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the stages to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A stage is no `BM25`, `Dense` or `Hybrid`.
        """
        storage.save(path, "Hybrid", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embed: Any = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
    ) -> Self:
        """Reads an index that `save` wrote, its arrays mapped from the disk.

        Args:
            path: The folder.
            embed: As of `Dense.load`, for the stages by embeddings.
            analyzer: As of `BM25.load`, for the stages by words.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: ``embed`` or ``analyzer`` is not what made the index, or it is of
                another kind.
        """
        found = storage.load(
            path, "Hybrid", lambda part: cls.restore(part, embed=embed, analyzer=analyzer)
        )
        found.check()
        return found

    def store(self, out: storage.Writer, *, texts: bool = True) -> None:
        """Gives files and settings to a writer, the texts once and only if asked for."""
        with self._lock.read():
            kinds = [_KINDS_BY_CLASS.get(type(stage)) for stage in self.stages]
            if None in kinds:
                raise InvalidInputError(
                    "a hybrid can be saved when its stages are BM25, Dense or Hybrid, but one is "
                    f"{type(self.stages[kinds.index(None)]).__name__}"
                )
            out.settings |= {
                "stages": kinds,
                **self.settings,
            }
            for number, stage in enumerate(self.stages):
                _stored(stage).store(out.part(f"stage{number}"), texts=texts and number == 0)

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        *,
        texts: list[str] | None = None,
        embed: Any = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
    ) -> Self:
        """The stages that `store` gave; call `check` before they are used.

        Args:
            part: Where the files are.
            texts: The passages in the order of keys, where they were not stored with it.
            embed: As of `load`.
            analyzer: As of `load`.
        """
        told = part.settings
        if texts is None:
            texts = _first(part).texts("texts.jsonl")
        stages = [
            restored(kind, part.part(f"stage{number}"), texts, embed, analyzer)
            for number, kind in enumerate(told["stages"])
        ]
        return cls(stages, **{name: told[name] for name in SETTINGS})

    def check(self) -> None:
        """Checks that the encoder and the analyzer of restored stages are what they were.

        Raises:
            IndexMismatchError: One is not.
        """
        for stage in self.stages:
            check_restored(stage)

    def _parts(self, found: dict[int, Candidate]) -> dict[int, float]:
        """What one stage says of each passage that it found, at most 1; not yet weighted."""
        reciprocal = {key: 1.0 / (self.rank_constant + one.rank) for key, one in found.items()}
        if self.fusion == "ranks":
            return reciprocal
        given = {key: one.score for key, one in found.items() if one.score is not None}
        listed = list(given.values())
        # Distances, say, fall where ranks rise: then only the ranks can be trusted.
        if len(given) < len(found) or any(a < b for a, b in pairwise(listed)):
            given = reciprocal
        lowest = min(0.0, min(given.values(), default=0.0))
        highest = max(given.values(), default=0.0) - lowest
        if highest == 0.0:  # all alike: all the best
            return dict.fromkeys(given, 1.0)
        return {key: (score - lowest) / highest for key, score in given.items()}


def restored(
    kind: str,
    part: storage.Reader,
    texts: list[str],
    embed: Any,
    analyzer: Analyzer | Callable[[str], list[str]] | None,
) -> BM25 | Dense | Hybrid:
    """A stage of that kind over these texts; `check_restored` comes before its use.

    Raises:
        IndexDamagedError: There is no such kind.
    """
    if kind == "BM25":
        return BM25.restore(part, texts=texts, analyzer=analyzer)
    if kind == "Dense":
        return Dense.restore(part, texts=texts, embed=embed)
    if kind == "Hybrid":
        return Hybrid.restore(part, texts=texts, embed=embed, analyzer=analyzer)
    raise IndexDamagedError(f"there is no kind of first stage {kind!r}")


def check_restored(stage: FirstStage) -> None:
    """Checks that a restored stage's encoder or analyzer is what it was.

    Raises:
        IndexMismatchError: It is not.
    """
    if isinstance(stage, BM25):
        stage.check_analyzer()
    elif isinstance(stage, Dense):
        stage.check_encoder()
    elif isinstance(stage, Hybrid):
        stage.check()


def _first(part: storage.Reader) -> storage.Reader:
    """The part that holds the texts."""
    inner = part.part("stage0")
    return _first(inner) if part.settings["stages"][0] == "Hybrid" else inner


def _stored(stage: FirstStage) -> StoredStage:
    if not isinstance(stage, StoredStage):
        raise InvalidInputError(
            f"every stage must have add, remove and store, but {type(stage).__name__} has not"
        )
    return stage


_KINDS_BY_CLASS: dict[type, str] = {BM25: "BM25", Dense: "Dense", Hybrid: "Hybrid"}
