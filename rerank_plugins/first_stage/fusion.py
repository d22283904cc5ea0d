"""Several first stages as one: reciprocal rank fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.ordering import check_count, descending


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
    """Fuses first stages over one corpus by the ranks they give.

    The score of a passage is the sum over the stages that found it of
    ``weight / (rank_constant + rank)``, ranks from 1 (Cormack, Clarke and Büttcher, 2009, whose
    constant is 60). Ranks need no common scale, so BM25 and cosine mix as they are.
    """

    def __init__(
        self,
        stages: Sequence[FirstStage],
        *,
        weights: Sequence[float] | None = None,
        rank_constant: float = 60.0,
        candidates: int = 100,
    ) -> None:
        """Takes stages that indexed the same texts in the same order.

        Args:
            stages: One or more.
            weights: One a stage, finite and above 0; None: all equal 1.
            rank_constant: At least 0; the smaller, the more the first ranks count.
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
        scores = [
            sum(
                weight / (self.rank_constant + found[key].rank)
                for weight, found in zip(self.weights, by_key, strict=True)
                if key in found
            )
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
