"""From a name to a reranker: lazy, shared, with helpful errors."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from texts import PASSAGES, QUESTIONS

from rerank_plugins import CATALOG, Reranker, load_reranker
from rerank_plugins.errors import InvalidInputError, UnknownModelError, UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import loaded as loaded_module
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.loaded import LoadedModel, ModelSettings
from rerank_plugins.scoring.local import LocalScorer


def weights_of(scorer: LocalScorer) -> object:
    """The loaded weights behind a scorer."""
    return scorer._load()[0]


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "bundled-encoder"])
def test_making_a_reranker_loads_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any name of the catalog answers at once, with no file read and no server asked."""

    def loads(settings: object) -> None:
        raise AssertionError(f"{settings} was loaded")

    monkeypatch.setattr(loaded_module, "LoadedModel", loads)
    monkeypatch.setattr(loaded_module, "_models", {})  # another test may have loaded it
    reranker = load_reranker(name, top_n=3, on_error="first_stage")
    assert reranker.model == name
    assert len(reranker.rerank("query", [])) == 0
    with pytest.raises(AssertionError, match="was loaded"):
        load_reranker(name).rerank("query", ["a passage"])


def test_making_a_reranker_imports_nothing_heavy() -> None:
    """No torch and none of its kind: they come with the first score."""
    code = (
        "import sys; from rerank_plugins import load_reranker; r = load_reranker();"
        "r.rerank('q', []);"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stdout.strip() == "[]"


def test_two_rerankers_of_one_model_hold_one_set_of_weights(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Other options of the reranker, another length, another spelling of the folder: shared."""
    folder = tiny_checkpoints["bge"]
    first = load_scorer(folder, device="cpu")
    same = load_scorer(str(folder) + "/", device="cpu")
    shorter = load_scorer(folder.parent / "." / folder.name, device="cpu", max_length=64)
    assert weights_of(first) is weights_of(same) is weights_of(shorter)
    assert (first.describe()["max_length"], shorter.describe()["max_length"]) == (512, 64)


def test_other_settings_are_other_weights(tiny_checkpoints: Mapping[str, Path]) -> None:
    """Precision and model decide."""
    plain = load_scorer(tiny_checkpoints["bge"], device="cpu")
    half = load_scorer(tiny_checkpoints["bge"], device="cpu", precision="bf16")
    other = load_scorer(tiny_checkpoints["ara"], device="cpu")
    assert len({id(weights_of(scorer)) for scorer in (plain, half, other)}) == 3
    assert half.describe()["precision"] == "bf16"


def test_weights_are_let_go_with_the_last_reranker(tiny_checkpoints: Mapping[str, Path]) -> None:
    """Sharing keeps nothing alive that no one holds."""
    scorer = load_scorer(tiny_checkpoints["rstar"], device="cpu")
    seen = weakref.ref(weights_of(scorer))
    del scorer
    gc.collect()
    assert seen() is None


def test_many_threads_that_ask_at_once_load_once(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first use of a shared model from sixteen threads reads its weights one time."""
    loaded = []

    class Counted(LoadedModel):
        def __init__(self, settings: ModelSettings) -> None:
            loaded.append(settings)
            super().__init__(settings)

    monkeypatch.setattr(loaded_module, "LoadedModel", Counted)
    scorers = [load_scorer(tiny_checkpoints["camembert"], device="cpu") for _ in range(16)]
    start = threading.Barrier(16)

    def use(scorer: LocalScorer) -> None:
        start.wait()
        scorer.score([("a", "b")], ScoreOptions())

    threads = [threading.Thread(target=use, args=(scorer,)) for scorer in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1


def test_a_load_that_failed_is_tried_again(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """Once the folder is whole, the same reranker works."""
    folder = tmp_path / "late"
    folder.mkdir()
    reranker = load_reranker(folder, device="cpu")
    with pytest.raises(UnsupportedModelError):
        reranker.rerank("q", ["a"])
    shutil.copytree(tiny_checkpoints["bge"], folder, dirs_exist_ok=True)
    assert len(reranker.rerank("q", ["a"])) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bge-reranker-large", "Did you mean: BAAI/bge-reranker-large"),
        ("embeded", "Did you mean: bundled"),
        ("ARA-Reranker-V1", "Did you mean: Omartificial-Intelligence-Space/ARA-Reranker-V1"),
        ("nothing like it", "The catalog has: bundled, "),
        ("", "The catalog has: bundled, "),
        ("/no/such/folder", "Model not found"),
        ("./nor/this", "Model not found"),
        ("~/nor-this", "Model not found"),
        ("a/b/c", "Model not found"),
    ],
)
def test_a_wrong_name_is_answered_at_once_with_the_near_ones(name: str, message: str) -> None:
    """No server is needed to see that this is not a name."""
    with pytest.raises(UnknownModelError, match=message) as raised:
        load_reranker(name)
    assert repr(name) in str(raised.value)


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    """A Path is never taken for a Hub name."""
    with pytest.raises(UnknownModelError, match="Model folder not found"):
        load_reranker(Path("owner/model"))
    (tmp_path / "file").touch()
    with pytest.raises(UnknownModelError, match="Model folder not found"):
        load_reranker(tmp_path / "file")


def test_a_folder_of_the_user_s_home_is_found(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~`` stands for the home folder, in a string too."""
    folder = tiny_checkpoints["bge"]
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_reranker(f"~/{folder.name}").rerank("q", ["a"]).model == f"~/{folder.name}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int3"}, r"precision must be one of .* but got 'int3'"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, but got 0"),
        ({"max_length": "long"}, "max_length must be a whole number"),
        ({"scale": "percent"}, r"scale must be one of \['probability', 'logit'\]"),
        ({"top_n": -1}, "top_n must be a whole number of at least 0, but got -1"),
    ],
)
def test_wrong_options_are_answered_at_once(options: dict[str, object], message: str) -> None:
    """Before anything is fetched."""
    with pytest.raises(InvalidInputError, match=message):
        load_reranker("BAAI/bge-reranker-large", **options)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "nothing"])
def test_a_device_that_is_not_there_is_named(
    tiny_checkpoints: Mapping[str, Path], device: str
) -> None:
    """A misspelt device and an absent one."""
    with pytest.raises(InvalidInputError, match="device must be") as raised:
        load_reranker(tiny_checkpoints["bge"], device=device).rerank("q", ["a"])
    assert repr(device) in str(raised.value)


def test_describe_goes_into_json_and_tells_what_scores(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Model, device, precision, length, labels: what a bug report needs."""
    reranker = load_reranker(tiny_checkpoints["polish"], device="cpu", scale="logit")
    told = json.loads(json.dumps(reranker.describe()))
    assert told["model"] == str(tiny_checkpoints["polish"])
    assert told["engine"] == "torch"
    assert told["device"] == "cpu"
    assert told["precision"] == "fp32"
    assert told["max_length"] == 8192
    assert told["labels"] == 1
    assert told["scale"] == "logit"
    assert told["parameters"] > 100_000


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_fp32(tiny_checkpoints: Mapping[str, Path], precision: str) -> None:
    """Coarser scores of the same pairs: they rise and fall together."""
    fine = load_reranker(tiny_checkpoints["bge"], device="cpu", scale="logit")
    coarse = load_reranker(
        tiny_checkpoints["bge"], device="cpu", scale="logit", precision=precision
    )
    passages = [text for texts in PASSAGES.values() for text in texts]
    expected = {item.candidate.key: item.score for item in fine.rerank(QUESTIONS["ar"], passages)}
    found = {item.candidate.key: item.score for item in coarse.rerank(QUESTIONS["ar"], passages)}
    keys = range(len(passages))
    together = np.corrcoef([found[key] for key in keys], [expected[key] for key in keys])[0, 1]
    assert together > 0.9
    assert found != expected


def test_load_reranker_gives_a_reranker_with_the_options_passed_on() -> None:
    """What `Reranker` takes, `load_reranker` takes."""
    reranker = load_reranker("bundled", top_n=2, score_threshold=0.0, on_error="first_stage")
    assert isinstance(reranker, Reranker)
    assert (reranker.top_n, reranker.score_threshold, reranker.on_error) == (2, 0.0, "first_stage")
