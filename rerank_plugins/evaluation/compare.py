"""`compare`: several first stages and rerankers over one set of questions."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rerank_plugins import __version__
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.bridges import FirstStageBridge, Found, Passages, RerankerBridge
from rerank_plugins.evaluation.data import QuestionSet, sample_queries
from rerank_plugins.evaluation.measures import DEFAULT_MEASURES, evaluate_rankings, parse_measures
from rerank_plugins.evaluation.results import Comparison
from rerank_plugins.evaluation.runs import RunFile, data_digest, digest, settings_of
from rerank_plugins.evaluation.sharing import SharedScores
from rerank_plugins.evaluation.systems import SystemResult, system_name
from rerank_plugins.ordering import descending

DEFAULT_CANDIDATES = 50


def compare(
    data: QuestionSet,
    first_stages: Mapping[str, Any],
    rerankers: Mapping[str, Any] | Sequence[str] = (),
    *,
    candidates: int | None = DEFAULT_CANDIDATES,
    measures: Sequence[str] = DEFAULT_MEASURES,
    queries: int | None = None,
    seed: int = 0,
    alone: Collection[str] = (),
    runs: str | Path | None = None,
) -> Comparison:
    """Each first stage alone, and each reranker over each first stage's candidates.

    Queries are asked one at a time, as a user would, and timed. A retriever that has its own
    reranker inside is compared as a first stage. Pairs that several first stages bring are
    scored once; each system's time counts them, as `SharedScores` says.

    Args:
        data: Questions, passages and judgements.
        first_stages: By the name that tables show; see `FirstStageBridge` for what can be
            given. LangChain and LlamaIndex retrievers bring as many passages as they are set
            to.
        rerankers: By name; see `RerankerBridge` for what can be given. A list of model names
            is shorthand for each under its own name.
        candidates: How many passages of a first stage count, and are reranked, at least 1; None
            for all.
        measures: Names; the first one is the main one, which gains and reports are about.
        queries: How many to draw; None for all.
        seed: Of the draw and of all resampling.
        alone: Names of first stages that no reranker reorders.
        runs: Folder where answers are kept, one file per system. Rerun the same call to resume
            after an interrupt; other settings, candidates or passages make another file.

    Returns:
        What each system got by each query, with times, tests and the first stages' bounds.

    Raises:
        InvalidInputError: If an argument is invalid.
        MissingDependencyError: If the extra ``evaluation`` is not installed.
        RerankPluginsError: If a system failed; what was answered before is kept in ``runs``.
    """
    names = tuple(name.strip() for name in check_names("measures", measures))
    parse_measures(names)
    _check_stages(first_stages, alone, bool(rerankers))
    depth = check_candidates(candidates, len(data.corpus))
    if not isinstance(rerankers, Mapping):
        rerankers = {str(model): model for model in check_names("rerankers", rerankers)}
    drawn = sample_queries(data, queries, seed=seed)
    if not drawn.queries:
        raise InvalidInputError(f"{data.name} has no queries: nothing can be measured")
    answers = _Answers(drawn, names, depth, runs)
    passages, shared = Passages(drawn), dict[int, SharedScores]()
    bridges = {
        name: RerankerBridge(reranker, passages, shared) for name, reranker in rerankers.items()
    }
    for name, stage in first_stages.items():
        answers.find(name, stage, passages)
        for model, bridge in bridges.items() if name not in alone else ():
            answers.order(name, model, bridge)
    return Comparison(
        name=data.name,
        queries=drawn.queries,
        corpus=drawn.corpus,
        qrels=drawn.qrels,
        candidates=depth,
        measures=names,
        systems=answers.systems,
        bounds=answers.bounds,
        seed=seed,
        rerankers={name: bridge.describe() for name, bridge in bridges.items()},
    )


class _Answers:
    """What each system answers, kept in a file per system, and what that is worth.

    Args:
        data: What is asked, and the judgements.
        measures: Names.
        depth: How many passages of a first stage count.
        runs: Folder of the files; None for memory alone.
    """

    def __init__(
        self, data: QuestionSet, measures: Sequence[str], depth: int, runs: str | Path | None
    ) -> None:
        self.systems: dict[str, SystemResult] = {}
        self.bounds: dict[str, Mapping[str, Any]] = {}
        self._data, self._measures, self._depth, self._runs = data, measures, depth, runs
        self._corpus = data_digest(data)
        self._settings: dict[str, dict[str, Any]] = {}
        self._files: dict[str, RunFile] = {}

    def find(self, name: str, stage: Any, passages: Passages) -> None:
        """Asks a first stage, and bounds what reranking can make of its answers."""
        self._settings[name] = {
            "version": __version__,
            "passages": self._corpus,
            "candidates": self._depth,
            "name": name,
            "first stage": _settings(stage),
        }
        file = self._files[name] = self._file(name, self._settings[name])
        _find_all(file, name, FirstStageBridge(stage, passages), self._data, self._depth)
        system = self.systems[name] = _result(name, None, self._data, self._measures, [file])
        perfect = _perfect(self._data, system.rankings)
        judged = _judged(self._data)
        self.bounds[name] = evaluate_rankings(judged, perfect, self._measures).by_measure

    def order(self, name: str, model: str, bridge: RerankerBridge) -> None:
        """Has what a first stage found reordered."""
        both = system_name(name, model)
        more = {"name": both, "reranker": settings_of(bridge.reranker)}
        first, second = self._files[name], self._file(both, {**self._settings[name], **more})
        _order_all(second, both, bridge, self._data, first)
        self.systems[both] = _result(name, model, self._data, self._measures, [first, second])

    def _file(self, name: str, settings: dict[str, Any]) -> RunFile:
        return RunFile(self._runs, f"{self._data.name} {name}", settings)


def check_candidates(candidates: int | None, passages: int) -> int:
    """How many passages count; None for all of the corpus.

    Raises:
        InvalidInputError: If it is not a whole number of at least 1.
    """
    return passages if candidates is None else check_count("candidates", candidates, minimum=1)


def check_names(name: str, given: Iterable[str]) -> list[str]:
    """A list of names, not one name, whose letters would count as names.

    Raises:
        InvalidInputError: If it is one text.
    """
    if isinstance(given, str):
        raise InvalidInputError(f"{name} must be a list of names, but got the text {given!r}")
    return list(given)


def _check_stages(
    first_stages: Mapping[str, Any], alone: Collection[str], has_rerankers: bool
) -> None:
    if not first_stages:
        raise InvalidInputError("compare needs at least one first stage, but got none")
    unknown = sorted(set(check_names("alone", alone)) - set(first_stages))
    if unknown:
        raise InvalidInputError(
            f"alone must name first stages, one of {list(first_stages)}, but got {unknown}"
        )
    if has_rerankers and set(alone) == set(first_stages):
        raise InvalidInputError(
            f"rerankers need a first stage to rerank, but alone names all of {list(first_stages)}"
        )


def _find_all(
    file: RunFile, name: str, bridge: FirstStageBridge, data: QuestionSet, depth: int
) -> None:
    asked = {query: digest(text) for query, text in data.queries.items()}
    missing = file.missing(asked)
    for query in tqdm(missing, desc=name, unit="query", disable=None, leave=False):
        start = time.perf_counter()
        found = bridge.find(query, data.queries[query], depth)
        _add(file, query, asked[query], found, time.perf_counter() - start)


def _order_all(
    file: RunFile, name: str, bridge: RerankerBridge, data: QuestionSet, first: RunFile
) -> None:
    given = {query: _found(first.answers[query]) for query in data.queries}
    asked = {query: digest([text, given[query]]) for query, text in data.queries.items()}
    missing = file.missing(asked)
    bar = tqdm(missing, desc=name, unit="query", disable=None, leave=False)
    for number, query in enumerate(bar):
        text, candidates = data.queries[query], given[query]
        if number == 0:
            # A model is loaded at its first use, which is not part of any query's time.
            bridge.warm_up(text, candidates)
        start = time.perf_counter()
        ordered = bridge.order(text, candidates)
        seconds = time.perf_counter() - start + bridge.saved_seconds()
        _add(file, query, asked[query], ordered, seconds, pairs=len(candidates))


def _settings(stage: Any) -> Any:
    """A first stage's settings; given candidates are identified by all their content."""
    if not isinstance(stage, Mapping):
        return settings_of(stage)
    listed = ([query, json.dumps(found, default=float)] for query, found in stage.items())
    return ["given", digest(sorted(listed))]


def _add(
    file: RunFile, query: str, asked: str, found: Found, seconds: float, *, pairs: int = 0
) -> None:
    answer = {
        "asked": asked,
        "passages": [passage for passage, _ in found],
        "scores": [score for _, score in found],
        "seconds": seconds,
        "pairs": pairs,
    }
    file.add(query, answer)


def _found(answer: Mapping[str, Any]) -> Found:
    return list(zip(answer["passages"], answer["scores"], strict=True))


def _result(
    first_stage: str,
    reranker: str | None,
    data: QuestionSet,
    measures: Sequence[str],
    files: Sequence[RunFile],
) -> SystemResult:
    """What the last file's order is worth; the files' times add up."""
    last = {query: files[-1].answers[query] for query in data.queries}
    rankings = {query: tuple(answer["passages"]) for query, answer in last.items()}
    times = [[file.answers[query]["seconds"] for query in data.queries] for file in files]
    return SystemResult(
        name=system_name(first_stage, reranker),
        first_stage=first_stage,
        reranker=reranker,
        values=evaluate_rankings(_judged(data), rankings.items(), measures).by_measure,
        rankings=rankings,
        scores={query: tuple(answer["scores"]) for query, answer in last.items()},
        seconds=np.asarray(times).sum(axis=0),
        pairs=sum(answer["pairs"] for answer in last.values()),
        scoring_seconds=0.0 if reranker is None else float(sum(times[-1])),
    )


def _judged(data: QuestionSet) -> dict[str, Mapping[str, float]]:
    """The judgements in the order of the queries."""
    return {query: data.qrels.get(query, {}) for query in data.queries}


def _perfect(
    data: QuestionSet, found: Mapping[str, Sequence[str]]
) -> Iterable[tuple[str, list[str]]]:
    """The same passages, the higher grade first: what a perfect reranker would give."""
    for query, passages in found.items():
        grades = [data.qrels[query].get(passage, 0.0) for passage in passages]
        yield query, [passages[place] for place in descending(grades)]
