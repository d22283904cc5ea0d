"""Every name of the catalogue loads from a Hub, with a twin of its architecture and form."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from cross_encoders import loaded
from hub_server import Hub, running_hub
from test_hub import talk_to
from texts import PAIRS

from rerank_plugins import CATALOG
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
    from rerank_plugins.errors import UnsupportedModelError

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
