"""Which precision the torch engine takes by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from texts import PAIRS

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import engines
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.torch_engine import torch_precision


@pytest.mark.parametrize(
    ("device", "native", "expected"),
    [
        ("cpu", True, "bf16"),
        ("cpu", False, "fp32"),
        ("cuda:0", True, "fp16"),
        ("cuda:0", False, "fp16"),
        ("mps", True, "fp32"),
    ],
)
def test_auto_goes_by_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, native: bool, expected: str
) -> None:
    """bf16 on a CPU that has it, fp16 on CUDA; what the CPU can do says nothing of others."""
    monkeypatch.setattr(engines, "native_bf16", lambda: native)
    assert torch_precision("auto", torch.device(device)) == expected
    for asked in ("fp32", "bf16", "fp16"):
        assert torch_precision(asked, torch.device(device)) == asked


def test_on_a_cpu_with_bf16_auto_is_bf16_and_fp32_stays_exact(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a CPU rounds where the user leaves the choice, never where he asks for fp32."""
    folder, options = tiny_checkpoints["rstar"], ScoreOptions()
    before = load_scorer(folder, engine="torch", device="cpu", precision="fp32")
    expected = before.score(PAIRS, options).logits
    monkeypatch.setattr(engines, "native_bf16", lambda: True)
    # Another revision of a folder is the same weights, loaded anew.
    auto = load_scorer(folder, engine="torch", device="cpu", revision="bf16")
    exact = load_scorer(folder, engine="torch", device="cpu", precision="fp32", revision="fp32")
    assert auto.describe()["precision"] == "bf16"
    np.testing.assert_allclose(exact.score(PAIRS, options).logits, expected, atol=1e-6)
    rounded = auto.score(PAIRS, options).logits
    assert np.abs(rounded - expected).max() > 1e-4
    assert np.corrcoef(rounded, expected)[0, 1] > 0.9
