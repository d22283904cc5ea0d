"""The exported conformance class: our scorers pass it, broken ones do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import ARCHITECTURES

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.testing import OverlapScorer, ScorerConformance


@pytest.fixture(scope="module")
def loaded(tiny_checkpoints: Mapping[str, Path]) -> Callable[[str], LocalScorer]:
    """Scorers of tiny checkpoints by name, each loaded once."""
    return cache(lambda name: load_scorer(tiny_checkpoints[name], device="cpu"))


class TestOverlapScorer(ScorerConformance):
    """The fake."""

    @pytest.fixture
    def scorer(self) -> Scorer:
        """As users make it."""
        return OverlapScorer()


class TestLocalScorer(ScorerConformance):
    """Every architecture of the catalog, and a head of two labels."""

    @pytest.fixture(params=[*ARCHITECTURES, "two_labels"])
    def scorer(
        self, request: pytest.FixtureRequest, loaded: Callable[[str], LocalScorer]
    ) -> Scorer:
        """On a tiny checkpoint."""
        return loaded(request.param)


class TestLocalScorerWithWindows(ScorerConformance):
    """Windows are part of the same contract."""

    @pytest.fixture(params=["max", "mean", "first"])
    def scorer(
        self, request: pytest.FixtureRequest, loaded: Callable[[str], LocalScorer]
    ) -> Scorer:
        """Rows of 32 tokens, so that most passages need several."""
        scorer = LocalScorer(loaded("rstar").settings, max_length=32)
        plain = scorer.score

        def score(pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
            return plain(pairs, ScoreOptions(options.batch_tokens, long_passages=request.param))

        scorer.score = score
        return scorer


class Broken(OverlapScorer):
    """A scorer with one fault.

    Args:
        spoil: Makes a faulty answer of the right one; gets pairs and scores.
    """

    def __init__(self, spoil: Callable[[Sequence[tuple[str, str]], PairScores], Any]) -> None:
        super().__init__()
        self.spoil = spoil

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """The spoilt answer."""
        return self.spoil(pairs, super().score(pairs, options))


def changed(scores: PairScores, logits: np.ndarray) -> PairScores:
    """The same but for the logits."""
    return PairScores(logits, scores.truncated)


FAULTS = {
    "float32": lambda pairs, scores: changed(scores, scores.logits.astype(np.float32)),
    "column": lambda pairs, scores: changed(scores, scores.logits[:, None]),
    "NaN on empty text": lambda pairs, scores: changed(
        scores, np.where([bool(passage.strip()) for _, passage in pairs], scores.logits, np.nan)
    ),
    "all alike": lambda pairs, scores: changed(scores, np.ones_like(scores.logits)),
    "sorted by score": lambda pairs, scores: changed(scores, np.sort(scores.logits)[::-1].copy()),
    "scaled by the batch": lambda pairs, scores: changed(
        scores, scores.logits / max(1, len(pairs))
    ),
    "one for nothing": lambda pairs, scores: (
        scores if pairs else PairScores(np.zeros(1), np.zeros(1, np.bool_))
    ),
    "noise": lambda pairs, scores: changed(
        scores, scores.logits + np.arange(len(pairs), dtype=np.float64) * 1e-9
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_scorer_fails_the_conformance_class(fault: str) -> None:
    """Each fault is one that a real scorer has had; at least one test of the class sees it."""
    suite = ScorerConformance()
    tests = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    assert len(tests) >= 7

    def passes(test: Callable[[Scorer], None], scorer: Scorer) -> bool:
        try:
            test(scorer)
        except Exception:
            return False
        return True

    assert all(passes(test, OverlapScorer()) for test in tests)
    assert not all(passes(test, Broken(FAULTS[fault])) for test in tests)


def test_what_lacks_a_method_does_not_follow_the_protocol() -> None:
    """A name and a score are not all of it."""

    class Half:
        name = "half"

        def score(self, pairs: Any, options: Any) -> None: ...

    with pytest.raises(AssertionError):
        ScorerConformance().test_follows_the_protocol(Half())
