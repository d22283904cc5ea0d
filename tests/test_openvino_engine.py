"""The OpenVINO engine: the reference's logits, one compiled model, kept conversions."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES
from texts import ALL_PASSAGES, PAIRS, PASSAGES, QUESTIONS
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ElectraConfig,
    ElectraForSequenceClassification,
)

from rerank_plugins import load_reranker
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.models.catalog import bundled_folder
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import converted, engines, openvino_engine
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.openvino_compiled import openvino_library
from rerank_plugins.scoring.openvino_engine import OpenVINOEngine

if find_spec("openvino") is None:
    pytest.skip("needs the extra openvino", allow_module_level=True)
# As the library does it: imported the plain way it would bring its telemetry along.
openvino = openvino_library()

TOLERANCE = 1e-4


@cache
def reference(folder: Path) -> np.ndarray:
    """Logits of `PAIRS` by transformers, a pair at a time: shape (pairs, labels)."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [model(**tokenizer(*pair, return_tensors="pt")).logits[0] for pair in PAIRS]
    return torch.stack(rows).double().numpy()


def batch_of(rows: int, width: int, *, types: bool) -> Batch:
    """Any tokens; the last row is half padding."""
    ids = np.random.default_rng(rows * 1000 + width).integers(5, 1000, (rows, width))
    mask = np.ones_like(ids)
    mask[-1, max(1, width // 2) :] = 0
    return Batch(ids, mask, np.zeros_like(ids) if types else None)


def entries(folder: Path) -> list[Path]:
    """Kept conversions beside a checkpoint."""
    return sorted((folder / converted.FOLDER).glob("[!.]*"))


@pytest.fixture
def copy_of(tiny_checkpoints: Mapping[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copies a tiny checkpoint, with what is kept beside it only when asked."""

    def copied(name: str, *, kept: bool = False) -> Path:
        if kept:
            OpenVINOEngine.load(read_checkpoint(tiny_checkpoints[name]), precision="fp32")
        ignore = None if kept else shutil.ignore_patterns(converted.FOLDER)
        return shutil.copytree(tiny_checkpoints[name], tmp_path / name, ignore=ignore)

    return copied


def no_conversion(*_: object) -> None:
    """Stands in where nothing may be converted."""
    raise AssertionError("the model was converted")


@pytest.mark.parametrize("name", [*ARCHITECTURES, "two_labels"])
def test_same_logits_as_transformers_one_pair_at_a_time(
    tiny_checkpoints: Mapping[str, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The five architectures and a head of two labels, by the shorter last layer."""
    caplog.set_level(logging.INFO)
    scorer = load_scorer(tiny_checkpoints[name], engine="openvino", precision="fp32")
    expected = reference(tiny_checkpoints[name])
    expected = expected[:, 0] if name != "two_labels" else expected[:, 1] - expected[:, 0]
    assert expected.std() > 0.1, "the checkpoint does not tell pairs apart"
    for budget in (1, 777, 100_000):
        found = scorer.score(PAIRS, ScoreOptions(batch_tokens=budget)).logits
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert "a way to convert" not in caplog.text, "the shorter last layer was not taken"


def test_long_rows_have_the_logits_of_torch(tiny_checkpoints: Mapping[str, Path]) -> None:
    """Thousands of tokens, past every length that the export saw."""
    pairs = [(QUESTIONS["pl"], " ".join(ALL_PASSAGES * 4)), (QUESTIONS["ar"], PASSAGES["ar"][0])]
    one, other = (
        load_scorer(tiny_checkpoints["polish"], device="cpu", engine=engine, precision="fp32")
        for engine in ("openvino", "torch")
    )
    found, expected = (scorer.score(pairs, ScoreOptions()) for scorer in (one, other))
    np.testing.assert_allclose(found.logits, expected.logits, atol=TOLERANCE)
    assert not found.truncated.any()


def test_every_shape_runs_on_the_model_compiled_once(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and widths of all sizes, none of them compiled anew."""
    compiled = []
    plain = openvino.Core.compile_model

    def counted(*given: object) -> object:
        compiled.append(given)
        return plain(*given)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    checkpoint = read_checkpoint(tiny_checkpoints["rstar"])
    OpenVINOEngine.load(checkpoint, precision="fp32")  # so that it is kept
    compiled.clear()
    engine = OpenVINOEngine.load(checkpoint, precision="fp32")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoints["rstar"]).eval()
    for rows, width in ((1, 1), (1, 2), (2, 1), (5, 37), (64, 9), (3, 512)):
        batch = batch_of(rows, width, types=True)
        inputs = {name: torch.from_numpy(x) for name, x in openvino_engine.inputs_of(batch).items()}
        with torch.inference_mode():
            expected = model(**inputs).logits.numpy()
        np.testing.assert_allclose(engine.logits(batch), expected, atol=TOLERANCE)
    assert len(compiled) == 1


def test_another_architecture_is_converted_whole(
    copy_of: Callable[..., Path], tmp_path: Path
) -> None:
    """An ELECTRA's head reads its first token differently: nothing is left out."""
    folder = copy_of("rstar")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    config = ElectraConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(folder)),
        embedding_size=16,
        intermediate_size=64,
        initializer_range=0.5,
        num_labels=1,
        **shape,
    )
    (folder / "model.safetensors").unlink()
    ElectraForSequenceClassification(config).eval().save_pretrained(folder)
    scorer = load_scorer(folder, engine="openvino", precision="fp32")
    found = scorer.score(PAIRS, ScoreOptions(batch_tokens=777)).logits
    # Logits of 7 and more: another order of summation moves their fifth digit.
    np.testing.assert_allclose(found, reference(folder)[:, 0], rtol=1e-4, atol=TOLERANCE)


def test_a_conversion_that_gives_other_logits_is_not_taken(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converted model must give the original's logits, or it is told of and left."""
    folder = tiny_checkpoints["bge"]
    kept = OpenVINOEngine.load(read_checkpoint(folder), precision="fp32")
    assert kept.parameters == sum(
        weight.numel() for weight in AutoModelForSequenceClassification.from_pretrained(
            folder
        ).parameters()
    )  # fmt: skip
    model = openvino.Core().read_model(entries(folder)[0] / converted.MODEL)
    monkeypatch.setattr(openvino_engine, "_export", lambda *_: model)
    example = batch_of(2, 7, types=False)
    right = kept.logits(example)
    tried = openvino_engine._tried
    assert tried(None, example, right, 512) == (model, "")
    found, problem = tried(None, example, right + 0.01, 512)
    assert found is None
    assert "differ" in problem


def test_what_cannot_be_converted_is_named_and_auto_takes_torch(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the export is an UnsupportedModelError; under auto torch steps in."""
    folder = copy_of("bge")

    def broken(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(openvino_engine, "_export", broken)
    with pytest.raises(UnsupportedModelError, match=r"engine='torch'.*no such operator"):
        load_reranker(folder, engine="openvino").rerank("q", ["a"])
    monkeypatch.setattr(engines, "_against_openvino", lambda *_, **__: None)
    told = load_reranker(folder, device="cpu").describe()
    assert told["engine"] == "torch"
    assert "no such operator" in told["chosen"]


def test_weights_that_are_missing_are_named_as_with_torch(copy_of: Callable[..., Path]) -> None:
    """The engine changes nothing about what a checkpoint needs."""
    folder = copy_of("bge")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="could not be loaded"):
        load_scorer(folder, engine="openvino").score(PAIRS, ScoreOptions())


def test_the_second_load_takes_what_the_first_kept(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is converted twice; no file but the checkpoint's own and the kept ones is left."""
    folder = copy_of("bge", kept=True)
    monkeypatch.setattr(openvino_engine, "_convert", no_conversion)
    engine = OpenVINOEngine.load(read_checkpoint(folder), precision="fp32")
    assert engine.logits(batch_of(2, 9, types=False)).shape == (2, 1)
    (entry,) = entries(folder)
    assert sorted(file.name for file in entry.iterdir()) == [
        "manifest.json",
        "model.bin",
        "model.xml",
    ]
    assert not list((folder / converted.FOLDER).glob(".*")), "temporary files were left"


def test_other_weights_or_versions_are_other_entries(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed weight, a changed config, a newer OpenVINO: converted anew."""
    folder = copy_of("bge", kept=True)
    monkeypatch.setattr(openvino_engine, "_convert", no_conversion)
    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine, "version", lambda name: f"{name} of tomorrow")
        with pytest.raises(AssertionError, match="was converted"):
            OpenVINOEngine.load(read_checkpoint(folder), precision="fp32")
    config = folder / "config.json"
    before = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**before, "layer_norm_eps": 1e-3}), encoding="utf-8")
    with pytest.raises(AssertionError, match="was converted"):
        OpenVINOEngine.load(read_checkpoint(folder), precision="fp32")


def test_a_damaged_entry_is_told_of_and_made_anew(
    copy_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One byte of the weights changed: the next load does not compute with it."""
    folder = copy_of("bge", kept=True)
    checkpoint = read_checkpoint(folder)
    (entry,) = entries(folder)
    example = batch_of(3, 11, types=False)
    expected = OpenVINOEngine.load(checkpoint, precision="fp32").logits(example)
    good = shutil.copytree(entry, folder / "good")
    weights = bytearray((entry / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 0x40
    (entry / "model.bin").write_bytes(weights)
    model = openvino.Core().read_model(good / converted.MODEL)
    monkeypatch.setattr(openvino_engine, "_convert", lambda *_: model)
    found = OpenVINOEngine.load(checkpoint, precision="fp32").logits(example)
    np.testing.assert_array_equal(found, expected)
    assert "is damaged" in caplog.text
    caplog.clear()
    monkeypatch.setattr(openvino_engine, "_convert", no_conversion)
    OpenVINOEngine.load(checkpoint, precision="fp32")
    assert "is damaged" not in caplog.text


def test_beside_a_folder_that_takes_no_files_the_user_s_cache_does(
    copy_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Read-only weights: kept under XDG_CACHE_HOME; with no place at all, converted and told."""
    folder = copy_of("bge", kept=True)
    model = openvino.Core().read_model(entries(folder)[0] / converted.MODEL)
    model = model.clone()
    shutil.rmtree(folder / converted.FOLDER)
    (folder / converted.FOLDER).touch()  # even root cannot make a folder where a file is
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_engine, "_convert", lambda *_: model)
    checkpoint = read_checkpoint(folder)
    OpenVINOEngine.load(checkpoint, precision="fp32")
    (entry,) = (tmp_path / "cache" / "rerank-plugins" / "openvino").iterdir()
    assert (entry / converted.MODEL).is_file()
    assert "each process will do again" not in caplog.text

    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    engine = OpenVINOEngine.load(checkpoint, precision="fp32")
    assert engine.logits(batch_of(2, 5, types=False)).shape == (2, 1)
    assert "each process will do again" in caplog.text


def test_nothing_is_written_into_the_package() -> None:
    """What is converted from the embedded model lies in the user's cache."""
    package = bundled_folder().parents[1]
    assert all(not place.is_relative_to(package) for place in converted.places(bundled_folder()))


def test_many_threads_get_the_scores_of_one(tiny_checkpoints: Mapping[str, Path]) -> None:
    """One engine under thirty-two threads, with batches of all shapes, locked by itself."""
    engine = OpenVINOEngine.load(read_checkpoint(tiny_checkpoints["rstar"]), precision="fp32")
    batches = [batch_of(1 + number % 5, 3 + number, types=True) for number in range(32)]
    expected = [engine.logits(batch) for batch in batches]
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(engine.logits, batches * 3))
    for one, other in zip(found, expected * 3, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_describe_and_one_log_line_tell_what_was_chosen(
    tiny_checkpoints: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Engine, device, precision and the reason; however often it scores."""
    caplog.set_level(logging.INFO)
    reranker = load_reranker(tiny_checkpoints["camembert"], engine="openvino", precision="fp32")
    for _ in range(3):
        reranker.rerank("q", ["a", "b"])
    told = reranker.describe()
    assert (told["engine"], told["device"], told["precision"]) == ("openvino", "cpu", "fp32")
    assert told["chosen"] == "asked for"
    assert caplog.text.count("runs on engine openvino, device cpu, precision fp32") == 1


def test_openvino_reports_to_nobody(tiny_checkpoints: Mapping[str, Path]) -> None:
    """Its telemetry, which talks to a server unless one opts out, is never imported."""
    OpenVINOEngine.load(read_checkpoint(tiny_checkpoints["rstar"]), precision="fp32")
    assert "openvino_telemetry" not in sys.modules
