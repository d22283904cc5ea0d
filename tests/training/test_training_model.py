"""The model in training sees what the scorer sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_base
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file
from toys import toy_groups
from transformers import BertConfig, BertModel

from rerank_plugins.errors import InvalidInputError, UnknownModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.blocks import BLOCK, FILE, to_8_bits
from rerank_plugins.training.model import load_for_training

LONG = " ".join(["near bako of"] * 60)
PAIRS = [
    ("what bako?", "is"),
    ("what ilu?", LONG),
    (LONG, "the passage is kept"),
    (LONG, LONG),
    ("x" * 5000, "one word without end"),
    ("", "nothing asked"),
    *((group.query, passage) for group in toy_groups(20) for passage in group.passages),
]


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"window_tokens": 16, "long_passages": "max"},
        {"window_tokens": 16, "long_passages": "mean"},
    ],
)
def test_evaluation_scores_as_the_scorer_does(tmp_path: Path, block: dict[str, object]) -> None:
    """Long queries, long passages and windows give the logits that a user will get."""
    folder = write_base(tmp_path / "base", **({"rerank_plugins": block} if block else {}))
    model = load_for_training(folder, device="cpu")
    got = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    want = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions()).logits
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_training_on_long_queries_keeps_the_query_and_some_passage(base: Path) -> None:
    """A query longer than the model neither raises nor takes all of the room."""
    model = load_for_training(base, device="cpu")
    model.train()
    rows = model.preprocess([(LONG, LONG), (LONG, "is")])["encoded"]
    for ids, types in zip(rows.rows, rows.types, strict=True):
        assert len(ids) <= 64
        assert 0 < sum(types) < len(types)
    assert torch.isfinite(model(model.preprocess([(LONG, LONG)]))["scores"]).all()


def test_order_of_pairs_is_kept_whatever_their_length(base: Path) -> None:
    """Pairs are run by length, and come back in their own order."""
    model = load_for_training(base, device="cpu")
    model.eval()
    together = model(model.preprocess(PAIRS))["scores"].flatten()
    alone = torch.stack([model(model.preprocess([pair]))["scores"][0, 0] for pair in PAIRS])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_an_encoder_without_a_head_gets_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bare encoder becomes a cross-encoder with one label, and the log warns of it."""
    folder = write_base(tmp_path / "encoder")
    config = BertConfig.from_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    assert raw["architectures"] == ["BertModel"]
    model = load_for_training(folder, device="cpu")
    assert model.num_labels == 1
    assert model.headless
    assert "random one" in caplog.text


def test_half_precision_checkpoints_are_trained_in_float32(tmp_path: Path) -> None:
    """A checkpoint kept in fp16 would lose small updates."""
    from transformers import BertForSequenceClassification

    folder = write_base(tmp_path / "half")
    half = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float16)
    half.save_pretrained(folder)
    model = load_for_training(folder, device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_weights_in_blocks_are_trained_as_they_are_scored(base: Path, tmp_path: Path) -> None:
    """A folder with `blocks.safetensors` in place of `model.safetensors` is a base like others."""
    folder = tmp_path / "blocks"
    shutil.copytree(base, folder)
    weights = {name: t.numpy() for name, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    packed = {}
    for name, values in weights.items():
        if values.ndim == 2 and values.shape[1] % BLOCK == 0:
            packed[f"{name}.q8"], packed[f"{name}.scale"] = to_8_bits(values)
        else:
            packed[name] = values
    assert any(name.endswith(".q8") for name in packed)
    save_numpy(packed, folder / FILE)
    got = load_for_training(folder, device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    want = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions()).logits
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_wrong_bases_and_lengths_are_named(base: Path) -> None:
    """No such model, or more tokens than it takes, raise with the value."""
    with pytest.raises(UnknownModelError):
        load_for_training("no-such-model")
    with pytest.raises(InvalidInputError, match="at most 64"):
        load_for_training(base, max_length=65)
