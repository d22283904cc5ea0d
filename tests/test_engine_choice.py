"""Which engine and precision run a model, and the answers to wishes that cannot be met."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.errors import InvalidInputError, MissingDependencyError
from rerank_plugins.langchain import CrossEncoderCompressor
from rerank_plugins.scoring import converted, engines
from rerank_plugins.scoring.checkpoint import Checkpoint, read_checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoints: Mapping[str, Path]) -> Checkpoint:
    """One of an architecture that was measured."""
    return read_checkpoint(tiny_checkpoints["bge"])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An x86 machine without accelerator or bf16, OpenVINO installed."""
    monkeypatch.setattr(engines, "_MEASURED_MACHINES", {engines.platform.machine()})
    monkeypatch.setattr(engines, "openvino_installed", lambda: True)
    monkeypatch.setattr(engines, "native_bf16", lambda: False)
    monkeypatch.setattr(engines, "_accelerator", lambda: False)
    return monkeypatch


def chosen(checkpoint: Checkpoint, **wishes: Any) -> tuple[str, str]:
    """Engine and precision; auto where nothing is wished."""
    wishes = {"engine": "auto", "precision": "auto", "device": "auto", **wishes}
    remote_code = wishes.pop("remote_code", False)
    choice = engines.choose(**wishes, checkpoint=checkpoint, remote_code=remote_code)
    assert choice.reason
    return choice.engine, choice.precision


def test_auto_takes_openvino_where_it_was_measured(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch
) -> None:
    """fp32 on a processor without bf16, bf16 on one with, and never anything coarser."""
    assert chosen(checkpoint) == ("openvino", "fp32")
    assert chosen(checkpoint, device="cpu") == ("openvino", "fp32")
    machine.setattr(engines, "native_bf16", lambda: True)
    assert chosen(checkpoint) == ("openvino", "bf16")
    assert chosen(checkpoint, precision="fp32") == ("openvino", "fp32")
    assert chosen(checkpoint, precision="bf16") == ("openvino", "bf16")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("openvino_installed", lambda: False),
        ("_accelerator", lambda: True),
        ("_MEASURED_MACHINES", {"pdp11"}),
        ("_MEASURED_ARCHITECTURES", {"deberta"}),
    ],
)
def test_auto_takes_torch_when_one_thing_speaks_against_openvino(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """Not installed, a GPU, another processor, an architecture that was not measured."""
    machine.setattr(engines, name, value)
    assert chosen(checkpoint) == ("torch", "auto")


def test_auto_takes_torch_for_what_openvino_does_not_do(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch
) -> None:
    """Another device, fp16, emulated bf16, the checkpoint's own code."""
    assert chosen(checkpoint, device="cuda:0") == ("torch", "auto")
    assert chosen(checkpoint, precision="fp16") == ("torch", "fp16")
    assert chosen(checkpoint, precision="bf16") == ("torch", "bf16")
    assert chosen(checkpoint, remote_code=True) == ("torch", "auto")


def test_auto_takes_torch_where_no_conversion_can_be_kept(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each process would convert again: dearer than what it saves."""
    (tmp_path / "file").touch()
    machine.setattr(converted, "places", lambda _: [tmp_path / "file"])
    assert chosen(checkpoint) == ("torch", "auto")
    assert chosen(checkpoint, engine="openvino") == ("openvino", "fp32")


def test_an_engine_that_is_asked_for_is_taken(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch
) -> None:
    """Whatever auto would say; int8 names its engine by itself."""
    assert chosen(checkpoint, engine="torch", precision="bf16") == ("torch", "bf16")
    machine.setattr(engines, "_accelerator", lambda: True)
    assert chosen(checkpoint, engine="openvino") == ("openvino", "fp32")


def test_int8_runs_where_it_is_faster(checkpoint: Checkpoint, machine: pytest.MonkeyPatch) -> None:
    """OpenVINO's gains nothing over its fp32 without VNNI or AMX; torch's does."""
    machine.setattr(engines, "native_int8", lambda: True)
    assert chosen(checkpoint, precision="int8") == ("openvino", "int8")
    machine.setattr(engines, "native_int8", lambda: False)
    assert chosen(checkpoint, precision="int8") == ("torch", "int8")
    machine.setattr(engines, "native_int8", lambda: True)
    machine.setattr(engines, "openvino_installed", lambda: False)
    assert chosen(checkpoint, precision="int8") == ("torch", "int8")


def test_bf16_that_openvino_would_emulate_is_refused(
    checkpoint: Checkpoint, machine: pytest.MonkeyPatch
) -> None:
    """It would be slower than fp32, and coarser."""
    with pytest.raises(InvalidInputError, match="AVX512-BF16 or AMX"):
        chosen(checkpoint, engine="openvino", precision="bf16")


@pytest.mark.parametrize("by", ["torch", "the kernel"])
def test_native_bf16_and_int8_are_what_the_processor_says(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer as the kernel's list of flags, which is asked where torch is not there."""
    flags = Path("/proc/cpuinfo")
    if not flags.is_file() or "flags" not in flags.read_text(encoding="utf-8"):
        pytest.skip("no list of the processor's flags here")
    listed = flags.read_text(encoding="utf-8").split()
    spec = importlib.util.find_spec(engines.__name__)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)  # the suite's own has it patched
    spec.loader.exec_module(fresh)
    if by == "torch":
        monkeypatch.setattr(fresh, "_kernels_flags", dict)
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert fresh.native_bf16() == bool({"avx512_bf16", "amx_bf16"} & set(listed))
    assert fresh.native_int8() == bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(listed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onnx"}, r"engine must be one of .* but got 'onnx'"),
        ({"engine": "torch", "precision": "int4"}, r"precision must be one of .* but got 'int4'"),
        ({"engine": "openvino", "precision": "fp16"}, r"engine='openvino'.* but got 'fp16'"),
        ({"engine": "openvino", "device": "cuda"}, r"device must be .* but got 'cuda'"),
        ({"precision": "int8", "device": "mps"}, r"device must be .* but got 'mps'"),
    ],
)
def test_wishes_that_no_machine_meets_are_answered_at_once(
    options: dict[str, Any], message: str
) -> None:
    """Before anything is fetched, through the adapters too."""
    with pytest.raises(InvalidInputError, match=message):
        load_reranker("BAAI/bge-reranker-large", **options)
    with pytest.raises(InvalidInputError, match=message):
        CrossEncoderCompressor(model="BAAI/bge-reranker-large", **options)


def test_without_openvino_the_extra_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the first query, where ``on_error="first_stage"`` would hide it."""
    monkeypatch.setattr(engines, "openvino_installed", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"rerank-plugins\[openvino\]"):
        load_reranker(on_error="first_stage", engine="openvino")


def test_without_openvino_everything_else_works(tiny_checkpoints: Mapping[str, Path]) -> None:
    """In a process that cannot import it, auto ranks by torch."""
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from rerank_plugins import load_reranker\n"
        f"r = load_reranker({str(tiny_checkpoints['bge'])!r})\n"
        "print(len(r.rerank('q', ['a', 'b'])), r.describe()['engine'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["2", "torch"]
