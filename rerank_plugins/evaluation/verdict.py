"""The answer that a comparison was made for: does reranking help, and what does it cost?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.evaluation.results import Comparison
from rerank_plugins.evaluation.systems import Difference

Kind = Literal["helps", "harms", "open"]

LEVEL: Final = 0.05
# Normal quantiles of a two-sided test at the 5% level with a power of 80%.
_QUANTILES: Final = 1.959964 + 0.841621
_MOST_QUESTIONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says of one reranker over one first stage.

    Attributes:
        kind: ``helps`` or ``harms`` where the gain is significant, that is, its interval does
            not contain 0 and its corrected p-value is below 0.05; else ``open``.
        reranker: Name.
        before: Mean of the main measure with the first stage alone.
        after: With reranking.
        difference: The gain, with interval and p-value; its ``baseline`` is the first stage.
        extra_seconds: Median time per query, minus that of the first stage alone.
        queries: How many were asked.
        queries_needed: About how many would show a gain of this size to be significant in 80%
            of all draws; None where the gain is 0 or far too small.
    """

    kind: Kind
    reranker: str
    before: float
    after: float
    difference: Difference
    extra_seconds: float
    queries: int
    queries_needed: int | None

    def text(self, named: Callable[[str], str] = str) -> str:
        """One or two sentences.

        Args:
            named: Writes the name of a system or measure; for HTML, say.
        """
        gain, cost = self.difference, f"{1000 * self.extra_seconds:,.0f} ms per query (median)"
        what = f"reranking {named(gain.baseline)} with {named(self.reranker)}"
        measure = named(gain.measure)
        numbers = f"from {self.before:.3f} to {self.after:.3f} (gain {gain.mean:+.3f}"
        if gain.interval is not None:
            low, high = gain.interval
            numbers += f", 95% interval {low:+.3f} to {high:+.3f}"
        numbers += f", p {gain.corrected:.3f})"
        if self.kind == "helps":
            return f"{_capital(what)} raises {measure} {numbers} and costs {cost}. Use it."
        if self.kind == "harms":
            return f"{_capital(what)} lowers {measure} {numbers}. Do not use it here."
        moves = "leaves" if gain.mean == 0 else "moves"
        more = ""
        if self.queries_needed is not None and self.queries_needed > self.queries:
            more = f" A difference of this size needs about {self.queries_needed:,} questions."
        questions = "this question does" if self.queries == 1 else f"{self.queries} questions do"
        return (
            f"{_capital(what)} {moves} {measure} {numbers} and costs {cost}: {questions} not tell "
            f"whether it helps.{more}"
        )


def verdicts(comparison: Comparison) -> list[Verdict]:
    """One per reranked system: those that help first, then by what they reach."""
    main = comparison.measures[0]
    found = []
    for difference in comparison.gains():
        system = comparison.systems[difference.system]
        if system.reranker is None:
            continue
        first = comparison.systems[system.first_stage]
        found.append(
            Verdict(
                kind=_kind(difference),
                reranker=system.reranker,
                before=float(first.values[main].mean()),
                after=float(system.values[main].mean()),
                difference=difference,
                extra_seconds=max(0.0, system.latency(50) - first.latency(50)),
                queries=len(comparison.queries),
                queries_needed=_queries_needed(system.values[main] - first.values[main]),
            )
        )
    return sorted(found, key=lambda one: (one.kind != "helps", -one.after))


def _kind(difference: Difference) -> Kind:
    if difference.interval is None or difference.corrected >= LEVEL:
        return "open"
    low, high = difference.interval
    if low > 0:
        return "helps"
    return "harms" if high < 0 else "open"


def _queries_needed(gains: NDArray[np.float64]) -> int | None:
    mean = abs(float(gains.mean()))
    if gains.size < 2 or mean == 0.0:
        return None
    needed = (_QUANTILES * float(gains.std(ddof=1)) / mean) ** 2
    if needed > _MOST_QUESTIONS:
        return None
    unit: int = 10 ** max(0, math.floor(math.log10(max(needed, 1.0))) - 1)
    return math.ceil(needed / unit) * unit


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
