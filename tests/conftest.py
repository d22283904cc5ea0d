"""What all tests share: tiny checkpoints, no network but loopback, the Hypothesis profile."""

from __future__ import annotations

import os

# Before anything imports torch: tiny models gain nothing from threads, and where cores are
# shared, threads that wait for each other make the suite many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything imports the Hub client or a tokenizer: quiet, and no telemetry to try.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

# Examples run on whatever cores are free, so no deadline; the same ones on every machine.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Lets pytest-socket refuse every connection that leaves this machine."""
    config.addinivalue_line("markers", "slow: builds wheels or environments; tens of seconds")
    if not config.option.allow_hosts:
        config.option.allow_hosts = "127.0.0.1,::1"
        config.option.allow_unix_socket = True


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its processes (pytest-xdist's workers) see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders of tiny checkpoints by name, such as ``tiny_checkpoints["bge"]``.

    See `checkpoints.TinyCheckpoints` for the names.
    """
    from checkpoints import TinyCheckpoints
    from transformers.utils import logging

    logging.disable_progress_bar()
    root = shared_folder(tmp_path_factory) / "checkpoints"
    root.mkdir(exist_ok=True)
    return TinyCheckpoints(root)


@pytest.fixture(scope="session")
def tiny_cross_encoders(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoints: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Folders of tiny cross-encoders that sentence-transformers saved.

    See `cross_encoders.TinyCrossEncoders` for the names.
    """
    from cross_encoders import TinyCrossEncoders

    root = shared_folder(tmp_path_factory) / "cross_encoders"
    root.mkdir(exist_ok=True)
    return TinyCrossEncoders(root, tiny_checkpoints)


@pytest.fixture(scope="session", autouse=True)
def _torch_unless_asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """``engine="auto"`` is torch here, and ``precision="auto"`` fp32, on every machine.

    One engine for one suite, exact, and no model converted that no test looks at. A process that a
    test starts chooses for itself, and keeps what it converts with the tests' files.
    """
    from rerank_plugins.scoring import engines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_MEASURED_MACHINES", set())
        patch.setattr(engines, "native_bf16", lambda: False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
