"""Every name of the catalogue loads from a Hub, with a twin of its architecture and form."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from cross_encoders import loaded
from hub_server import Hub, running_hub
from test_hub import talk_to
from texts import PAIRS

from rerank_plugins import CATALOG
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.models.loading import _warn_once, load_scorer
from rerank_plugins.scoring.base import ScoreOptions

TWINS = {
    "Omartificial-Intelligence-Space/ARA-Reranker-V1": "xlm-roberta",
    "jaspercatapang/R-star": "bert",
    "BAAI/bge-reranker-large": "xlm-roberta",
    "antoinelouis/crossencoder-camembert-L2-mmarcoFR": "camembert",
    "sdadas/polish-reranker-bge-v2": "xlm-roberta",
    "sdadas/polish-reranker-roberta-v2": "roberta",
    "cross-encoder/ms-marco-MiniLM-L-6-v2": "bert",
    "cross-encoder/ms-marco-MiniLM-L-12-v2": "bert",
    "BAAI/bge-reranker-base": "xlm-roberta",
    "BAAI/bge-reranker-v2-m3": "xlm-roberta",
    "BAAI/bge-reranker-v2-gemma": "bare_gemma",
    "BAAI/bge-reranker-v2.5-gemma2-lightweight": "lightweight",
    "Qwen/Qwen3-Reranker-0.6B": "bare_causal",
    "Qwen/Qwen3-Reranker-4B": "bare_causal",
    "mixedbread-ai/mxbai-rerank-base-v2": "bare_causal",
    "mixedbread-ai/mxbai-rerank-large-v2": "bare_causal",
    "NAMAA-Space/GATE-Reranker-V1": "bert",
    "antoinelouis/crossencoder-camembert-base-mmarcoFR": "camembert",
    "antoinelouis/crossencoder-camemberta-base-mmarcoFR": "deberta-v2",
}
NAMES = [name for name, row in CATALOG.items() if "/" in name and not row.remote_code]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty one."""
    with running_hub() as hub:
        talk_to(hub, monkeypatch)
        yield hub


@pytest.mark.parametrize("name", NAMES)
def test_a_name_loads_with_its_form(
    tiny_cross_encoders: Mapping[str, Path], hub: Hub, tmp_path: Path, name: str
) -> None:
    """And scores as its twin does."""
    folder, form = tiny_cross_encoders[TWINS[name]], CATALOG[name].form
    hub.publish(name, folder)
    scorer = load_scorer(name, cache_folder=tmp_path, precision="fp32")
    assert scorer.describe()["form"] == form
    found = scorer.score(PAIRS[:6], ScoreOptions()).logits
    twin = load_scorer(folder, form=form, precision="fp32").score(PAIRS[:6], ScoreOptions()).logits
    np.testing.assert_allclose(found, twin, atol=1e-4)


JINA = "jinaai/jina-reranker-v2-base-multilingual"
GTE = "Alibaba-NLP/gte-multilingual-reranker-base"


def with_code(folder: Path, to: Path, place: str = "", **changes: object) -> Path:
    """A copy whose config.json names classes of its own, in a file beside it or elsewhere."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    del config["model_type"]
    config["auto_map"] = {
        "AutoConfig": f"{place}configuration_own.OwnConfig",
        "AutoModelForSequenceClassification": f"{place}modeling_own.OwnModel",
    }
    (to / "config.json").write_text(json.dumps(config | changes))
    if not place:
        (to / "configuration_own.py").write_text(
            "from transformers import XLMRobertaConfig\n"
            "class OwnConfig(XLMRobertaConfig):\n    model_type = 'xlm-roberta'\n"
        )
        (to / "modeling_own.py").write_text(
            "from transformers import XLMRobertaForSequenceClassification as Native\n"
            "from .configuration_own import OwnConfig\n"
            "class OwnModel(Native):\n    config_class = OwnConfig\n"
        )
    return to


def test_jina_s_form_runs_its_code_only_when_it_is_trusted(
    tiny_checkpoints: Mapping[str, Path],
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its config.json names no model type, only classes in files beside it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    plain = tiny_checkpoints["bge"]
    hub.publish(JINA, with_code(plain, tmp_path / "jina"))
    with pytest.raises(UnsupportedModelError, match="trust_remote_code"):
        load_scorer(JINA, cache_folder=tmp_path / "cache").describe()
    scorer = load_scorer(
        JINA, cache_folder=tmp_path / "cache", trust_remote_code=True, precision="fp32"
    )
    found = scorer.score(PAIRS[:6], ScoreOptions()).logits
    expected = load_scorer(plain, precision="fp32").score(PAIRS[:6], ScoreOptions()).logits
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gte_s_form_takes_its_code_from_elsewhere(
    tiny_checkpoints: Mapping[str, Path],
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never fetched behind one's back: the error names the repository, and how to fetch it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    for holder in ("huggingface_hub.constants", "transformers.utils.hub.constants"):
        monkeypatch.setattr(f"{holder}.HF_HUB_CACHE", str(tmp_path / "client"))
    plain, place = tiny_checkpoints["bge"], "Alibaba-NLP/new-impl"
    with_code(plain, tmp_path / "code")
    hub.publish(place, tmp_path / "code")
    hub.publish(GTE, with_code(plain, tmp_path / "gte", f"{place}--", model_type="new"))
    options = {"cache_folder": tmp_path / "cache", "precision": "fp32"}
    with pytest.raises(UnsupportedModelError, match="trust_remote_code"):
        load_scorer(GTE, **options).describe()
    with pytest.raises(UnsupportedModelError, match=r"snapshot_download\('Alibaba-NLP/new-impl'"):
        load_scorer(GTE, trust_remote_code=True, **options).describe()
    for file in ("configuration_own.py", "modeling_own.py"):
        huggingface_hub.hf_hub_download(place, file)
    scorer = load_scorer(GTE, trust_remote_code=True, **options)
    found = scorer.score(PAIRS[:6], ScoreOptions()).logits
    expected = load_scorer(plain, precision="fp32").score(PAIRS[:6], ScoreOptions()).logits
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(not hasattr(transformers, "GteConfig"), reason="this transformers has no GTE")
@pytest.mark.parametrize("engine", ["auto", "sentence-transformers"])
def test_gte_s_architecture_loads_where_transformers_has_it(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path, engine: str
) -> None:
    """Under transformers' own model type: no code but the library's."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_cross_encoders["xlm-roberta"])
    config = transformers.GteConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.5,
        num_labels=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    transformers.GteForSequenceClassification(config).eval().save_pretrained(tmp_path / "gte")
    tokenizer.save_pretrained(tmp_path / "gte")
    expected = loaded(tmp_path / "gte").predict(PAIRS[:8], activation_fn=torch.nn.Identity())
    scorer = load_scorer(tmp_path / "gte", engine=engine, precision="fp32")
    found = scorer.score(PAIRS[:8], ScoreOptions()).logits
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "causal_chat", "prompted", "one_token"])
def test_the_modules_of_a_cross_encoder_are_fetched_too(
    tiny_cross_encoders: Mapping[str, Path], hub: Hub, tmp_path: Path, name: str
) -> None:
    """Heads and token ids lie in separate folders; a cached copy has them."""
    folder = tiny_cross_encoders[name]
    hub.publish("someone/modular", folder)
    expected = loaded(folder).predict(PAIRS[:6])
    for local in (False, True):
        scorer = load_scorer(
            "someone/modular", cache_folder=tmp_path, local_files_only=local, precision="fp32"
        )
        logits = scorer.score(PAIRS[:6], ScoreOptions()).logits
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-4)


def test_what_a_checkpoint_says_counts_more_than_the_catalogue(
    tiny_cross_encoders: Mapping[str, Path], hub: Hub, tmp_path: Path
) -> None:
    """An edition that sentence-transformers saved brings its own template."""
    name = "Qwen/Qwen3-Reranker-0.6B"
    hub.publish(name, tiny_cross_encoders["causal_chat"])
    assert load_scorer(name, cache_folder=tmp_path).describe()["form"] is None


def test_a_module_s_path_does_not_lead_out_of_the_cache(
    tiny_cross_encoders: Mapping[str, Path], hub: Hub, tmp_path: Path
) -> None:
    """A repository may name any path."""
    folder = Path(shutil.copytree(tiny_cross_encoders["causal"], tmp_path / "x"))
    text = (folder / "modules.json").read_text().replace("1_LogitScore", "../../x")
    (folder / "modules.json").write_text(text)
    hub.publish("someone/bad", folder)
    with pytest.raises(UnsupportedModelError, match=r"\.\./\.\./x"):
        load_scorer("someone/bad", cache_folder=tmp_path / "cache").describe()


def test_a_licence_without_commercial_use_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """When the model is named, not at every query."""
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            load_scorer("jinaai/jina-reranker-v2-base-multilingual", trust_remote_code=True)
    assert caplog.text.count("may not be used commercially") == 1
    assert "CC-BY-NC-4.0" in caplog.text
