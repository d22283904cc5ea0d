"""Mutation testing: small changes of the package, each of which some test must notice.

    make mutants                                    # all of them: hours; resumes where it stopped
    make mutants SAMPLE=150                         # so many of each area, drawn by SEED (1)
    python tests/faults/mutants.py --report         # scores so far, and what survived
    mutmut show NAME                                # one change

mutmut makes the changes (``[tool.mutmut]`` of pyproject.toml says of what, and which tests look
at them), in the folder ``mutants``, which keeps the results. What survives and may is explained
in MUTANTS.md.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

AREAS = {
    "rerank_plugins.reranking.": "reranking",
    "rerank_plugins.context.": "context",
    "rerank_plugins.collection.": "collection",
    "rerank_plugins.first_stage.analysis.": "analysis",
}
NOTICED = {1, 3, 24, 36, 152, -24, -9, -11}  # a test failed, ran for ever, or crashed


def area(name: str) -> str:
    """Which area a mutant belongs to."""
    return next((area for start, area in AREAS.items() if name.startswith(start)), "faults")


def sample(mutants: Iterable[Sequence[Any]], count: int | None, seed: int) -> list[Sequence[Any]]:
    """So many mutants of each area, the same ones for the same seed; None for all."""
    drawn: dict[str, list[Sequence[Any]]] = {}
    for mutant in sorted(mutants, key=lambda mutant: _place(mutant[1], seed)):
        drawn.setdefault(area(mutant[1]), []).append(mutant)
    return [mutant for of_area in drawn.values() for mutant in of_area[:count]]


def _place(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def quickest_first(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """The tests file by file, so that fixtures of modules are made once, quick files first.

    Most changes are noticed by the first tests that meet them, and the first failure ends a run.
    """
    files: defaultdict[str, list[str]] = defaultdict(list)
    for test in sorted(tests, key=lambda test: seconds.get(test, 0.0)):
        files[test.partition("::")[0]].append(test)
    lasting = sorted(files.values(), key=lambda some: sum(seconds.get(t, 0.0) for t in some))
    return [test for some in lasting for test in some]


def report(mutants: Iterable[Sequence[Any]]) -> str:
    """The table of scores and the names of what survived."""
    lines = [
        "| Area | Mutants | Tried | Noticed | Score | 95% interval |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    by_area: dict[str, list[Sequence[Any]]] = {}
    for mutant in mutants:
        by_area.setdefault(area(mutant[1]), []).append(mutant)
    survivors = []
    for name, of_area in sorted(by_area.items()):
        tried = [mutant for mutant in of_area if mutant[2] is not None]
        noticed = sum(mutant[2] in NOTICED for mutant in tried)
        survivors += sorted(mutant[1] for mutant in tried if mutant[2] not in NOTICED)
        figures = [f"{len(of_area):,}", f"{len(tried):,}", f"{noticed:,}"]
        if tried:
            share = binomtest(noticed, len(tried)).proportion_ci(method="wilson")
            figures += [f"{noticed / len(tried):.1%}", f"{share.low:.1%} to {share.high:.1%}"]
        else:
            figures += ["", ""]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", "Survived:", *survivors])


def hasten(mutmut: Any) -> None:
    """Leaves out a second run of all tests before the first change, and orders each change's.

    A change may take ten times as long as mutmut gives it on the clock, since the machine may have
    other work; its limit of processor time, by which loops without an end are noticed, stays.

    Tests are collected once before changes are forked off. pytest keeps the ids that it made and
    escapes them again at the next collection, after which tests whose ids are not ASCII are not
    found and nothing runs: the ids are forgotten.
    """
    from mutmut.runners.harness import PytestRunner
    from mutmut.workers import isolation

    collect_once = PytestRunner.warm_up

    def warm_up(self: PytestRunner) -> None:
        collect_once(self)
        for mark in filter(lambda one: isinstance(one, pytest.Mark), gc.get_objects()):
            object.__setattr__(mark, "_param_ids_generated", None)

    PytestRunner.warm_up = warm_up

    make, limit = mutmut.get_mutant_runner, isolation.register_timeout
    isolation.register_timeout = lambda process, seconds: limit(process, 10 * seconds)

    def quicker(*args: Any) -> Any:
        runner = make(*args)
        submit = runner.submit

        def in_order(name: str, tests: Iterable[str], *limits: Any) -> None:
            submit(name, quickest_first(tests, mutmut.state().duration_by_test), *limits)

        runner.submit = in_order
        # The run that finds out which tests reach what has failed already if one does.
        runner.run_clean_tests = lambda tests: 0
        return runner

    mutmut.get_mutant_runner = quicker


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="mutants of each area; left out, all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only tell what is known")
    options = parser.parse_args()
    os.chdir(Path(__file__).parents[2])
    # Processes that a test starts import what is mutated, too.
    os.environ["PYTHONPATH"] = str(Path("mutants").absolute())
    from mutmut import __main__ as mutmut

    collect = mutmut.collect_source_file_mutation_data

    def drawn(**names: Any) -> Any:
        mutants, files = collect(**names)
        return sample(mutants, options.sample, options.seed), files

    if not options.report:
        mutmut.collect_source_file_mutation_data = drawn
        hasten(mutmut)
        mutmut._run((), options.processes)
    sys.stdout.write(report(drawn(mutant_names=())[0]) + "\n")


if __name__ == "__main__":
    main()
