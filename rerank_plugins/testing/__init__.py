"""For tests, yours and ours: a fake scorer whose scores discriminate, and a conformance class.

Nothing here needs a model, so a chain or a query engine can be tested in milliseconds::

    reranker = Reranker(OverlapScorer())

`rerank_plugins.testing.compressors` has a conformance class for LangChain's compressors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rerank_plugins.first_stage.conformance import FirstStageConformance
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer

__all__ = ["FirstStageConformance", "OverlapScorer", "ScorerConformance"]


class OverlapScorer:
    """Scores a pair by the share of the query's words that the passage has.

    The logit is 8 * share - 4, and a hundredth less for each further word of the passage, so
    that different passages seldom tie and a wrong order shows.

    Args:
        name: What rankings show as the model.
        first_stage_weight: What `Scorer.first_stage_weight` returns.
        error: Raised by every call when given; shows what a failing model does to your code.
    """

    def __init__(
        self,
        name: str = "overlap",
        *,
        first_stage_weight: float = 0.0,
        error: Exception | None = None,
    ) -> None:
        self.name = name
        self.first_stage_weight = first_stage_weight
        self.error = error
        self.pairs_seen = 0

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Deterministic scores, one per pair."""
        if self.error is not None:
            raise self.error
        self.pairs_seen += len(pairs)
        logits = [self._logit(query, passage) for query, passage in pairs]
        return PairScores(np.asarray(logits, dtype=np.float64), np.zeros(len(pairs), np.bool_))

    def _logit(self, query: str, passage: str) -> float:
        wanted, found = _words(query), _words(passage)
        share = len(set(wanted) & set(found)) / max(1, len(set(wanted)))
        return 8.0 * share - 4.0 - 0.01 * len(found)

    def count_tokens(self, text: str) -> int:
        """Words of the text."""
        return len(_words(text))

    def describe(self) -> dict[str, Any]:
        """Its name, and that it is a fake."""
        return {"model": self.name, "engine": "fake", "first_stage_weight": self.first_stage_weight}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


class ScorerConformance:
    """What every scorer must keep to; subclass it in your tests and give ``scorer``.

    Written for pytest::

        class TestMyScorer(ScorerConformance):
            @pytest.fixture
            def scorer(self):
                return MyScorer(...)
    """

    texts = (
        "The museum opens at nine.",
        "يفتح المتحف أبوابه في التاسعة.",
        "Le musée ouvre à neuf heures, sauf le lundi.",
        "Muzeum jest czynne od dziewiątej.",
        "",
        "   ",
        "word " * 700,
        "\ud800 lone surrogate, NUL \x00, \u202e bidi control",
    )
    query = "When does the museum open?"

    def _pairs(self) -> list[tuple[str, str]]:
        return [(self.query, text) for text in self.texts]

    def test_follows_the_protocol(self, scorer: Scorer) -> None:
        """The scorer has the methods of the protocol, and a name."""
        assert isinstance(scorer, Scorer)
        assert isinstance(scorer.name, str)
        assert scorer.name

    def test_gives_one_finite_float64_logit_per_pair(self, scorer: Scorer) -> None:
        """Shape, type and finiteness hold on awkward text in four languages."""
        scores = scorer.score(self._pairs(), ScoreOptions())
        assert scores.logits.shape == scores.truncated.shape == (len(self.texts),)
        assert scores.logits.dtype == np.float64
        assert scores.truncated.dtype == np.bool_
        assert np.isfinite(scores.logits).all()

    def test_no_pairs_give_no_scores(self, scorer: Scorer) -> None:
        """An empty list is valid input."""
        assert scorer.score([], ScoreOptions()).logits.shape == (0,)

    def test_scores_do_not_depend_on_batch_or_order(self, scorer: Scorer) -> None:
        """One pair at a time, backwards or together: the same scores."""
        together = scorer.score(self._pairs(), ScoreOptions()).logits
        alone = [
            float(scorer.score([pair], ScoreOptions(batch_tokens=1)).logits[0])
            for pair in reversed(self._pairs())
        ]
        np.testing.assert_allclose(together, alone[::-1], atol=1e-4)

    def test_different_passages_differ(self, scorer: Scorer) -> None:
        """The scores discriminate; a constant would hide every ordering mistake."""
        logits = scorer.score(self._pairs()[:4], ScoreOptions()).logits
        assert len(np.unique(logits)) > 1

    def test_the_same_pair_ties_exactly(self, scorer: Scorer) -> None:
        """Equal pairs get equal scores to the last bit."""
        pair = self._pairs()[0]
        logits = scorer.score([pair, self._pairs()[1], pair], ScoreOptions()).logits
        assert logits[0] == logits[2]

    def test_describes_itself_in_native_types(self, scorer: Scorer) -> None:
        """``describe()`` can go into JSON as it is."""
        import json

        assert json.loads(json.dumps(scorer.describe()))
