"""Several first stages as one: by the scores that they give, or by the ranks alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

from numpy.typing import ArrayLike
from typing_extensions import Self

from rerank_plugins._validation import check_choice, check_count, check_iterable, is_number
from rerank_plugins.errors import IndexDamagedError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage._checks import check_texts
from rerank_plugins.first_stage._holder import Holder
from rerank_plugins.first_stage._hybrid_view import (
    Fusion,
    FusionSettings,
    HybridCandidate,
    HybridView,
)
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.base import FirstStage, StoredStage
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense

__all__ = ["Fusion", "Hybrid", "HybridCandidate"]

# BM25's and the bundled text encoder's, standardized: the best of .5, .6 and .7 for the encoder on
# held-back parts of the training sets; the three are within a point.
SHIPPED_WEIGHTS = (0.3, 0.7)
SETTINGS = ("weights", "fusion", "rank_constant", "candidates")


class Hybrid(Holder[HybridView]):
    """Fuses first stages over one corpus.

    By ``scores``, the score of a passage is the weighted mean of its stages' scores, each
    standardized: less the mean and divided by the standard deviation of that stage's scores of
    all passages for the query, whatever the mask. So a passage counts by how far it stands out
    in each, also in a stage that did not put it among its candidates. BM25 scores of passages
    that share no term are 0; a dense index that is not exact estimates mean and deviation from
    a sample. Stages other than BM25 and Dense tell no more than their list: what they did not
    find is put below their last, by the mean distance between two of theirs, and mean and
    deviation are those of all candidates and of one passage that nobody found; if they give no
    scores, or scores that contradict their ranks, their reciprocal ranks are taken. A convex
    combination of normalized scores keeps how sure a stage is, and does better than ranks
    (Bruch, Gai and Ingber, 2023, who also compare this normalization with others).

    By ``ranks``, it is the sum over the stages that found it of
    ``weight / (rank_constant + rank)``, ranks from 1 (reciprocal rank fusion: Cormack, Clarke
    and Büttcher, 2009, whose constant is 60).

    Changes go through the hybrid: it publishes those of all stages at once.
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
            weights: One positive weight per stage; None for equal weights.
            fusion: By ``scores`` or by ``ranks``; see the class.
            rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks
                count.
            candidates: How many each stage is asked for; ``k`` when that is more.

        Raises:
            InvalidInputError: If an argument breaks one of these rules, or the stages differ in
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
        shares = [1.0] * len(self.stages)
        if weights is not None:
            shares = list(check_iterable("weights", weights))
        if len(shares) != len(self.stages):
            raise InvalidInputError(
                f"weights must be one for each of the {len(self.stages)} stages, "
                f"but got {len(shares)}"
            )
        for weight in shares:
            if not is_number(weight) or weight <= 0:
                raise InvalidInputError(f"weights must be finite and above 0, but got {weight!r}")
        check_choice("fusion", fusion, get_args(Fusion))
        if not is_number(rank_constant) or rank_constant < 0:
            raise InvalidInputError(
                f"rank_constant must be a finite number of at least 0, but got {rank_constant!r}"
            )
        candidates = check_count("candidates", candidates, minimum=1)
        settings = FusionSettings(tuple(shares), fusion, rank_constant, candidates)
        super().__init__(HybridView(self._views(), settings))
        self._known = self._counts()
        len(self)

    @property
    def view(self) -> HybridView:
        """The stages at this moment: immutable, and safe to share between threads."""
        if self._known != self._counts():  # a stage was changed by itself
            with self._changing:
                known = self._counts()
                self._view = replace(self._view, stages=self._views())
                self._known = known
        return self._view

    def at(self, view: HybridView) -> Self:
        """A hybrid with the same settings that holds another view."""
        other = super().at(view)
        other.stages = tuple(
            stage.at(part) if isinstance(stage, Holder) else stage
            for stage, part in zip(self.stages, view.stages, strict=True)
        )
        other._known = other._counts()  # noqa: SLF001  (its own)
        return other

    @property
    def weights(self) -> tuple[float, ...]:
        """One per stage."""
        return self._view.settings.weights

    @property
    def fusion(self) -> Fusion:
        """By ``scores`` or by ``ranks``."""
        return self._view.settings.fusion

    @property
    def rank_constant(self) -> float:
        """Of reciprocal ranks."""
        return self._view.settings.rank_constant

    @property
    def candidates(self) -> int:
        """How many each stage is asked for."""
        return self._view.settings.candidates

    def add(
        self, texts: Iterable[str], *, vectors: ArrayLike | None = None, owners: Any = None
    ) -> list[int]:
        """Indexes more texts in every stage; a search sees all of it or none.

        Args:
            texts: Passages.
            vectors: Their embeddings, as in `Dense.add`, where they are known already.
            owners: As in `Dense.add`.

        Returns:
            Their keys, the same in each.

        Raises:
            InvalidInputError: If a stage takes no additions or refuses a text, or the stages do not
                give the same keys.
        """
        listed = check_texts(texts)
        return self._added(lambda view: view.with_added(listed, vectors, owners))

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
            IndexWriteError: If it cannot be written.
            InvalidInputError: If a stage is no `BM25`, `Dense` or `Hybrid`.
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
            embed: Same as in `Dense.load`, for dense stages.
            analyzer: Same as in `BM25.load`, for BM25 stages.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: Another version of this library wrote another format.
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
        stages = self.at(self.view).stages
        kinds = [_KINDS_BY_CLASS.get(type(stage)) for stage in stages]
        if None in kinds:
            raise InvalidInputError(
                "a hybrid can be saved when its stages are BM25, Dense or Hybrid, but one is "
                f"{type(stages[kinds.index(None)]).__name__}"
            )
        out.settings |= {"stages": kinds, **self.settings}
        for number, stage in enumerate(stages):
            if isinstance(stage, StoredStage):
                stage.store(out.part(f"stage{number}"), texts=texts and number == 0)

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
            embed: Same as in `load`.
            analyzer: Same as in `load`.
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
            IndexMismatchError: If one is not.
        """
        for stage in self.stages:
            check_restored(stage)

    @property
    def changes(self) -> int:
        """How often it was changed, itself or a stage of it."""
        return self._changes + sum(self._counts())

    def take(self, view: HybridView) -> None:
        """Publishes a view: here in one assignment, then in the stages for their own callers."""
        self._view = view
        for stage, part in zip(self.stages, view.stages, strict=True):
            if isinstance(stage, Holder):
                stage.take(part)

    def _views(self) -> tuple[FirstStage, ...]:
        return tuple(one.view if isinstance(one, Holder) else one for one in self.stages)

    def _counts(self) -> tuple[int, ...]:
        return tuple(one.changes for one in self.stages if isinstance(one, Holder))

    def _changed(self, change: Callable[[HybridView], HybridView]) -> tuple[HybridView, HybridView]:
        _ = self.view  # takes in what was changed in a stage by itself
        return super()._changed(change)


def restored(
    kind: str,
    part: storage.Reader,
    texts: list[str],
    embed: Any,
    analyzer: Analyzer | Callable[[str], list[str]] | None,
) -> BM25 | Dense | Hybrid:
    """A stage of that kind over these texts; `check_restored` comes before its use.

    Raises:
        IndexDamagedError: If there is no such kind.
    """
    if kind == "BM25":
        return BM25.restore(part, texts=texts, analyzer=analyzer)
    if kind == "Dense":
        return Dense.restore(part, texts=texts, embed=embed)
    if kind == "Hybrid":
        return Hybrid.restore(part, texts=texts, embed=embed, analyzer=analyzer)
    raise IndexDamagedError(f"unknown kind of first stage: {kind!r}")


def check_restored(stage: FirstStage) -> None:
    """Checks that a restored stage's encoder or analyzer is what it was.

    Raises:
        IndexMismatchError: If it is not.
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


_KINDS_BY_CLASS: dict[type, str] = {BM25: "BM25", Dense: "Dense", Hybrid: "Hybrid"}
