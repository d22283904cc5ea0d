"""What a checkpoint says of itself, read instead of assumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import ARCHITECTURES
from texts import ALL_PASSAGES, PAIRS

from rerank_plugins.errors import (
    InvalidInputError,
    MissingDependencyError,
    UnsupportedModelError,
)
from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring import checkpoint
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.checkpoint import read_checkpoint


def edited(folder: Path, to: Path, file: str, **changes: Any) -> Path:
    """A copy with other settings in one JSON file; a value of None takes the setting away."""
    shutil.copytree(folder, to)
    settings = json.loads((to / file).read_text(encoding="utf-8"))
    settings.update(changes)
    kept = {key: value for key, value in settings.items() if value is not None}
    (to / file).write_text(json.dumps(kept), encoding="utf-8")
    return to


@pytest.mark.parametrize(
    ("name", "architecture", "length", "types"),
    [
        ("bge", "xlm-roberta", 512, False),
        ("ara", "xlm-roberta", 512, False),
        ("rstar", "bert", 512, True),
        ("camembert", "camembert", 512, False),
        ("polish", "xlm-roberta", 8192, False),
        ("no_limit", "xlm-roberta", 512, False),
    ],
)
def test_architecture_length_and_token_types_are_read(
    tiny_checkpoints: Mapping[str, Path], name: str, architecture: str, length: int, *, types: bool
) -> None:
    """RoBERTa-likes use two positions fewer than config.json counts, stated limit or not."""
    found = read_checkpoint(tiny_checkpoints[name])
    assert found.architecture == architecture
    assert found.max_length == length
    assert found.with_types is types


def test_a_tokenizer_s_smaller_limit_wins(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """A model trained at 256 tokens may say so in its tokenizer."""
    folder = edited(
        tiny_checkpoints["camembert"], tmp_path / "x", "tokenizer_config.json", model_max_length=256
    )
    assert read_checkpoint(folder).max_length == 256


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_usable_position_can_be_used(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """A passage longer than everything is scored at full length without an index error."""
    scorer = load_scorer(tiny_checkpoints[name], device="cpu")
    endless = " ".join(ALL_PASSAGES * (3 if name != "polish" else 18))
    scores = scorer.score([("x", endless), (endless, endless)], ScoreOptions())
    assert scores.truncated.all()
    assert np.isfinite(scores.logits).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sentence_transformers": None}, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "identity",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        ({"sentence_transformers": {"version": "5.0"}}, "sigmoid"),
    ],
)
def test_the_activation_is_read_where_either_generation_keeps_it(
    tiny_checkpoints: Mapping[str, Path],
    tmp_path: Path,
    settings: dict[str, Any],
    expected: str,
) -> None:
    """Kept elsewhere by sentence-transformers 2 and 3 than by 4 and later."""
    folder = edited(tiny_checkpoints["bge"], tmp_path / "x", "config.json", **settings)
    assert read_checkpoint(folder).activation == expected


def test_three_labels_are_refused(tiny_checkpoints: Mapping[str, Path]) -> None:
    """An NLI model is not a relevance cross-encoder."""
    with pytest.raises(UnsupportedModelError, match=r"one label or two, but .* has 3"):
        read_checkpoint(tiny_checkpoints["three_labels"])


@pytest.mark.parametrize(
    ("names", "relevant"),
    [
        (None, 1),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1),
        ({"0": "irrelevant", "1": "relevant"}, 1),
        ({"0": "relevant", "1": "irrelevant"}, 0),
        ({"0": "RELEVANT", "1": "NOT_RELEVANT"}, 0),
        ({"0": "relevant", "1": "non-relevant"}, 0),
        ({"0": "relevant", "1": "unrelated"}, 0),
        ({"0": "yes", "1": "no"}, 0),
        ({"0": "no", "1": "yes"}, 1),
        ({"0": "positive", "1": "negative"}, 0),
        ({"0": "1", "1": "0"}, 0),
        ({"0": "0", "1": "1"}, 1),
        ({"0": "normal", "1": "novel"}, 1),
    ],
)
def test_the_relevant_one_of_two_labels_is_found_by_its_name(
    tiny_checkpoints: Mapping[str, Path],
    tmp_path: Path,
    names: dict[str, str] | None,
    relevant: int,
) -> None:
    """The second, unless the names say otherwise."""
    folder = edited(
        tiny_checkpoints["two_labels"],
        tmp_path / "x",
        "config.json",
        id2label=names,
        label2id=None if names is None else {name: int(label) for label, name in names.items()},
        num_labels=2,
    )
    found = read_checkpoint(folder)
    assert (found.labels, found.relevant) == (2, relevant)


def test_two_reversed_labels_turn_the_sign(tiny_checkpoints: Mapping[str, Path]) -> None:
    """The same weights, the other class relevant."""
    plain = load_scorer(tiny_checkpoints["two_labels"], device="cpu").score(PAIRS, ScoreOptions())
    turned = load_scorer(tiny_checkpoints["two_labels_reversed"], device="cpu").score(
        PAIRS, ScoreOptions()
    )
    np.testing.assert_allclose(turned.logits, -plain.logits, atol=1e-5)


def test_a_model_without_scoring_head_is_refused(tiny_checkpoints: Mapping[str, Path]) -> None:
    """On its own, transformers would draw the head at random and only warn."""
    with pytest.raises(UnsupportedModelError, match="scores would be random"):
        load_scorer(tiny_checkpoints["no_head"], device="cpu").describe()


def test_pickled_weights_are_refused_unless_allowed(tiny_checkpoints: Mapping[str, Path]) -> None:
    """In a local folder too."""
    with pytest.raises(UnsupportedModelError):
        load_scorer(tiny_checkpoints["pickle_only"], device="cpu").describe()
    scorer = load_scorer(tiny_checkpoints["pickle_only"], device="cpu", allow_pickle_weights=True)
    assert scorer.describe()["architecture"] == "xlm-roberta"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "no json"),
        ("model.safetensors", "no tensors"),
    ],
)
def test_a_damaged_file_is_an_unsupported_model(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, file: str, content: str
) -> None:
    """Whatever the libraries below say of it, the error is ours and names the folder."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoints["bge"], folder)
    (folder / file).write_text(content)
    with pytest.raises(UnsupportedModelError) as raised:
        load_scorer(folder, device="cpu").describe()
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_an_unsupported_model(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, missing: str
) -> None:
    """No tokenizer is made up, no weight drawn at random."""
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_checkpoints["bge"], folder)
    (folder / missing).unlink()
    with pytest.raises(UnsupportedModelError) as raised:
        load_scorer(folder, device="cpu").describe()
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("library", ["sentencepiece", "google.protobuf"])
def test_a_library_that_only_this_tokenizer_needs_is_named(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """A SentencePiece model without tokenizer.json; others load without the library."""
    installed = checkpoint._installed
    monkeypatch.setattr(checkpoint, "_installed", lambda name: name != library and installed(name))
    with pytest.raises(MissingDependencyError, match="pip install sentencepiece protobuf"):
        read_checkpoint(tiny_checkpoints["sentencepiece_only"])
    assert read_checkpoint(tiny_checkpoints["bge"]).max_length == 512


@pytest.mark.parametrize(
    "block",
    [
        {"windows": 3},
        {"long_passages": "middle"},
        {"window_tokens": 0},
        {"window_tokens": "many"},
        {"max_length": -1},
        {"first_stage_weight": 2},
        {"first_stage_weight": "half"},
        "max",
    ],
)
def test_wrong_scoring_defaults_in_a_config_are_named(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, block: object
) -> None:
    """A slip in the ``rerank_plugins`` block is an error, not silently another score."""
    folder = edited(tiny_checkpoints["bge"], tmp_path / "x", "config.json", rerank_plugins=block)
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        read_checkpoint(folder)


def test_scoring_defaults_of_a_checkpoint_are_used_and_can_be_overridden(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """Windows as the checkpoint wants them, unless the caller says otherwise."""
    folder = edited(
        tiny_checkpoints["bge"],
        tmp_path / "x",
        "config.json",
        rerank_plugins={"long_passages": "max", "window_tokens": 20, "max_length": 100},
    )
    own = load_scorer(folder, device="cpu")
    plain = load_scorer(tiny_checkpoints["bge"], device="cpu", max_length=100)
    pairs = [("museum", " ".join(ALL_PASSAGES))]
    described = own.describe()
    assert (described["max_length"], described["window_tokens"]) == (100, 20)
    assert described["long_passages"] == "max"
    by_default = own.score(pairs, ScoreOptions()).logits
    assert by_default == own.score(pairs, ScoreOptions(long_passages="max")).logits
    truncated = own.score(pairs, ScoreOptions(long_passages="truncate")).logits
    np.testing.assert_allclose(truncated, plain.score(pairs, ScoreOptions()).logits, atol=1e-5)
    assert abs(float(by_default[0] - truncated[0])) > 1e-3


def test_more_than_the_usable_length_is_refused(tiny_checkpoints: Mapping[str, Path]) -> None:
    """513 would index past the positions of a 512-token model."""
    assert load_scorer(tiny_checkpoints["bge"], max_length=512).describe()["max_length"] == 512
    with pytest.raises(InvalidInputError, match=r"at most 512.* but got 513"):
        load_scorer(tiny_checkpoints["bge"], max_length=513).describe()


def hostile(folder: Path, to: Path, model_type: str | None = None) -> Path:
    """A checkpoint whose own code, if it runs, leaves a file ``ran`` beside it."""
    code = (
        "from pathlib import Path\n"
        "from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification\n"
        f"Path({str(to / 'ran')!r}).touch()\n"
        "class OwnConfig(XLMRobertaConfig):\n"
        f"    model_type = {model_type or 'xlm-roberta'!r}\n"
        "class OwnModel(XLMRobertaForSequenceClassification):\n"
        "    config_class = OwnConfig\n"
    )
    changes: dict[str, Any] = {
        "auto_map": {
            "AutoConfig": "modeling.OwnConfig",
            "AutoModelForSequenceClassification": "modeling.OwnModel",
        }
    }
    if model_type is not None:
        changes["model_type"] = model_type
    edited(folder, to, "config.json", **changes)
    (to / "modeling.py").write_text(code)
    return to


def test_code_in_a_checkpoint_does_not_run_and_the_native_model_serves(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """The Polish model ships optional code: the native class gives its scores without it."""
    folder = hostile(tiny_checkpoints["polish"], tmp_path / "x")
    scores = load_scorer(folder, device="cpu").score(PAIRS[:4], ScoreOptions()).logits
    assert not (folder / "ran").exists()
    expected = load_scorer(tiny_checkpoints["polish"], device="cpu").score(
        PAIRS[:4], ScoreOptions()
    )
    np.testing.assert_allclose(scores, expected.logits, atol=1e-5)


def test_an_architecture_that_needs_its_own_code_is_refused_until_it_is_trusted(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """The refusal names the option; with it, the code runs."""
    folder = hostile(tiny_checkpoints["polish"], tmp_path / "x", model_type="own-architecture")
    with pytest.raises(UnsupportedModelError, match="trust_remote_code"):
        load_scorer(folder, device="cpu").describe()
    assert not (folder / "ran").exists()
    trusted = load_scorer(folder, device="cpu", trust_remote_code=True)
    assert trusted.describe()["architecture"] == "own-architecture"
    assert (folder / "ran").exists()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_what_is_kept_with_code_is_not_used_without_and_the_other_way_round(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, engine: str
) -> None:
    """Conversions and cached scores of a class that gives others than the native one does."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    folder = hostile(tiny_checkpoints["bge"], tmp_path / "x")
    with (folder / "modeling.py").open("a") as code:
        code.write(
            "    def forward(self, *args, **options):\n"
            "        told = super().forward(*args, **options)\n"
            "        told.logits = 3 - told.logits\n"
            "        return told\n"
        )
    trusted, native = (
        read_checkpoint(folder, trust_remote_code=trust).fingerprint() for trust in (True, False)
    )
    assert trusted != native
    plain = tiny_checkpoints["bge"]
    same = (
        read_checkpoint(plain, trust_remote_code=trust).fingerprint() for trust in (True, False)
    )
    assert len(set(same)) == 1  # there is no code to trust
    found = {
        trust: load_reranker(
            folder,
            trust_remote_code=trust,
            engine=engine,
            precision="fp32",
            device="cpu",
            scale="logit",
            cache=tmp_path / "scores",
        ).rerank("museum", ALL_PASSAGES[:3])
        for trust in (True, False)
    }
    logits = [sorted(3 - item.logit for item in found[True])]
    logits += [sorted(item.logit for item in found[False])]
    np.testing.assert_allclose(*logits, atol=1e-3)
