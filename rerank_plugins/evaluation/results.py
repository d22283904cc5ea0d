"""What a comparison found: per-query values, and what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.significance import (
    Interval,
    bootstrap_interval,
    holm,
    randomization_test,
)
from rerank_plugins.evaluation.systems import Difference, Hurt, ScoredPassages, SystemResult
from rerank_plugins.evaluation.tables import table


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Attributes:
        name: Of the set.
        queries: The queries that were asked: text by id.
        corpus: Passage text by passage id.
        qrels: The judgements of the queries.
        candidates: How many passages of a first stage counted at most.
        measures: Names; the first is the main one.
        systems: By name, in the order in which they were given; the first is the baseline.
        bounds: By first stage and measure, what a perfect order of its candidates would get,
            shape (queries,): far above what reranking gets, work on ranking; near it, work on
            retrieval.
        seed: Of all resampling.
        rerankers: By reranker, what its ``describe()`` says, where it has one and scored
            something in this run.
    """

    name: str
    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]
    candidates: int
    measures: tuple[str, ...]
    systems: Mapping[str, SystemResult]
    bounds: Mapping[str, Mapping[str, NDArray[np.float64]]]
    seed: int = 0
    rerankers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """The first system's name."""
        return next(iter(self.systems))

    def interval(self, system: str, measure: str | None = None) -> Interval | None:
        """95% bootstrap interval of a system's mean; None for a single query."""
        return bootstrap_interval(self._values(system, measure), seed=self.seed)

    def gains(self, measure: str | None = None) -> list[Difference]:
        """What each reranker adds to its own first stage.

        First stages beside the first one are compared with that. Holm's correction counts
        all of them.

        Args:
            measure: A measure's name; the main one when None.

        Raises:
            InvalidInputError: If there is no such measure.
        """
        own = [
            (name, self.baseline if system.reranker is None else system.first_stage)
            for name, system in self.systems.items()
            if name != self.baseline
        ]
        return self._differences(own, measure)

    def versus(self, baseline: str | None = None, measure: str | None = None) -> list[Difference]:
        """Every other system against one, with p-values corrected for their number.

        Args:
            baseline: A system's name; the first system when None.
            measure: A measure's name; the main one when None.

        Raises:
            InvalidInputError: If there is no such system or measure.
        """
        baseline = self.baseline if baseline is None else baseline
        self._values(baseline, measure)
        return self._differences(
            [(name, baseline) for name in self.systems if name != baseline], measure
        )

    def _differences(
        self, pairs: Sequence[tuple[str, str]], measure: str | None
    ) -> list[Difference]:
        """Each system of the pairs against the other one."""
        measure = self.measures[0] if measure is None else measure
        values = [
            (self._values(name, measure), self._values(other, measure)) for name, other in pairs
        ]
        p_values = [randomization_test(*both, seed=self.seed) for both in values]
        differences = []
        for (name, other), (own, reference), p_value, corrected in zip(
            pairs, values, p_values, holm(p_values), strict=True
        ):
            gain = own - reference
            differences.append(
                Difference(
                    system=name,
                    baseline=other,
                    measure=measure,
                    mean=float(gain.mean()),
                    interval=bootstrap_interval(gain, seed=self.seed),
                    p_value=p_value,
                    corrected=corrected,
                    better=int((gain > 0).sum()),
                    worse=int((gain < 0).sum()),
                )
            )
        return differences

    def hurt_most(self, system: str, n: int = 10, measure: str | None = None) -> list[Hurt]:
        """The queries on which a reranker lost most against its own first stage.

        Args:
            system: Name of a system with a reranker.
            n: How many at most; only queries that lost are given.
            measure: A measure's name; the main one when None.

        Raises:
            InvalidInputError: If there is no such system or measure, or it has no reranker.
        """
        after = self._values(system, measure)
        result = self.systems[system]
        if result.reranker is None:
            raise InvalidInputError(f"{system!r} has no reranker: nothing could be hurt")
        before = self._values(result.first_stage, measure)
        ids = list(self.queries)
        order = np.argsort(after - before, kind="stable")[:n]
        return [
            self._hurt(ids[at], float(before[at]), float(after[at]), result)
            for at in order
            if after[at] < before[at]
        ]

    def _hurt(self, query: str, before: float, after: float, result: SystemResult) -> Hurt:
        first, last = self.systems[result.first_stage].rankings[query], result.rankings[query]
        right = {passage for passage, grade in self.qrels[query].items() if grade > 0}
        relevant = next((passage for passage in first if passage in right), None)
        return Hurt(
            query_id=query,
            query=self.queries[query],
            before=before,
            after=after,
            relevant=None if relevant is None else self.corpus[relevant],
            rank_before=None if relevant is None else first.index(relevant) + 1,
            rank_after=last.index(relevant) + 1 if relevant in last else None,
            preferred=self.corpus[last[0]] if last else None,
        )

    def scored_passages(self, system: str) -> ScoredPassages:
        """What a system's scores say of passages, relevant ones and others, long and short.

        Goes into `rerank_plugins.display.plot_calibration` and ``plot_score_length``.

        Args:
            system: A system's name.

        Raises:
            InvalidInputError: If there is no such system.
        """
        self._values(system, None)
        result = self.systems[system]
        words = {passage: len(text.split()) for passage, text in self.corpus.items()}
        found = [
            (score, self.qrels[query].get(passage, 0.0) > 0, words[passage])
            for query, ranking in result.rankings.items()
            for passage, score in zip(ranking, result.scores[query], strict=True)
            if score is not None
        ]
        scores, relevant, lengths = zip(*found, strict=True) if found else ((), (), ())
        return ScoredPassages(
            np.asarray(scores, dtype=np.float64),
            np.asarray(relevant, dtype=np.bool_),
            np.asarray(lengths, dtype=np.int64),
        )

    def rows(self) -> list[dict[str, Any]]:
        """One record per system, native types: means, intervals, gain, p-value, times.

        ``intervals`` has each measure's 95% interval, ``interval`` the main measure's. ``gain``
        and ``p_value`` (Holm) are those of `gains` for the main measure, against the system
        named in ``against``. ``bound`` is what a perfect order of the first stage's candidates
        would get. Seconds are per query.
        """
        main = self.measures[0]
        gains = {difference.system: difference for difference in self.gains()}
        rows = []
        for name, system in self.systems.items():
            gain = gains.get(name)
            rows.append(
                {
                    "set": self.name,
                    "queries": len(self.queries),
                    "system": name,
                    **{of: float(values.mean()) for of, values in system.values.items()},
                    "interval": self.interval(name),
                    "intervals": {of: self.interval(name, of) for of in self.measures},
                    "bound": float(self.bounds[system.first_stage][main].mean()),
                    "against": None if gain is None else gain.baseline,
                    "gain": None if gain is None else gain.mean,
                    "gain_interval": None if gain is None else gain.interval,
                    "p_value": None if gain is None else gain.corrected,
                    "better": None if gain is None else gain.better,
                    "worse": None if gain is None else gain.worse,
                    "seconds_p50": system.latency(50),
                    "seconds_p95": system.latency(95),
                    "pairs_per_second": system.pairs_per_second,
                }
            )
        return rows

    def table(self) -> str:
        """The rows as plain text, with what the columns mean below."""
        return table([self])

    def to_dict(self) -> dict[str, Any]:
        """Native Python types, ready for JSON: the rows, and each query's values."""
        return {
            "set": self.name,
            "candidates": self.candidates,
            "measures": list(self.measures),
            "baseline": self.baseline,
            "seed": self.seed,
            "systems": self.rows(),
            "queries": [
                {
                    "id": query,
                    "values": {
                        name: {of: float(values[place]) for of, values in system.values.items()}
                        for name, system in self.systems.items()
                    },
                }
                for place, query in enumerate(self.queries)
            ],
        }

    def _values(self, system: str, measure: str | None) -> NDArray[np.float64]:
        measure = self.measures[0] if measure is None else measure
        for kind, name, known in (
            ("system", system, tuple(self.systems)),
            ("measure", measure, self.measures),
        ):
            if name not in known:
                raise InvalidInputError(f"{kind} must be one of {list(known)}, but got {name!r}")
        return self.systems[system].values[measure]
