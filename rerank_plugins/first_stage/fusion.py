"""Several first stages as one: by the scores that they give, or by the ranks alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.ordering import check_count, descending

Fusion = Literal["scores", "ranks"]
# BM25's and the embedded text encoder's: on held-back parts of the training sets, the largest share
# of the encoder with which no set falls below BM25 alone.
SHIPPED_WEIGHTS = (0.8, 0.2)


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
        self.stages = tuple(stages)
        if not self.stages:
            raise InvalidInputError("stages must hold at least one first stage, but got none")
        self.weights = (1.0,) * len(self.stages) if weights is None else tuple(weights)
        if len(self.weights) != len(self.stages):
            raise InvalidInputError(
                f"weights must be one for each of the {len(self.stages)} stages, "
                f"but got {len(self.weights)}"
            )
        for weight in self.weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InvalidInputError(f"weights must be finite and above 0, but got {weight!r}")
        if fusion not in get_args(Fusion):
            raise InvalidInputError(
                f"fusion must be one of {list(get_args(Fusion))}, but got {fusion!r}"
            )
        self.fusion: Fusion = fusion
        if not (math.isfinite(rank_constant) and rank_constant >= 0):
            raise InvalidInputError(
                f"rank_constant must be a finite number of at least 0, but got {rank_constant!r}"
            )
        self.rank_constant = rank_constant
        self.candidates = check_count("candidates", candidates, minimum=1)
        len(self)

    def __len__(self) -> int:
        sizes = [len(stage) for stage in self.stages]
        if len(set(sizes)) > 1:
            raise InvalidInputError(
                "the stages of a hybrid must index the same texts, but they hold "
                + ", ".join(map(str, sizes))
            )
        return sizes[0]

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
        len(self)
        depth = max(k, self.candidates) if k else 0
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
