"""Settings that few checkpoints have: scored as ``CrossEncoder.predict`` does, a pair at a time.

A pair at a time, since with left padding an encoder's scores depend on the batch there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cross_encoders import edit, loaded
from safetensors.torch import load_file, save_file
from texts import ALL_PASSAGES, PAIRS, QUESTIONS

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions

LONG = [(query, " ".join(ALL_PASSAGES)) for query in list(QUESTIONS.values())[:2]]
TESTED = [*PAIRS[::6], *LONG]


def tokenizer(**changes: Any) -> Callable[[Path], None]:
    """Other settings in tokenizer_config.json."""
    return lambda folder: edit(folder / "tokenizer_config.json", **changes)


def config(**changes: Any) -> Callable[[Path], None]:
    """Other settings in config.json."""
    return lambda folder: edit(folder / "config.json", **changes)


def kept_state(direction: str) -> Callable[[Path], None]:
    """Truncation and padding of a call, saved in tokenizer.json."""

    def change(folder: Path) -> None:
        edit(
            folder / "tokenizer.json",
            truncation={
                "direction": direction,
                "max_length": 20,
                "strategy": "LongestFirst",
                "stride": 0,
            },
            padding={
                "strategy": {"Fixed": 64},
                "direction": direction,
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        )

    return change


def old_names(folder: Path) -> None:
    """Weights as TensorFlow's BERT called them."""
    file = folder / "model.safetensors"
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})


ODD: dict[str, Callable[[Path], None]] = {
    "texts are cut on the left": tokenizer(truncation_side="left"),
    "texts are cut on the left, says tokenizer.json": kept_state("Left"),
    "truncation and padding are saved": kept_state("Right"),
    "padding is on the left": tokenizer(padding_side="left"),
    "stride and strategy are saved": tokenizer(
        max_length=24, stride=4, truncation_strategy="only_second", pad_to_multiple_of=8
    ),
    "no token types are given": tokenizer(model_input_names=["input_ids", "attention_mask"]),
    "the tokenizer says nothing of letters' case": tokenizer(do_lower_case=False),
    "another activation inside": config(hidden_act="silu"),
    "attention is causal": config(is_decoder=True),
    "large epsilon": config(layer_norm_eps=0.3),
    "weights have their old names": old_names,
    "another problem type": config(problem_type="multi_label_classification"),
}


@pytest.mark.parametrize("engine", ["auto", "sentence-transformers"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_an_odd_checkpoint_scores_as_predict(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path, family: str, name: str, engine: str
) -> None:
    """Short pairs and cut ones."""
    folder = Path(shutil.copytree(tiny_cross_encoders[family], tmp_path / "x"))
    ODD[name](folder)
    model = loaded(folder)
    expected = np.concatenate(
        [model.predict([pair], activation_fn=torch.nn.Identity()) for pair in TESTED]
    )
    scorer = load_scorer(folder, engine=engine, precision="fp32", device="cpu")
    found = scorer.score(TESTED, ScoreOptions(long_passages="truncate")).logits
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tokenizer_that_cuts_on_the_left_is_not_for_the_fast_engines(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """They cut the passage's end: named when they are asked for, another one by itself."""
    from rerank_plugins.errors import UnsupportedModelError

    folder = Path(shutil.copytree(tiny_cross_encoders["bert"], tmp_path / "x"))
    tokenizer(truncation_side="left")(folder)
    assert "truncation_side" in load_scorer(folder).describe()["chosen"]
    with pytest.raises(UnsupportedModelError, match="truncation_side='left'"):
        load_scorer(folder, engine="torch").describe()
    assert json.loads((folder / "tokenizer_config.json").read_text())["truncation_side"] == "left"
