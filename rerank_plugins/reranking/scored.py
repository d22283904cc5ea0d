"""From a model's scores of some of the candidates to an order of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate, Ranked, Ranking, Source
from rerank_plugins.ordering import descending
from rerank_plugins.reranking.blending import blended, sigmoid
from rerank_plugins.scoring.base import PairScores, no_spans


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """Which candidates of one query the model shall score.

    Attributes:
        order: Positions of all candidates, the most promising first.
        head: How many of these the model scores, as far as a deadline lets it.
        source: Whose order it is; what the model does not score keeps it.
        opinions: A score of every candidate by whoever made the order, which blending takes in
            place of the first stage's; None for the first stage's.
    """

    order: list[int]
    head: int
    source: Source
    opinions: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """What to keep of a ranking, and how long to take for it.

    Attributes:
        probability: Whether scores are sigmoids of the logits.
        threshold: The least score to keep; None for any.
        keep: How many at most; None for all.
        deadline_ms: From the call on; None for no limit.
    """

    probability: bool
    threshold: float | None
    keep: int | None
    deadline_ms: float | None

    def stop_at(self, start: float) -> float | None:
        """When time is up for a call of that time, on `deadline.now`; None for never."""
        return None if self.deadline_ms is None else start + self.deadline_ms / 1000

    def too_late(self, candidates: Sequence[Candidate], found: ScoredList) -> str | None:
        """Why nothing of a list was scored, though nothing failed; None if something was."""
        if not candidates or found.positions:
            return None
        return f"the deadline of {self.deadline_ms} ms passed before anything was scored"


@dataclass(frozen=True, slots=True)
class ScoredList:
    """What the model said of one query's candidates.

    Attributes:
        positions: Of the candidates that it scored, ascending, so that ties keep
            first-stage order.
        logits: Shape (scored,).
        truncated: Shape (scored,).
        spans: Shape (scored, 2), as in `PairScores`.
        rest: Positions of the other candidates, in the order that ``source`` gives them.
        source: Whose order that is.
        opinions: As in `ScoringPlan`.
    """

    positions: list[int]
    logits: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    spans: NDArray[np.int64]
    rest: list[int]
    source: Source
    opinions: list[float] | None

    def values(self, candidates: Sequence[Candidate], weight: float) -> NDArray[np.float64]:
        """What orders the scored ones, shape (scored,): logits, blended with the first stage's.

        Only what was scored is standardized: the rest is compared with nothing, so the head
        comes out as it would if there were no rest.
        """
        some = [candidates[at] for at in self.positions]
        if self.opinions is not None:
            some = [
                replace(one, score=self.opinions[at])
                for at, one in zip(self.positions, some, strict=True)
            ]
        return blended(self.logits, some, weight)

    def opinion(self, candidates: Sequence[Candidate], weight: float) -> list[float] | None:
        """What `order` goes by, one number per candidate; None if some were not scored."""
        return None if self.rest else self.values(candidates, weight).tolist()

    def order(self, candidates: Sequence[Candidate], weight: float) -> list[int]:
        """Positions of all candidates, best first."""
        best = descending(self.values(candidates, weight))
        return [self.positions[at] for at in best] + self.rest

    def ranked(self, candidates: Sequence[Candidate], weight: float, cut: Cut) -> list[Ranked]:
        """The candidates that the cut keeps, best first.

        Its threshold drops what the model scored too low; what a small model held below the big
        one's head as well, but nothing that only time was short for.
        """
        values = self.values(candidates, weight)
        shown = sigmoid(values) if cut.probability else values
        best, rest = descending(values), self.rest
        lowest = float(shown[best[-1]]) if best.size else None
        below = _below(lowest, probability=cut.probability)
        if cut.threshold is not None and best.size:
            best = best[shown[best] >= cut.threshold]
            rest = [] if self.source == "small_model" else rest
        if cut.keep is not None:
            best = best[: cut.keep]
            rest = rest[: cut.keep - len(best)]
        # Native numbers all at once: one at a time, numpy's take longer than the rest of this.
        columns = (best, shown[best], self.logits[best], self.truncated[best], self.spans[best])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        items = [
            Ranked(
                candidate=candidates[self.positions[at]],
                score=score,
                logit=logit,
                rank=rank,
                truncated=truncated,
                span=None if span[0] < 0 else (span[0], span[1]),
            )
            for rank, (at, score, logit, truncated, span) in enumerate(rows, start=1)
        ]
        return items + [
            Ranked(
                candidate=candidates[position],
                score=below(place),
                logit=None,
                rank=len(items) + place,
                source=self.source,
            )
            for place, position in enumerate(rest, start=1)
        ]


def with_unread(ranking: Ranking, unread: Sequence[Candidate], keep: int | None) -> Ranking:
    """The ranking with candidates that no model can read, such as images, below it.

    Args:
        ranking: Of the others, at most ``keep`` of them.
        unread: In first-stage order; marked as that by their ``source``.
        keep: How many to keep of all; None for all.
    """
    items = ranking.items
    below = _below(items[-1].score if items else None, probability=ranking.scale != "logit")
    room = len(unread) if keep is None else max(0, keep - len(items))
    added = (
        Ranked(one, below(place), None, len(items) + place, source="first_stage")
        for place, one in enumerate(unread[:room], start=1)
    )
    total = ranking.candidates + len(unread)
    return replace(ranking, items=(*items, *added), candidates=total)


def _below(lowest: float | None, *, probability: bool) -> Callable[[int], float]:
    """Scores that continue downwards from the model's lowest, on its scale, rank by rank.

    They say nothing but the place, so that whoever sorts by score keeps the order.
    """
    if lowest is None:
        return lambda place: 1.0 / place
    if probability:
        return lambda place: lowest / (1 + place)
    return lambda place: lowest - place


def planned_pairs(
    queries: Sequence[str],
    lists: Sequence[Sequence[Candidate]],
    plans: Sequence[ScoringPlan],
    *,
    interleaved: bool,
) -> tuple[list[tuple[str, str]], NDArray[np.intp]]:
    """The (query, passage) pairs to score and, shape (pairs,), the query of each.

    Args:
        queries: Texts.
        lists: The candidates of each query.
        plans: One per query.
        interleaved: The first pair of every query first, for when time may run out.
    """
    pairs = [
        (query, some[position].text)
        for query, some, plan in zip(queries, lists, plans, strict=True)
        for position in plan.order[: plan.head]
    ]
    numbers = np.repeat(np.arange(len(plans)), [plan.head for plan in plans])
    if interleaved:
        places = np.concatenate([np.arange(plan.head) for plan in plans])
        order = np.argsort(places, kind="stable")
        numbers, pairs = numbers[order], [pairs[at] for at in order.tolist()]
    return pairs, numbers


def by_query(
    plans: Sequence[ScoringPlan], numbers: NDArray[np.intp], scores: PairScores
) -> list[ScoredList]:
    """One record a query.

    Args:
        plans: One per query.
        numbers: Shape (pairs,), the query of each pair that was to be scored; the pairs of one
            query follow its plan's order.
        scores: Of these.
    """
    spans = no_spans(len(numbers)) if scores.spans is None else scores.spans
    rows = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[rows], np.arange(len(plans) + 1))
    lists = []
    for plan, (start, stop) in zip(plans, pairwise(ends.tolist()), strict=True):
        some, order = rows[start:stop], np.asarray(plan.order, dtype=np.intp)
        has = np.zeros(len(order), dtype=np.bool_)
        has[: len(some)] = True if scores.scored is None else scores.scored[some]
        ascending = np.argsort(order[has])
        at = some[has[: len(some)]][ascending]
        lists.append(
            ScoredList(
                positions=order[has][ascending].tolist(),
                logits=scores.logits[at],
                truncated=scores.truncated[at],
                spans=spans[at],
                rest=order[~has].tolist(),
                source=plan.source,
                opinions=plan.opinions,
            )
        )
    return lists
