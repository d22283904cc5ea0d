"""What a comparison found: per-query values, and what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.significance import bootstrap_interval, holm, randomization_test

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SystemResult:
    """A first stage, alone or with a reranker.

    Attributes:
        name: What tables show.
        first_stage: Name of the first stage.
        reranker: Name of the reranker; None for the first stage alone.
        values: By measure, shape (queries,), in the order of the comparison's queries.
        rankings: By query id, passage ids, best first.
        scores: By query id, the system's own score of each ranked passage; None where it
            shows none.
        seconds: Shape (queries,), first stage and reranking together.
        pairs: How many (query, passage) pairs the reranker scored; 0 without one.
        scoring_seconds: What the reranker took for all of them.
    """

    name: str
    first_stage: str
    reranker: str | None
    values: Mapping[str, NDArray[np.float64]]
    rankings: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, tuple[float | None, ...]]
    seconds: NDArray[np.float64]
    pairs: int
    scoring_seconds: float

    @property
    def pairs_per_second(self) -> float | None:
        """Of the reranker; None without one."""
        return self.pairs / self.scoring_seconds if self.pairs else None

    def latency(self, percentile: float) -> float:
        """Seconds within which that many percent of the queries were answered."""
        return float(np.percentile(self.seconds, percentile))


@dataclass(frozen=True, slots=True)
class Difference:
    """One system against another, query by query.

    Attributes:
        system: Name.
        baseline: Name of the one it is compared with.
        measure: Name.
        mean: System minus baseline, mean over the queries.
        interval: 95% paired bootstrap interval of the mean; None for a single query.
        p_value: Of the paired randomization test.
        corrected: The same, corrected by Holm for all systems compared with this baseline.
        better: Queries on which the system is above the baseline.
        worse: Queries on which it is below.
    """

    system: str
    baseline: str
    measure: str
    mean: float
    interval: Interval | None
    p_value: float
    corrected: float
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class Hurt:
    """A query on which reranking lost.

    Attributes:
        query_id: Of the set.
        query: Its text.
        before: The measure with the first stage alone.
        after: With reranking.
        relevant: The relevant passage that the first stage had highest; None if it found none.
        rank_before: Its rank from 1; None if it was not found.
        rank_after: Likewise, after reranking.
        preferred: The passage that reranking put first; None if it kept none.
    """

    query_id: str
    query: str
    before: float
    after: float
    relevant: str | None
    rank_before: int | None
    rank_after: int | None
    preferred: str | None


@dataclass(frozen=True, slots=True)
class ScoredPassages:
    """Every passage that a system gave a score, over all queries; for plots.

    Attributes:
        scores: Shape (n,).
        relevant: Shape (n,), True where the passage is judged relevant.
        words: Shape (n,), the passages' lengths in words.
    """

    scores: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    words: NDArray[np.int64]


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

    @property
    def baseline(self) -> str:
        """The first system's name."""
        return next(iter(self.systems))

    def interval(self, system: str, measure: str | None = None) -> Interval | None:
        """95% bootstrap interval of a system's mean; None for a single query."""
        return bootstrap_interval(self._values(system, measure), seed=self.seed)

    def versus(self, baseline: str | None = None, measure: str | None = None) -> list[Difference]:
        """Every other system against one, with p-values corrected for their number.

        Args:
            baseline: A system's name; the first system when None.
            measure: A measure's name; the main one when None.

        Raises:
            InvalidInputError: There is no such system or measure.
        """
        baseline = self.baseline if baseline is None else baseline
        measure = self.measures[0] if measure is None else measure
        reference = self._values(baseline, measure)
        others = [name for name in self.systems if name != baseline]
        p_values = [
            randomization_test(self._values(name, measure), reference, seed=self.seed)
            for name in others
        ]
        differences = []
        for name, p_value, corrected in zip(others, p_values, holm(p_values), strict=True):
            gain = self._values(name, measure) - reference
            differences.append(
                Difference(
                    system=name,
                    baseline=baseline,
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
            InvalidInputError: There is no such system or measure, or it has no reranker.
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
            InvalidInputError: There is no such system.
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
        """One record a system, native types: means, intervals, gain, p-value, times.

        Seconds are those of one query; ``gain`` and ``p_value`` (Holm) are of the main measure
        against the first system; ``bound`` is the first stage's.
        """
        main = self.measures[0]
        versus = {difference.system: difference for difference in self.versus()}
        rows = []
        for name, system in self.systems.items():
            against = versus.get(name)
            rows.append(
                {
                    "set": self.name,
                    "queries": len(self.queries),
                    "system": name,
                    **{of: float(values.mean()) for of, values in system.values.items()},
                    "interval": self.interval(name),
                    "bound": float(self.bounds[system.first_stage][main].mean()),
                    "gain": None if against is None else against.mean,
                    "gain_interval": None if against is None else against.interval,
                    "p_value": None if against is None else against.corrected,
                    "better": None if against is None else against.better,
                    "worse": None if against is None else against.worse,
                    "seconds_p50": system.latency(50),
                    "seconds_p95": system.latency(95),
                    "pairs_per_second": system.pairs_per_second,
                }
            )
        return rows

    def table(self) -> str:
        """The rows as plain text."""
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

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one HTML page that needs no other file; written to a path if given."""
        from rerank_plugins.evaluation.report import html_report

        page = html_report([self])
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def _values(self, system: str, measure: str | None) -> NDArray[np.float64]:
        measure = self.measures[0] if measure is None else measure
        for kind, name, known in (
            ("system", system, tuple(self.systems)),
            ("measure", measure, self.measures),
        ):
            if name not in known:
                raise InvalidInputError(f"{kind} must be one of {list(known)}, but got {name!r}")
        return self.systems[system].values[measure]


def table(comparisons: Sequence[Comparison]) -> str:
    """Several comparisons of the same measures as one table of plain text.

    With more than one, the last rows are the means over the sets, each set counting alike,
    of the systems that all of them have.

    Raises:
        InvalidInputError: There is none, or their measures differ.
    """
    from tabulate import tabulate

    if len({comparison.measures for comparison in comparisons}) != 1:
        raise InvalidInputError("a table needs comparisons of the same measures")
    measures = comparisons[0].measures
    headers = ["set", "queries", "system", measures[0], "95%", *measures[1:]]
    headers += ["bound", "gain", "95%", "p (Holm)", "p50 ms", "p95 ms", "pairs/s"]
    sets = [comparison.rows() for comparison in comparisons]
    rows = [row for of_set in sets for row in of_set]
    if len(sets) > 1:
        rows += _means(sets, [*measures, "bound", "gain"])
    body = [_cells(row, measures) for row in rows]
    return tabulate(body, headers=headers, disable_numparse=True)


def _means(sets: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]) -> list[Any]:
    """A row a system that all sets have: the mean over the sets of each named number."""
    by_system: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for of_set in sets for row in of_set):
        by_system.setdefault(row["system"], []).append(row)
    return [
        {
            "set": "mean of sets",
            "queries": sum(row["queries"] for row in rows),
            "system": system,
            **{
                name: None
                if any(row[name] is None for row in rows)
                else float(np.mean([row[name] for row in rows]))
                for name in names
            },
        }
        for system, rows in by_system.items()
        if len(rows) == len(sets)
    ]


def system_name(first_stage: str, reranker: str | None) -> str:
    """What tables call the two together."""
    return first_stage if reranker is None else f"{first_stage} + {reranker}"


def _cells(row: Mapping[str, Any], measures: Sequence[str]) -> list[Any]:
    """A row of `Comparison.rows`, or of their means, as the table's columns have it."""

    def number(name: str, how: str, times: float = 1.0) -> str:
        value = row.get(name)
        return "" if value is None else format(times * value, how)

    return [
        row["set"],
        row["queries"],
        row["system"],
        number(measures[0], ".3f"),
        shown(row.get("interval")),
        *(number(measure, ".3f") for measure in measures[1:]),
        number("bound", ".3f"),
        number("gain", "+.3f"),
        shown(row.get("gain_interval"), sign="+"),
        number("p_value", ".4f"),
        number("seconds_p50", ".1f", 1000),
        number("seconds_p95", ".1f", 1000),
        number("pairs_per_second", ".0f"),
    ]


def shown(interval: Interval | None, *, sign: str = "") -> str:
    """An interval as tables have it."""
    return "" if interval is None else f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"
