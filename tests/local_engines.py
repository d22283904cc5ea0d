"""The two engines of this machine, for tests that hold for both."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

ENGINES = (
    "torch",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino"),
    ),
)
