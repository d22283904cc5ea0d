"""One reranker shared by many threads and many coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Ranking, Reranker, load_reranker
from rerank_plugins.scoring.base import ScoreOptions

CALLERS = 64


def jobs() -> list[tuple[str, list[str]]]:
    """Sixty-four queries, each over different passages, of different number."""
    questions = list(QUESTIONS.values())
    return [
        (f"{questions[number % 4]} {number}", ALL_PASSAGES[number % 7 : 8 + number % 12])
        for number in range(CALLERS)
    ]


def logits_by_key(ranking: Ranking) -> list[float]:
    """The model's scores in the order of the input."""
    return [item.score for item in sorted(ranking, key=lambda item: item.candidate.key)]


def assert_same(found: list[Ranking], expected: list[Ranking]) -> None:
    """The same scores for every caller."""
    for one, other in zip(found, expected, strict=True):
        assert one.query == other.query
        np.testing.assert_allclose(logits_by_key(one), logits_by_key(other), atol=1e-5)


@pytest.fixture(params=["bge", "rstar", "camembert"])
def folder(request: pytest.FixtureRequest, tiny_checkpoints: Mapping[str, Path]) -> Path:
    """A checkpoint of each tokenizer class."""
    return tiny_checkpoints[request.param]


def shared(folder: Path) -> Reranker:
    """The reranker that all callers hold; rows are truncated, so that settings would matter."""
    return load_reranker(folder, device="cpu", scale="logit", max_length=40, batch_tokens=300)


def test_sixty_four_threads_get_the_scores_of_one(folder: Path) -> None:
    """No "Already borrowed" from the tokenizer, no mixed-up batches; first use included."""
    reranker = shared(folder)
    start = threading.Barrier(CALLERS)

    def call(job: tuple[str, list[str]]) -> Ranking:
        start.wait()
        return reranker.rerank(*job)

    with ThreadPoolExecutor(CALLERS) as threads:
        found = list(threads.map(call, jobs()))
    assert_same(found, [shared(folder).rerank(*job) for job in jobs()])


async def test_sixty_four_coroutines_get_the_scores_of_one(folder: Path) -> None:
    """The same through arerank."""
    reranker = shared(folder)
    found = await asyncio.gather(*(reranker.arerank(*job) for job in jobs()))
    assert_same(found, [reranker.rerank(*job) for job in jobs()])


def test_threads_with_different_settings_share_one_tokenizer_in_peace(folder: Path) -> None:
    """Four lengths and four long-passage modes at once on one set of weights."""
    lengths, modes = (24, 40, 64, 200), ("truncate", "max", "mean", "first")
    rerankers = [
        load_reranker(folder, device="cpu", scale="logit", max_length=length, long_passages=mode)
        for length in lengths
        for mode in modes
    ]
    query, passages = QUESTIONS["ar"], [" ".join(ALL_PASSAGES[:4]), *ALL_PASSAGES[4:8]]
    expected = [reranker.rerank(query, passages) for reranker in rerankers]
    start = threading.Barrier(CALLERS)

    def call(number: int) -> Ranking:
        start.wait()
        return rerankers[number % len(rerankers)].rerank(query, passages)

    with ThreadPoolExecutor(CALLERS) as threads:
        found = list(threads.map(call, range(CALLERS)))
    assert_same(found, [expected[number % len(rerankers)] for number in range(CALLERS)])


def test_tokenizing_in_threads_while_others_count_tokens(folder: Path) -> None:
    """A context builder counts with the model's tokenizer while the model scores."""
    scorer = shared(folder).scorer
    expected = [scorer.count_tokens(text) for text in ALL_PASSAGES]
    pairs = [(QUESTIONS["en"], text) for text in ALL_PASSAGES]

    def count(_: int) -> list[int]:
        return [scorer.count_tokens(text) for text in ALL_PASSAGES]

    def score(_: int) -> np.ndarray:
        return scorer.score(pairs, ScoreOptions()).logits

    with ThreadPoolExecutor(CALLERS) as threads:
        counted = [threads.submit(count, number) for number in range(CALLERS // 2)]
        scored = [threads.submit(score, number) for number in range(CALLERS // 8)]
        assert all(future.result() == expected for future in counted)
        first = scored[0].result()
        for future in scored[1:]:
            np.testing.assert_allclose(future.result(), first, atol=1e-6)
