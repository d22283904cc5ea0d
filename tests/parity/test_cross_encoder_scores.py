"""The logits of ``CrossEncoder.predict``, to 1e-4 in fp32, whatever the checkpoint says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from cross_encoders import CLASSIFIERS, TinyCrossEncoders, edit, loaded
from texts import ALL_PASSAGES, PAIRS, QUESTIONS

from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring.base import ScoreOptions

TOLERANCE = 1e-4
LONG_PASSAGE = " ".join(ALL_PASSAGES * 2)
# Fits no model here; the passage is the longer text, which both libraries then cut.
CUT = [(query, LONG_PASSAGE) for query in QUESTIONS.values()]
ALL_PAIRS = [*PAIRS, *CUT]
# The query is the longer text: `longest_first` cuts it, FlagEmbedding's rule caps it.
LONG_QUERY = (" ".join(QUESTIONS.values()) * 40, ALL_PASSAGES[0])
# Its authors' code is no `CrossEncoder`: test_lightweight compares it.
_ELSEWHERE = "lightweight"
SPECIAL = tuple(name for name in TinyCrossEncoders.names if name not in (*CLASSIFIERS, _ELSEWHERE))


@cache
def predicted(folder: Path, pairs: tuple[tuple[str, str], ...] = tuple(ALL_PAIRS)) -> np.ndarray:
    """What sentence-transformers gives, without activation."""
    return loaded(folder).predict(list(pairs), activation_fn=torch.nn.Identity(), batch_size=5)


def logits(folder: Path, engine: str, pairs: list[tuple[str, str]], **options: int) -> np.ndarray:
    """Ours."""
    scorer = load_scorer(folder, engine=engine, precision="fp32", device="cpu", **options)
    return scorer.score(pairs, ScoreOptions(batch_tokens=700)).logits


@pytest.mark.parametrize("engine", ["torch", "sentence-transformers"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_scores_as_predict(
    tiny_cross_encoders: Mapping[str, Path], name: str, engine: str
) -> None:
    """Cut passages included, in both engines."""
    folder = tiny_cross_encoders[name]
    expected = predicted(folder)
    assert expected.std() > 0.2, "the checkpoint does not tell pairs apart"
    np.testing.assert_allclose(logits(folder, engine, ALL_PAIRS), expected, atol=TOLERANCE)


@pytest.mark.parametrize("engine", ["auto", "sentence-transformers"])
@pytest.mark.parametrize("name", SPECIAL)
def test_every_other_form_scores_as_predict(
    tiny_cross_encoders: Mapping[str, Path], name: str, engine: str
) -> None:
    """Prompts, limits, templates, heads, adapters, language models."""
    folder = tiny_cross_encoders[name]
    expected = predicted(folder)
    assert expected.std() > 0.2, "the checkpoint does not tell pairs apart"
    np.testing.assert_allclose(logits(folder, engine, ALL_PAIRS), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "prompted", "chat", "causal_chat"])
def test_a_query_that_is_too_long_is_cut_as_predict_cuts_it(
    tiny_cross_encoders: Mapping[str, Path], name: str
) -> None:
    """By the engine of that name; the fast ones keep three quarters of the query."""
    folder = tiny_cross_encoders[name]
    expected = predicted(folder, (LONG_QUERY,))
    found = logits(folder, "sentence-transformers", [LONG_QUERY])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_shorter_length_for_this_scorer_is_predict_s_with_that_length(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """Two scorers of one model, each with its own length."""
    folder = tiny_cross_encoders["causal_chat"]
    model = loaded(folder)
    model.max_seq_length = 100
    expected = model.predict(CUT, activation_fn=torch.nn.Identity())
    found = logits(folder, "sentence-transformers", CUT, max_length=100)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    np.testing.assert_allclose(
        logits(folder, "sentence-transformers", CUT), predicted(folder)[-len(CUT) :], atol=TOLERANCE
    )


def test_a_prompt_changes_scores_and_is_the_checkpoint_s_default(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """The prompt counts: the same weights without it score otherwise."""
    folder = shutil.copytree(tiny_cross_encoders["prompted"], tmp_path / "x")
    with_prompt = logits(folder, "torch", PAIRS)
    edit(folder / "config_sentence_transformers.json", default_prompt_name=None)
    without = logits(folder, "torch", PAIRS)
    np.testing.assert_allclose(without, predicted(folder)[: len(PAIRS)], atol=TOLERANCE)
    assert np.abs(with_prompt - without).max() > 0.05


def test_probabilities_are_those_that_predict_gives_by_default(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """One label: the saved Sigmoid."""
    folder = tiny_cross_encoders["prompted"]
    query = QUESTIONS["fr"]
    expected = loaded(folder).rank(query, ALL_PASSAGES)
    ranking = load_reranker(folder, precision="fp32").rerank(query, ALL_PASSAGES)
    assert ranking.keys == [row["corpus_id"] for row in expected]
    np.testing.assert_allclose(ranking.scores, [row["score"] for row in expected], atol=TOLERANCE)


def test_two_labels_with_a_sigmoid_each_score_by_the_relevant_one(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """Softmax compares two classes, Sigmoid judges each alone."""
    folder = tmp_path / "x"
    loaded(tiny_checkpoints["two_labels"], activation_fn=torch.nn.Sigmoid()).save_pretrained(
        str(folder)
    )
    expected = loaded(folder).predict(PAIRS)[:, 1]
    for engine in ("torch", "sentence-transformers"):
        found = 1 / (1 + np.exp(-logits(folder, engine, PAIRS)))
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("how", ["max", "mean", "first"])
@pytest.mark.parametrize("name", ["chat", "dense", "causal_chat"])
def test_windows_of_a_rendered_pair_are_scored_as_passages_of_their_own(
    tiny_cross_encoders: Mapping[str, Path], name: str, how: str
) -> None:
    """The window that the span names, given to ``predict`` as a passage, has that score."""
    folder = tiny_cross_encoders[name]
    scorer = load_scorer(folder, engine="sentence-transformers", precision="fp32", device="cpu")
    query = QUESTIONS["en"]
    scores = scorer.score([(query, LONG_PASSAGE * 3)], ScoreOptions(long_passages=how))
    start, end = scores.spans[0].tolist()
    if how == "mean":
        assert (start, end) == (0, len(LONG_PASSAGE * 3))
        return
    part = (LONG_PASSAGE * 3)[start:end]
    assert 0 < len(part) < len(LONG_PASSAGE * 3) / 2
    expected = loaded(folder).predict([(query, part)], activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
    assert scores.truncated.tolist() == [how == "first"]
