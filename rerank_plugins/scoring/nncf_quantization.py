"""nncf's post-training quantization, kept quiet."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import MissingDependencyError
from rerank_plugins.scoring.openvino_compiled import without_telemetry

if TYPE_CHECKING:
    import openvino


def check_installed() -> None:
    """Refuses where an int8 model for OpenVINO cannot be made.

    Raises:
        MissingDependencyError: If openvino or nncf is not installed.
    """
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            raise MissingDependencyError(
                f"making an int8 model for OpenVINO needs {name}, of the extra 'openvino': "
                "pip install 'rerank-plugins[openvino]'; engine='torch' needs neither"
            )


def quantized(model: openvino.Model, inputs: list[dict[str, NDArray[np.int64]]]) -> openvino.Model:
    """The quantized model."""
    plain = logging.getLoggerClass()
    try:
        with without_telemetry():
            import nncf
    finally:
        logging.setLoggerClass(plain)  # nncf puts its own in place of everybody's
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps nncf's log and bars off stdout, where results go; no bars without a terminal."""
    import nncf

    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        if sys.stderr.isatty():
            with redirect_stdout(sys.stderr):
                yield
        else:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        nncf.set_log_level(level)
