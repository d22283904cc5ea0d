"""Out of memory: smaller batches, the same scores, and a named error when nothing helps."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from texts import ALL_PASSAGES, PAIRS, QUESTIONS

from rerank_plugins import load_reranker
from rerank_plugins.errors import OutOfMemoryError, ScoringError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.batching import TokenLimit
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.packed import PackedClassifier

TORCH: dict[str, Any] = {"engine": "torch", "device": "cpu", "precision": "fp32"}


class Limited:
    """An engine in whose memory only so many padded tokens fit."""

    def __init__(self, scorer: LocalScorer, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model = scorer._load()[0]
        self.tokens = tokens
        self.failed = 0
        self.scored: list[int] = []
        self._logits = model.engine.logits
        monkeypatch.setattr(model.engine, "logits", self.logits)

    def logits(self, batch: Any) -> Any:
        """Fails above the limit as the torch engine does."""
        size = batch.input_ids.size
        if size > self.tokens:
            self.failed += 1
            raise OutOfMemoryError(f"{size} tokens are too many")
        self.scored.append(size)
        return self._logits(batch)


@pytest.fixture
def scorer(tiny_checkpoints: Mapping[str, Path]) -> LocalScorer:
    """A scorer that shares its weights with no other test."""
    return load_scorer(tiny_checkpoints["bge"], **TORCH, revision="oom")


@pytest.fixture
def expected(tiny_checkpoints: Mapping[str, Path]) -> np.ndarray:
    """The logits of `PAIRS` where memory is plenty."""
    plenty = load_scorer(tiny_checkpoints["bge"], **TORCH)
    return plenty.score(PAIRS, ScoreOptions()).logits


@pytest.mark.parametrize("tokens", [500, 700, 900])
def test_smaller_batches_lose_no_score(
    scorer: LocalScorer, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """Whatever fits, all pairs get the scores they have where memory is plenty."""
    engine = Limited(scorer, tokens, monkeypatch)
    found = scorer.score(PAIRS, ScoreOptions(batch_tokens=100_000)).logits
    assert engine.failed
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_did_not_fit_is_remembered(
    scorer: LocalScorer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Later calls, other scorers of the weights included, start with what fits; it is logged."""
    engine = Limited(scorer, 1000, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        scorer.score(PAIRS, ScoreOptions())
    failures = engine.failed
    assert failures == caplog.text.count("did not fit in memory")
    # Each failure halves: no batch was tried that many times in vain.
    assert 1 <= failures <= 4
    other = load_scorer(tiny_checkpoints["bge"], **TORCH, revision="oom", max_length=300)
    scorer.score(PAIRS, ScoreOptions())
    other.score(PAIRS, ScoreOptions())
    assert engine.failed == failures


def test_a_smaller_budget_of_the_caller_stays_smaller(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned only lowers."""
    engine = Limited(scorer, 2000, monkeypatch)
    scorer.score(PAIRS, ScoreOptions())
    engine.scored.clear()
    scorer.score(PAIRS[:60], ScoreOptions(batch_tokens=250))
    assert max(engine.scored) <= 250


def test_a_pair_that_does_not_fit_alone_is_a_named_error(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its length and what to do; and it can be caught as what Python calls it too."""
    Limited(scorer, 150, monkeypatch)
    long = (QUESTIONS["en"], " ".join(ALL_PASSAGES))
    with pytest.raises(OutOfMemoryError, match=r"a pair of 512 tokens .* lower max_length") as told:
        scorer.score([*PAIRS[:3], long], ScoreOptions())
    assert isinstance(told.value, ScoringError)
    assert isinstance(told.value, MemoryError)
    # The error was that pair's: others continue.
    assert np.isfinite(scorer.score(PAIRS[:3], ScoreOptions()).logits).all()


def test_the_first_stage_stands_in_where_the_user_asked_for_that(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory is a failure like others."""
    reranker = load_reranker(tiny_checkpoints["rstar"], **TORCH, on_error="first_stage")
    Limited(reranker.scorer, 1, monkeypatch)
    ranking = reranker.rerank("q", ["a", "b"])
    assert ranking.scale == "first_stage"
    assert "OutOfMemoryError" in str(ranking.error)


def test_many_threads_learn_together(
    scorer: LocalScorer, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen callers meet the limit at once; all get all scores."""
    Limited(scorer, 700, monkeypatch)
    start = threading.Barrier(16)

    def call(_: int) -> np.ndarray:
        start.wait()
        return scorer.score(PAIRS, ScoreOptions()).logits

    with ThreadPoolExecutor(16) as threads:
        for found in threads.map(call, range(16)):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_limit_is_half_of_what_failed_and_only_falls() -> None:
    """Never below one token, nor up again."""
    limit = TokenLimit()
    assert limit.within(8192) == 8192
    limit.failed(4000)
    assert (limit.within(8192), limit.within(10)) == (2000, 10)
    limit.failed(6000)
    assert limit.within(8192) == 2000
    limit.failed(1)
    assert limit.within(8192) == 1


def no_room(*_: object) -> None:
    """Asks torch's CPU allocator for more than there can be."""
    torch.empty(1 << 60, dtype=torch.uint8)


def raising(error: Exception) -> Any:
    """What fails in this way."""

    def fail(*_: object) -> None:
        raise error

    return fail


FAILURES = {
    "cpu": no_room,
    "cuda": raising(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "mps": raising(RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB).")),
    "cublas": raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ...")),
    "python": raising(MemoryError()),
}


@pytest.mark.parametrize("device", FAILURES)
def test_every_device_s_failure_is_recognized(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """The CPU's is a real one; the others are torch's own words."""
    scorer._load()
    monkeypatch.setattr(PackedClassifier, "logits", FAILURES[device])
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        scorer.score([("a", "b")], ScoreOptions())


def test_other_failures_are_passed_on(scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that smaller batches cannot mend is not mistaken for one that they can."""
    scorer._load()
    monkeypatch.setattr(PackedClassifier, "logits", raising(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        scorer.score(PAIRS, ScoreOptions())


def test_the_failed_batch_s_tensors_are_let_go_before_the_next_try(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error keeps the frames it came through, and they would keep the memory full."""
    seen: list[weakref.ref[torch.Tensor]] = []
    real = PackedClassifier.logits

    def fills_memory(packed: Any, batch: Any, attention: Any) -> Any:
        gc.disable()  # reference counts alone must do
        assert all(tensor() is None for tensor in seen), "the last try's tensors are still there"
        activations = torch.zeros(8)
        seen.append(weakref.ref(activations))
        if batch.input_ids.size > 600:
            no_room()
        return real(packed, batch, attention)

    scorer._load()
    monkeypatch.setattr(PackedClassifier, "logits", fills_memory)
    try:
        scorer.score(PAIRS, ScoreOptions())
    finally:
        gc.enable()
    assert len(seen) > 3
