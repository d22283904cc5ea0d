"""Ready models: a ``CrossEncoder``, or a ``BaseCrossEncoder`` of LangChain."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cross_encoders import loaded
from texts import ALL_PASSAGES, PAIRS, QUESTIONS

from rerank_plugins import Cascade, CrossEncoderScorer, Reranker
from rerank_plugins.errors import (
    InvalidInputError,
    ScoreCountError,
    ScoringError,
    UnsupportedModelError,
)
from rerank_plugins.models.loading import as_reranker, load_reranker
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.testing import ScorerConformance

QUERY = QUESTIONS["fr"]


class TestCrossEncoderScorer(ScorerConformance):
    """What every scorer promises."""

    @pytest.fixture
    def scorer(self, tiny_cross_encoders: Mapping[str, Path]) -> CrossEncoderScorer:
        """With its configured prompt."""
        return CrossEncoderScorer(loaded(tiny_cross_encoders["prompted"]))


@pytest.mark.parametrize("name", ["bert", "prompted", "chat", "causal_chat", "dense"])
def test_a_ready_cross_encoder_scores_as_its_predict(
    tiny_cross_encoders: Mapping[str, Path], name: str
) -> None:
    """Its own prompt and template included, and its own rank as order."""
    model = loaded(tiny_cross_encoders[name])
    expected = model.predict([(QUERY, passage) for passage in ALL_PASSAGES])
    ranking = Reranker(CrossEncoderScorer(model)).rerank(QUERY, ALL_PASSAGES)
    np.testing.assert_allclose(ranking.scores, expected[ranking.keys], atol=1e-4)
    assert (np.diff(expected[ranking.keys]) < 1e-4).all()


@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Softmax(dim=-1)])
@pytest.mark.parametrize(("name", "relevant"), [("two_labels", 1), ("two_labels_reversed", 0)])
def test_of_two_labels_the_relevant_one_counts(
    tiny_checkpoints: Mapping[str, Path], name: str, relevant: int, activation: torch.nn.Module
) -> None:
    """By its name in the model's configuration; two models with other names share no scores."""
    model = loaded(tiny_checkpoints[name])
    model.activation_fn = activation
    expected = model.predict([(QUERY, passage) for passage in ALL_PASSAGES])[:, relevant]
    scorer = CrossEncoderScorer(model)
    ranking = Reranker(scorer).rerank(QUERY, ALL_PASSAGES)
    np.testing.assert_allclose(ranking.scores, expected[ranking.keys], atol=1e-4)
    before = scorer.fingerprint()
    model.config.id2label = {0: "1", 1: "0"} if relevant else {0: "0", 1: "1"}
    assert CrossEncoderScorer(model).fingerprint() != before


def test_it_has_windows_a_cascade_a_cache_and_a_deadline(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """Everything that the core gives."""
    model = loaded(tiny_cross_encoders["chat"])
    long = " ".join(ALL_PASSAGES * 2)
    scorer = CrossEncoderScorer(model, max_length=100)
    reranker = Reranker(scorer, long_passages="max", cache=tmp_path / "scores", deadline_ms=60_000)
    ranking = reranker.rerank(QUERY, [*ALL_PASSAGES, long])
    item = next(item for item in ranking if item.text == long)
    start, end = item.span
    assert 0 < end - start < len(long) / 2
    again = Reranker(
        CrossEncoderScorer(loaded(tiny_cross_encoders["chat"]), max_length=100),
        long_passages="max",
        cache=tmp_path / "scores",
    )
    assert again.rerank(QUERY, [*ALL_PASSAGES, long]).scores == ranking.scores
    cascade = Cascade(load_reranker(tiny_cross_encoders["bert"]), Reranker(scorer), head=3)
    assert cascade.rerank(QUERY, ALL_PASSAGES).scored == 3


def test_its_fingerprint_is_of_its_weights(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """A file of scores must not take one model for another."""
    model = loaded(tiny_cross_encoders["bert"])
    before = CrossEncoderScorer(model).fingerprint()
    assert CrossEncoderScorer(loaded(tiny_cross_encoders["bert"])).fingerprint() == before
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert CrossEncoderScorer(model).fingerprint() != before


def test_it_pickles_and_copies(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """With the model in it."""
    scorer = CrossEncoderScorer(loaded(tiny_cross_encoders["bert"]))
    expected = scorer.score(PAIRS, ScoreOptions()).logits
    for other in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        np.testing.assert_allclose(other.score(PAIRS, ScoreOptions()).logits, expected, atol=1e-5)


def test_an_activation_that_is_not_known_is_named(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """Its scores would be on a different scale."""
    model = loaded(tiny_cross_encoders["bert"], activation_fn=torch.nn.Tanh())
    with pytest.raises(UnsupportedModelError, match=r"activation_fn.*Tanh"):
        CrossEncoderScorer(model)


class Lengths:
    """A ``BaseCrossEncoder`` by what it does: longer passages are better."""

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.answer = answer

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One per pair."""
        self.asked.append(list(text_pairs))
        if self.answer is not None:
            return self.answer
        return [len(passage) / 1000 for _, passage in text_pairs]


def test_a_user_s_own_cross_encoder_ranks(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """Of LangChain's interface, ``score`` is enough; equal pairs are asked for once."""
    model = Lengths()
    reranker = as_reranker(model, deduplicate=False)
    ranking = reranker.rerank(QUERY, ["ab", "abcd", "ab"])
    assert ranking.texts == ["abcd", "ab", "ab"]
    assert [len(pairs) for pairs in model.asked] == [2]
    assert ranking[0].logit == 0.004
    assert ranking.model == "Lengths"


def test_probabilities_of_a_user_s_own_cross_encoder_stay_what_they_are() -> None:
    """Certainty included, which has no finite logit."""
    scorer = CrossEncoderScorer(Lengths([0.25, 1.0, 0.0]), scores="probability")
    ranking = Reranker(scorer).rerank(QUERY, ["a", "b", "c"])
    assert ranking.texts == ["b", "a", "c"]
    assert ranking.scores == pytest.approx([1.0, 0.25, 0.0], abs=1e-9)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ([0.5], ScoreCountError, "gave 1 for 2"),
        (["x", "y"], ScoringError, "one number per pair"),
        ([2.0, 0.5], ScoringError, "scores='logit'"),
    ],
)
def test_wrong_answers_of_a_user_s_own_cross_encoder_are_named(
    answer: Any, error: type[Exception], said: str
) -> None:
    """Never a ranking of them."""
    reranker = Reranker(CrossEncoderScorer(Lengths(answer), scores="probability"))
    with pytest.raises(error, match=said):
        reranker.rerank(QUERY, ["a", "b"])


def test_langchain_s_own_class_counts_as_the_model_in_it(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """``HuggingFaceCrossEncoder`` gives probabilities; its model gives logits and windows."""
    community = pytest.importorskip("langchain_community.cross_encoders")
    folder = tiny_cross_encoders["bert"]
    model = community.HuggingFaceCrossEncoder(
        model_name=str(folder), model_kwargs={"device": "cpu"}
    )
    pairs = [(QUERY, passage) for passage in ALL_PASSAGES]
    expected = model.score(pairs)
    ranking = as_reranker(model).rerank(QUERY, ALL_PASSAGES)
    found = {item.candidate.key: item.score for item in ranking}
    np.testing.assert_allclose([found[key] for key in range(len(pairs))], expected, atol=1e-4)
    assert ranking.model == str(folder)


def test_both_frameworks_take_a_ready_model(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """In the place of a reranker."""
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, TextNode

    from rerank_plugins.langchain import CrossEncoderCompressor
    from rerank_plugins.llama_index import CrossEncoderPostprocessor

    model = loaded(tiny_cross_encoders["bert"])
    best = model.rank(QUERY, ALL_PASSAGES)[0]["corpus_id"]
    documents = [Document(text) for text in ALL_PASSAGES]
    found = CrossEncoderCompressor(reranker=model, top_n=1).compress_documents(documents, QUERY)
    assert found[0].page_content == ALL_PASSAGES[best]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ALL_PASSAGES]
    kept = CrossEncoderPostprocessor(reranker=model, top_n=1).postprocess_nodes(
        nodes, query_str=QUERY
    )
    assert kept[0].node.text == ALL_PASSAGES[best]
    own = CrossEncoderCompressor(reranker=Lengths(), top_n=1).compress_documents(documents, QUERY)
    assert own[0].page_content == max(ALL_PASSAGES, key=len)


@pytest.mark.parametrize("wrong", [3, None, object(), ["embedded"]])
def test_what_is_no_model_is_named(wrong: Any) -> None:
    """Everything that would do is listed."""
    with pytest.raises(InvalidInputError, match="CrossEncoder, a BaseCrossEncoder or a model"):
        as_reranker(wrong)


def test_options_of_loading_do_not_go_with_a_loaded_model() -> None:
    """A device comes too late."""
    with pytest.raises(InvalidInputError, match=r"\['device'\]"):
        as_reranker(Lengths(), device="cpu")
    with pytest.raises(InvalidInputError, match="options belong"):
        as_reranker(as_reranker(Lengths()), top_n=3)
