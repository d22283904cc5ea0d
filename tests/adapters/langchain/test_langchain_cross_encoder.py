"""CrossEncoderModel inside LangChain's own reranker."""

from __future__ import annotations

import pytest
from langchain_core.cross_encoders import BaseCrossEncoder

from rerank_plugins.errors import InvalidInputError, ScoreCountError
from rerank_plugins.langchain import CrossEncoderCompressor, CrossEncoderModel
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import PairScores
from rerank_plugins.testing import OverlapScorer


def test_scores_any_pairs_in_the_order_given(reranker):
    """Different queries in one call; the same pair twice gets the same score twice."""
    pairs = [("museum", "the museum"), ("bread", "the museum"), ("museum", "the museum"), ("x", "")]
    scores = CrossEncoderModel(reranker=reranker).score(pairs)
    assert scores == [reranker.rerank(query, [passage])[0].score for query, passage in pairs]
    assert all(type(score) is float for score in scores)
    assert scores[0] == scores[2] > scores[1]
    assert CrossEncoderModel(reranker=reranker).score([]) == []


def test_gives_logits_when_the_reranker_does():
    """The scale is the reranker's."""
    model = CrossEncoderModel(reranker=Reranker(OverlapScorer(), scale="logit", top_n=0))
    assert model.score([("museum", "museum")]) == [pytest.approx(3.99)]


def test_works_in_classics_reranker(reranker, documents, query):
    """The same order as our own compressor gives, which keeps the scores too."""
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
    model = CrossEncoderModel(reranker=reranker)
    assert isinstance(model, BaseCrossEncoder)
    theirs = compressors.CrossEncoderReranker(model=model, top_n=3)
    ours = CrossEncoderCompressor(reranker=reranker, top_n=3)
    assert [one.id for one in theirs.compress_documents(documents, query)] == [
        one.id for one in ours.compress_documents(documents, query)
    ]


def test_a_wrong_number_of_scores_is_an_error_there_too(documents, query):
    """Where classic's reranker would drop documents in silence."""

    class OneShort(OverlapScorer):
        def score(self, pairs, options):
            found = super().score(pairs, options)
            return PairScores(found.logits[1:], found.truncated[1:])

    with pytest.raises(ScoreCountError):
        CrossEncoderModel(reranker=Reranker(OneShort())).score([("a", "b"), ("a", "c")])


def test_a_threshold_would_leave_pairs_without_a_score():
    """So it is refused when the model is made."""
    with pytest.raises(InvalidInputError, match="score_threshold must be None"):
        CrossEncoderModel(reranker=Reranker(OverlapScorer(), score_threshold=0.5))


def test_loads_by_name():
    """The default is the model that ships."""
    assert CrossEncoderModel().reranker.model == "bundled"
    assert CrossEncoderModel(model="jaspercatapang/R-star", scale="logit").reranker.scale == "logit"
