"""What a checkpoint says of itself is followed, or refused by an error that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cross_encoders import CHATML, edit, loaded
from texts import PAIRS
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.pair_form import check_pair_form, pair_form

CARD = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"


@pytest.fixture
def folder(tiny_cross_encoders: Mapping[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may edit."""
    return Path(shutil.copytree(tiny_cross_encoders["bert"], tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        (CARD, {"colour": "red"}, "colour"),
        (TRANSFORMER, {"colour": "red"}, "colour"),
        (CARD, {"activation_fn": "torch.nn.modules.activation.Tanh"}, "activation_fn.*Tanh"),
        (CARD, {"activation_fn": "my_code.Steep"}, r"activation_fn.*my_code\.Steep"),
        (CARD, {"default_prompt_name": "web"}, "default_prompt_name.*web"),
        (CARD, {"requirements": {"transformers": ">=99"}}, "transformers"),
        (TRANSFORMER, {"transformer_task": "feature-extraction"}, "transformer_task"),
        (TRANSFORMER, {"transformer_task": None}, "transformer_task"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(
    folder: Path, file: str, changes: dict[str, Any], named: str
) -> None:
    """Never a score that leaves it out."""
    edit(folder / file, **changes)
    with pytest.raises(UnsupportedModelError, match=named):
        load_scorer(folder).describe()


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ([{"idx": 0, "name": "0", "path": "", "type": "my_code.Model"}], r"my_code\.Model"),
        ([{"idx": 0, "name": "0", "path": ""}], "type"),
        ([], "no module"),
        ({"0": "x"}, "list"),
        (
            [
                {
                    "idx": 0,
                    "name": "0",
                    "path": "../elsewhere",
                    "type": "sentence_transformers.base.modules.transformer.Transformer",
                }
            ],
            r"\.\./elsewhere",
        ),
    ],
)
def test_modules_that_are_not_the_library_s_or_lie_elsewhere_are_named(
    folder: Path, modules: Any, named: str
) -> None:
    """No code of a checkpoint runs unasked, and no path leads out of it."""
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=named):
        load_scorer(folder).describe()


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        (TRANSFORMER, {"processing_kwargs": {"text": {"max_length": 40}}}, "processing_kwargs"),
        (TRANSFORMER, {"config_kwargs": {"hidden_act": "relu"}}, "config_kwargs"),
        (CARD, {"requirements": {"transformers": ">=5"}}, "requirements"),
        (CARD, {"keep_in_fp32_modules": ["0.model.classifier"]}, "keep_in_fp32_modules"),
    ],
)
def test_what_only_sentence_transformers_follows_goes_to_that_engine(
    folder: Path, file: str, changes: dict[str, Any], named: str
) -> None:
    """And `describe()` says why; the fast engines refuse it by name."""
    edit(folder / file, **changes)
    scorer = load_scorer(folder, precision="fp32")
    told = scorer.describe()
    assert told["engine"] == "sentence-transformers"
    assert named in told["chosen"]
    expected = loaded(folder).predict(PAIRS)
    found = 1 / (1 + pytest.importorskip("numpy").exp(-scorer.score(PAIRS, ScoreOptions()).logits))
    assert found == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UnsupportedModelError, match=named):
        load_scorer(folder, engine="torch").describe()


def test_processing_arguments_set_the_length_that_is_told(folder: Path) -> None:
    """Where the checkpoint cuts is where passages count as truncated."""
    edit(folder / TRANSFORMER, processing_kwargs={"text": {"max_length": 40}})
    assert load_scorer(folder).describe()["max_length"] == 40
    with pytest.raises(InvalidInputError, match="at most 40"):
        load_scorer(folder, max_length=60).describe()


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("torch.nn.modules.activation.Sigmoid", "sigmoid"),
        ("torch.nn.modules.linear.Identity", "identity"),
        (None, "sigmoid"),
    ],
)
def test_the_activation_of_a_saved_cross_encoder_is_told(
    folder: Path, stated: str | None, expected: str
) -> None:
    """It has moved from config.json to a file of sentence-transformers' own."""
    edit(folder / CARD, activation_fn=stated)
    assert load_scorer(folder).describe()["activation"] == expected


def test_without_modules_the_other_files_count_for_nothing_as_in_the_library(folder: Path) -> None:
    """``CrossEncoder`` reads no prompt there."""
    edit(folder / CARD, prompts={"web": "Find: "}, default_prompt_name="web")
    (folder / "modules.json").unlink()
    assert read_checkpoint(folder).saved.prompt == ""


def test_a_template_that_drops_the_pair_is_refused(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """Every score would be the same."""
    folder = Path(shutil.copytree(tiny_cross_encoders["chat"], tmp_path / "x"))
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}x"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match="chat template"):
        load_scorer(folder).score(PAIRS, ScoreOptions())


def test_a_chat_template_beside_a_classifier_is_used(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """sentence-transformers renders every pair through it, asked or not."""
    folder = Path(shutil.copytree(tiny_cross_encoders["qwen3"], tmp_path / "x"))
    (folder / "modules.json").unlink()
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    scorer = load_scorer(folder, precision="fp32")
    expected = loaded(folder).predict(PAIRS)
    logits = scorer.score(PAIRS, ScoreOptions()).logits
    assert logits == pytest.approx([float(x) for x in _logit(expected)], abs=2e-3)
    assert "chat template" in scorer.describe()["chosen"]


def _logit(probabilities: Any) -> Any:
    import numpy as np

    values = np.asarray(probabilities, dtype=np.float64)
    return np.log(values) - np.log1p(-values)


def test_pickled_weights_of_a_module_are_refused_unless_asked_for(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """A Dense head may hide what the body may not."""
    import torch
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(tiny_cross_encoders["dense"], tmp_path / "x"))
    weights = folder / "3_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(UnsupportedModelError, match=r"3_Dense.*allow_pickle_weights"):
        load_scorer(folder).describe()
    assert load_scorer(folder, allow_pickle_weights=True).describe()["labels"] == 1


def test_a_head_without_weights_is_refused_by_the_engine_too(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """sentence-transformers would score at random."""
    scorer = load_scorer(tiny_checkpoints["no_head"], engine="sentence-transformers")
    with pytest.raises(UnsupportedModelError, match="no weights for"):
        scorer.describe()


def test_three_labels_are_refused_by_the_engine_too(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """Whichever engine reads the head."""
    folder = tmp_path / "x"
    loaded(tiny_checkpoints["three_labels"]).save_pretrained(str(folder))
    edit(folder / CARD, requirements={"transformers": ">=5"})
    with pytest.raises(UnsupportedModelError, match="one label or two"):
        load_scorer(folder).describe()


@pytest.mark.parametrize("name", ["bge", "rstar", "camembert", "polish"])
def test_the_pair_s_form_is_what_the_architecture_says(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """Two separators for RoBERTa's family, one for BERT's."""
    folder = tiny_checkpoints[name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_pair_form(
        tokenizer, json.loads((folder / "config.json").read_text())["model_type"], folder
    )
    form = pair_form(tokenizer.backend_tokenizer)
    assert len(form.middle) == (1 if name == "rstar" else 2)


def test_a_tokenizer_that_joins_pairs_in_another_form_is_refused(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers 5.0 to 5.2 write one separator for XLM-R, and every score changes."""
    folder = tiny_checkpoints["bge"]
    original = AutoTokenizer.from_pretrained

    def with_one_separator(*args: Any, **options: Any) -> Any:
        tokenizer = original(*args, **options)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)],
        )
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", with_one_separator)
    with pytest.raises(UnsupportedModelError, match=r"<s>query</s>passage</s>.*</s></s>"):
        load_scorer(folder).describe()


def test_a_checkpoint_s_own_form_in_tokenizer_json_counts(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """Whoever trained with another form says so there."""
    folder = Path(shutil.copytree(tiny_checkpoints["rstar"], tmp_path / "x"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)],
    )
    backend.save(str(folder / "tokenizer.json"))
    check_pair_form(tokenizer, "bert", folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModelError, match="by the architecture bert"):
        check_pair_form(tokenizer, "bert", folder)


@pytest.mark.parametrize("name", ["bare_causal", "dense"])
def test_a_config_of_a_far_larger_model_is_refused_in_every_form(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    """Before a library makes up what the weights lack."""
    folder = Path(shutil.copytree(tiny_cross_encoders[name], tmp_path / "x"))
    edit(folder / "config.json", intermediate_size=10**9)
    with pytest.raises(UnsupportedModelError, match="intermediate_size"):
        load_scorer(folder).describe()
