"""Every first stage passes the conformance class that we ask of others."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from first_stage_tools import embed_words

from rerank_plugins.first_stage import BM25, Dense, FirstStage, Hybrid
from rerank_plugins.first_stage.conformance import FirstStageConformance


@pytest.mark.parametrize("engine", ["rank-bm25", "bm25s"])
class TestBM25(FirstStageConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, engine: str) -> None:
        self.engine = engine

    def make(self, texts: Iterable[str]) -> FirstStage:
        """BM25 with the engine of the round."""
        return BM25(texts, engine=self.engine)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("index", ["exact", "hnsw"])
class TestDense(FirstStageConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, metric: str, index: str) -> None:
        self.metric, self.index = metric, index

    def make(self, texts: Iterable[str]) -> FirstStage:
        """Dense with the metric and index of the round."""
        return Dense(texts, embed=embed_words, metric=self.metric, index=self.index)

    def test_finds_a_passage_by_its_own_words(self) -> None:
        """As for the others; a longer vector may win by inner product, so not by that."""
        if self.metric != "inner_product":
            super().test_finds_a_passage_by_its_own_words()


class TestHybrid(FirstStageConformance):
    def make(self, texts: Iterable[str]) -> FirstStage:
        """Words and vectors fused."""
        texts = texts if isinstance(texts, str) else list(texts)
        return Hybrid([BM25(texts, engine="bm25s"), Dense(texts, embed=embed_words)])
