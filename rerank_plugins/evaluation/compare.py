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
    passages = Passages(drawn)
    corpus = data_digest(drawn)
    shared: dict[int, SharedScores] = {}
    bridges = {
        name: RerankerBridge(reranker, passages, shared) for name, reranker in rerankers.items()
    }
    systems: dict[str, SystemResult] = {}
    bounds = {}
    for name, stage in first_stages.items():
        bridge = FirstStageBridge(stage, passages)
        settings = {
            "version": __version__,
            "passages": corpus,
            "candidates": depth,
            "name": name,
            "first stage": _settings(stage),
        }
        file = RunFile(runs, f"{data.name} {name}", settings)
        _find_all(file, name, bridge, drawn, depth)
        systems[name] = _result(name, None, drawn, names, [file])
        found = systems[name].rankings
        bounds[name] = evaluate_rankings(_judged(drawn), _perfect(drawn, found), names).by_measure
        if name in alone:
            continue
        for model, reranker in bridges.items():
            both = system_name(name, model)
            more = {**settings, "name": both, "reranker": settings_of(reranker.reranker)}
            second = RunFile(runs, f"{data.name} {both}", more)
            _order_all(second, both, reranker, drawn, file)
            systems[both] = _result(name, model, drawn, names, [file, second])
    return Comparison(
        name=data.name,
        queries=drawn.queries,
        corpus=drawn.corpus,
        qrels=drawn.qrels,
        candidates=depth,
        measures=names,
        systems=systems,
        bounds=bounds,
        seed=seed,
        rerankers={name: bridge.describe() for name, bridge in bridges.items()},
    )


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
