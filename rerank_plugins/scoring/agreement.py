"""How alike two scorers order the same lists, and whether the faster one may be used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from typing_extensions import Protocol

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.base import PairScores, ScoreOptions

# Below these an order is another one; between them the user's own questions must tell.
_SAME_TAU: Final = 0.95
_OTHER_TAU: Final = 0.85
_SMALL_LOSS: Final = 0.005
_LARGE_LOSS: Final = 0.02
_FASTER: Final = 1.1


class _Scores(Protocol):
    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores: ...


@dataclass(frozen=True, slots=True)
class LabelledList:
    """A query, passages, and how relevant each is: 0 for not, higher for more.

    Attributes:
        query: Text.
        passages: Texts.
        grades: One per passage, at least 0.
    """

    query: str
    passages: Sequence[str]
    grades: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.grades) != len(self.passages) or any(grade < 0 for grade in self.grades):
            raise InvalidInputError(
                "a labelled list must have one grade of at least 0 per passage, but got "
                f"{len(self.passages)} passages and the grades {list(self.grades)[:5]}"
            )


def agreement(one: _Scores, other: _Scores, lists: Sequence[LabelledList]) -> dict[str, Any]:
    """How alike two scorers order the same lists.

    nDCG is scikit-learn's, with the grades as gains; lists without a relevant passage do not
    count for it. Lists of one passage count for neither.

    Args:
        one: The exact scorer, called ``fp32`` in the report.
        other: The one to be judged, called ``int8``.
        lists: What both score.

    Returns:
        See `rerank_plugins.scoring.quantization.quantize`.

    Raises:
        InvalidInputError: No query has two passages.
    """
    from scipy.stats import kendalltau
    from sklearn.metrics import ndcg_score

    lists = measurable(lists)
    pairs = [(some.query, passage) for some in lists for passage in some.passages]
    logits = [scorer.score(pairs, ScoreOptions()).logits for scorer in (one, other)]
    taus: list[float] = []
    gains: list[list[float]] = [[], []]
    start = 0
    for some in lists:
        part = slice(start, start + len(some.passages))
        start = part.stop
        tau = float(kendalltau(logits[0][part], logits[1][part]).statistic)
        if np.isfinite(tau):  # all scores equal: no order to agree on
            taus.append(tau)
        if any(some.grades):
            for gain, values in zip(gains, logits, strict=True):
                gain.append(float(ndcg_score([list(some.grades)], [values[part]], k=10)))
    return {
        "kendall_tau": float(np.mean(taus)) if taus else None,
        "largest_difference": float(np.abs(logits[0] - logits[1]).max()),
        "logit_deviation": float(logits[0].std()),
        "ndcg_at_10": _means(gains),
        "queries": len(lists),
        "pairs": len(pairs),
    }


def measurable(lists: Sequence[LabelledList]) -> list[LabelledList]:
    """The lists that have an order: those of two passages or more.

    Raises:
        InvalidInputError: If there is nothing to compare.
    """
    found = [some for some in lists if len(some.passages) > 1]
    if not found:
        raise InvalidInputError(
            "measuring agreement needs a query with at least two passages; pass labelled= or "
            "more pairs"
        )
    return found


def pairs_per_second(
    scorers: Sequence[_Scores], lists: Sequence[LabelledList], rounds: int = 2
) -> list[float]:
    """Throughput of each scorer, one query at a time; the best of alternating rounds.

    Args:
        scorers: Are asked once more before, to be warm.
        lists: What is scored, a query per call.
        rounds: How often each scorer is timed.
    """
    pairs = sum(len(some.passages) for some in lists)
    best = [float("inf")] * len(scorers)
    for scorer in scorers:
        scorer.score([(lists[0].query, text) for text in lists[0].passages], ScoreOptions())
    for _ in range(rounds):
        for number, scorer in enumerate(scorers):
            start = time.perf_counter()
            for some in lists:
                scorer.score([(some.query, text) for text in some.passages], ScoreOptions())
            best[number] = min(best[number], time.perf_counter() - start)
    return [pairs / seconds for seconds in best]


def advice(report: dict[str, Any]) -> str:
    """One sentence: whether to use int8, by a report of `quantize`.

    The order counts as kept where Kendall's tau is at least 0.95 and nDCG@10 falls by at most
    0.005, and as lost where tau is below 0.85 or nDCG@10 falls by more than 0.02.
    """
    tau, gains = report["kendall_tau"], report["ndcg_at_10"]
    loss = 0.0 if gains is None else gains["fp32"] - gains["int8"]
    speeds = report.get("pairs_per_second")
    faster = None if speeds is None else speeds["int8"] / speeds["default"]
    if tau is None:
        return "All scores of each query are equal: this says nothing about int8; use other pairs."
    if tau < _OTHER_TAU or loss > _LARGE_LOSS:
        return "Do not use int8 for this model: its order is another one."
    if faster is not None and faster < _FASTER:
        return (
            f"Do not use int8 on this machine: it is {faster:.2f} times as fast as the default; "
            "int8 pays where the CPU has instructions for it (VNNI or AMX)."
        )
    gain = "" if faster is None else f": {faster:.1f} times as fast as the default"
    if tau >= _SAME_TAU and loss <= _SMALL_LOSS:
        return f'Use it with precision="int8"{gain}, and the order is kept.'
    return f"The order changes a little{gain}; compare both on your own questions before use."


def _means(gains: list[list[float]]) -> dict[str, float] | None:
    if not gains[0]:
        return None
    return {"fp32": float(np.mean(gains[0])), "int8": float(np.mean(gains[1]))}


def by_query(pairs: Sequence[tuple[str, str]]) -> list[LabelledList]:
    """Pairs of one query as a list, without labels; the queries in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for query, passage in pairs:
        found.setdefault(query, {})[passage] = None
    return [LabelledList(query, list(some), [0.0] * len(some)) for query, some in found.items()]
