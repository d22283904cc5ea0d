"""The Polish FAQ runs from the folder to a fine-tuned, quantized and calibrated model."""

from __future__ import annotations

import pytest
from test_examples import FOLDER, example

pytest.importorskip("datasets", reason="the extra train is not installed")
pytest.importorskip("ir_measures", reason="the extra evaluation is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

from importlib.util import find_spec

from rerank_plugins import load_reranker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the examples are not beside the tests"),
    pytest.mark.skipif(find_spec("nncf") is None, reason="nncf is not installed"),
]


def test_a_folder_becomes_an_evaluated_fine_tuned_quantized_and_calibrated_model(tmp_path):
    """Each step's outcome is there, and the model loads in int8 with the report kept beside it."""
    out = tmp_path / "model"
    outcome = example("polish_faq").main(out, epochs=0.3)
    assert list(outcome.before.systems) == ["BM25", "BM25 + base"]
    assert list(outcome.after.systems) == ["BM25", "BM25 + base", "BM25 + tuned"]
    assert len(outcome.after.queries) == 24
    bm25 = outcome.before.systems["BM25"].values["nDCG@10"].mean()
    assert bm25 > 0.4, "the test questions and their answers share too few words"
    assert outcome.training.steps == 2
    assert set(outcome.training.after) == {"examples/polish_faq"}
    assert "Does reranking help here?" in (tmp_path / "model.html").read_text(encoding="utf-8")
    assert load_reranker(out, precision="int8").describe()["agreement"] == outcome.int8
    assert outcome.int8["kendall_tau"] > 0.8
    after, before = outcome.calibration.after, outcome.calibration.before
    assert after.log_loss < before.log_loss
    probabilities = [
        load_reranker(out, calibration=chosen).rerank("Czy macie BLIK?", ["Tak, BLIK."])[0].score
        for chosen in (None, out)
    ]
    assert probabilities[0] != probabilities[1]


def test_the_folder_tests_on_questions_that_it_does_not_train_on():
    """Each answer has two questions to train on and another one to test on."""
    from rerank_plugins.evaluation import read_question_set

    train = read_question_set(FOLDER / "polish_faq", split="train")
    test = read_question_set(FOLDER / "polish_faq", split="test")
    assert (len(train.queries), len(test.queries), len(test.corpus)) == (48, 24, 24)
    assert not set(train.queries.values()) & set(test.queries.values())
