"""Models whose scores depend on padding: each pair scores as ``predict`` scores it alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from cross_encoders import loaded
from texts import ALL_PASSAGES, PAIRS, QUESTIONS

from rerank_plugins import CrossEncoderScorer
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions, Scorer
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.padding import a_length_at_a_time, depends_on_padding

_LAYERS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2}
_WIDTH: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.5}
# FNet mixes all places, ConvBERT its neighbours, XLNet reads the last place; BART wants equally
# many end tokens in all rows of a batch. Class, tokenizer, configuration.
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fnet": ("FNet", "rstar", {**_WIDTH, "num_hidden_layers": 2, "type_vocab_size": 2}),
    "convbert": ("ConvBert", "rstar", {**_WIDTH, **_LAYERS, "embedding_size": 32}),
    "xlnet": (
        "XLNet",
        "rstar",
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "initializer_range": 0.5},
    ),
    "bart": (
        "Bart",
        "bge",
        {
            "d_model": 32,
            "init_std": 0.5,
            "max_position_embeddings": 512,
            **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
            **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
            **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
        },
    ),
}
TESTED = [
    *PAIRS[::4],
    (QUESTIONS["en"], "The sign says </s> and [SEP]."),
    (QUESTIONS["fr"], " ".join(ALL_PASSAGES)),
]


@pytest.fixture(params=_KINDS)
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_checkpoints: Mapping[str, Path]
) -> Path:
    """A tiny random checkpoint of the kind."""
    name, stand_in, settings = _KINDS[request.param]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoints[stand_in])
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        num_labels=1,
        **settings,
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def _alone(folder: Path) -> np.ndarray:
    model = loaded(folder)
    found = [model.predict([pair], activation_fn=torch.nn.Identity()) for pair in TESTED]
    assert np.std(found) > 0.1, "the checkpoint does not tell pairs apart"
    return np.concatenate(found)


def test_a_pair_scores_as_it_does_alone(folder: Path) -> None:
    """By the checkpoint's name, and as a ready model."""
    expected = _alone(folder)
    scorers: list[Scorer] = [
        load_scorer(folder, precision="fp32", device="cpu"),
        CrossEncoderScorer(loaded(folder)),
    ]
    for scorer in scorers:
        found = scorer.score(TESTED, ScoreOptions(long_passages="truncate")).logits
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("folder", ["fnet", "convbert"], indirect=True)
def test_the_torch_engine_leaves_padding_out_too(folder: Path) -> None:
    """Where a user asks for that engine."""
    scorer = load_scorer(folder, engine="torch", precision="fp32", device="cpu")
    found = scorer.score(TESTED, ScoreOptions(long_passages="truncate")).logits
    np.testing.assert_allclose(found, _alone(folder), atol=1e-4)


def test_what_cannot_take_rows_of_several_lengths_gets_them_apart() -> None:
    """Whatever the model raises for them."""

    def forward(batch: Batch) -> np.ndarray:
        if not batch.attention_mask.all():
            raise ValueError("no padding here")
        return batch.input_ids.sum(axis=1, keepdims=True).astype(np.float32)

    ids, mask = np.array([[1, 2], [3, 0]]), np.array([[1, 1], [1, 0]])
    assert depends_on_padding(forward, Batch(ids, mask, None), "fp32")
    assert not depends_on_padding(forward, Batch(ids, np.ones_like(mask), None), "fp32")


def test_rows_of_one_length_go_together_on_whichever_side_they_are_padded() -> None:
    """Each row comes once, whole, and its logits stand in its place."""
    seen: list[list[list[int]]] = []

    def forward(batch: Batch) -> np.ndarray:
        assert batch.attention_mask.all()
        seen.append(batch.input_ids.tolist())
        return batch.input_ids.sum(axis=1, keepdims=True).astype(np.float32)

    ids = np.array([[1, 2, 0], [0, 3, 4], [5, 6, 7], [8, 0, 0]])
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0]])
    found = a_length_at_a_time(forward, Batch(ids, mask, mask))
    assert found.ravel().tolist() == [3, 7, 18, 8]
    assert seen == [[[8]], [[1, 2], [3, 4]], [[5, 6, 7]]]
    a_length_at_a_time(forward, Batch(ids, mask, None), end_id=2)
    assert seen[3:] == [[[8]], [[3, 4]], [[1, 2]], [[5, 6, 7]]]


def test_an_adapter_that_was_not_read_whole_is_refused(
    tmp_path: Path, tiny_cross_encoders: Mapping[str, Path]
) -> None:
    """DoRA's magnitudes stay random under transformers 5: another score at each load."""
    peft = pytest.importorskip("peft")
    model = loaded(tiny_cross_encoders["bert"])
    torch.manual_seed(6)
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS, r=4, use_dora=True, init_lora_weights=False
    )
    model.add_adapter(config)
    model.save_pretrained(str(tmp_path))
    scores = [loaded(tmp_path).predict(PAIRS[:2]) for _ in range(2)]
    if np.allclose(*scores, atol=1e-5):
        pytest.skip("this version of transformers and peft reads DoRA's weights")
    with pytest.raises(UnsupportedModelError, match=r"peft did not read.*magnitude.*merge"):
        load_scorer(tmp_path).describe()
