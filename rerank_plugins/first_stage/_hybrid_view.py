"""Several views as one, and how what they say of a passage is fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._telemetry import traced_search
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage._checks import check_texts, key_list
from rerank_plugins.first_stage._dense_view import DenseView
from rerank_plugins.first_stage.base import FirstStage, StageView, Survey, Surveyed
from rerank_plugins.ordering import descending

Fusion = Literal["scores", "ranks"]
Parts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HybridCandidate(Candidate):
    """A candidate with what each stage thought of it.

    Attributes:
        stage_scores: One per stage, in the order of ``Hybrid.stages``; None where the passage
            is not among the candidates of the stage.
        stage_ranks: Likewise, from 1.
    """

    stage_scores: tuple[float | None, ...] = ()
    stage_ranks: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class FusionSettings:
    """How lists become one; see `rerank_plugins.first_stage.Hybrid`."""

    weights: tuple[float, ...]
    fusion: Fusion
    rank_constant: float
    candidates: int


@dataclass(frozen=True, eq=False)
class HybridView:
    """An immutable hybrid of views, or of other first stages, over the same texts.

    Attributes:
        stages: What is asked.
        settings: How the answers are fused.
    """

    stages: tuple[FirstStage, ...]
    settings: FusionSettings

    def __len__(self) -> int:
        sizes = [len(stage) for stage in self.stages]
        if len(set(sizes)) > 1:
            raise InvalidInputError(
                "the stages of a hybrid must index the same texts, but they hold "
                + ", ".join(map(str, sizes))
            )
        return sizes[0]

    @property
    def size(self) -> int:
        """Keys ever given."""
        given = [view.size for view in self._views()]
        if len(set(given)) > 1:
            raise InvalidInputError(
                "the stages of a hybrid must give the same keys, but have given "
                f"{', '.join(map(str, given))}: build them anew"
            )
        return given[0]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Shape (size,): the keys that are not removed."""
        return self._views()[0].alive

    def with_added(
        self, texts: Sequence[str], vectors: Any = None, owners: Any = None
    ) -> HybridView:
        """A view with these texts in every stage; ``vectors`` as in `DenseView.with_added`.

        Raises:
            InvalidInputError: If a stage takes no additions or refuses a text, or the stages do not
                give the same keys.
        """
        listed = check_texts(texts)
        views: list[StageView] = []
        if self.size >= 0:  # asked for its check
            for view in self._views():
                if isinstance(view, (DenseView, HybridView)):
                    views.append(view.with_added(listed, vectors, owners))
                else:
                    views.append(view.with_added(listed))
        return replace(self, stages=tuple(views))

    def with_removed(self, keys: Iterable[int]) -> HybridView:
        """A view without these passages in any stage.

        Raises:
            InvalidInputError: If a stage takes no removals, or does not have a key.
        """
        listed = key_list(keys)
        return replace(self, stages=tuple(view.with_removed(listed) for view in self._views()))

    @traced_search
    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """At most ``k`` candidates, best first, each a ``HybridCandidate``.

        Raises:
            InvalidInputError: If a stage refuses the query, ``k`` or the mask, or two stages
                find different texts under one key.
        """
        query = check_query(query)
        k = check_count("k", k)
        len(self)
        depth = max(k, self.settings.candidates) if k else 0
        by_scores = self.settings.fusion == "scores"
        surveys = [
            stage.survey(query, depth, mask=mask)
            if by_scores and isinstance(stage, Surveyed)
            else stage.search(query, depth, mask=mask)
            for stage in self.stages
        ]
        lists = [one.candidates if isinstance(one, Survey) else one for one in surveys]
        texts = _texts(lists)
        by_key = [{candidate.key: candidate for candidate in found} for found in lists]
        keys = np.asarray(sorted(texts), dtype=np.int64)
        scores = np.zeros(len(keys))
        for weight, survey in zip(self.settings.weights, surveys, strict=True):
            scores += weight * self._parts(survey, keys)
        if by_scores:  # a mean of standardized values; by ranks, the sum of the paper
            scores /= sum(self.settings.weights)
        return [
            HybridCandidate(
                key=key,
                text=texts[key],
                score=float(scores[at]),
                rank=rank,
                stage_scores=tuple(f[key].score if key in f else None for f in by_key),
                stage_ranks=tuple(f[key].rank if key in f else None for f in by_key),
            )
            for rank, at in enumerate(descending(scores, k), start=1)
            for key in (int(keys[at]),)
        ]

    def _parts(self, survey: Survey | list[Candidate], keys: NDArray[np.int64]) -> Parts:
        """What one stage says of each passage; not yet weighted."""
        if isinstance(survey, Survey):
            return _standardized(survey.scores(keys), survey.mean, survey.deviation)
        reciprocal = {one.key: 1.0 / (self.settings.rank_constant + one.rank) for one in survey}
        if self.settings.fusion == "ranks":
            return np.asarray([reciprocal.get(key, 0.0) for key in keys.tolist()])
        given = {one.key: one.score for one in survey if one.score is not None}
        # Distances, say, fall where ranks rise: then only the ranks can be trusted.
        if len(given) < len(survey) or any(a < b for a, b in pairwise(given.values())):
            given = dict(reciprocal)
        listed = sorted(given.values())
        if not listed:
            return np.zeros(len(keys))
        apart = (listed[-1] - listed[0]) / max(len(listed) - 1, 1) or 1.0
        rest = listed[0] - apart
        values = np.asarray([given.get(key, rest) for key in keys.tolist()])
        # One that nobody found: without it, all lists of two would say the same.
        every = np.append(values, rest)
        return _standardized(values, float(every.mean()), float(every.std()))

    def _views(self) -> list[StageView]:
        views = [stage for stage in self.stages if _is_view(stage)]
        if len(views) < len(self.stages):
            other = next(one for one in self.stages if not _is_view(one))
            raise InvalidInputError(
                "the stages of a hybrid must be BM25, Dense or Hybrid, or have a view as they "
                f"do, to be changed, but one is {type(other).__name__}"
            )
        return views


def _is_view(stage: FirstStage) -> TypeGuard[StageView]:
    # By its class: isinstance would compute what the stage's properties give.
    return hasattr(type(stage), "with_added")


def _standardized(values: Parts, mean: float, deviation: float) -> Parts:
    """How many deviations above the mean; 0 without spread."""
    return (values - mean) / deviation if deviation > 0 else np.zeros(len(values))


def _texts(lists: Sequence[Sequence[Candidate]]) -> dict[int, str]:
    """The text of every candidate, by key.

    Raises:
        InvalidInputError: Two lists have different texts under one key.
    """
    texts: dict[int, str] = {}
    for found in lists:
        for candidate in found:
            if texts.setdefault(candidate.key, candidate.text) != candidate.text:
                raise InvalidInputError(
                    "the stages of a hybrid must index the same texts, "
                    f"but differ in the text of key {candidate.key}"
                )
    return texts
