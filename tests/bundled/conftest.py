"""A tiny encoder for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_encoder import write_encoder
from transformers import BertModel


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    """A folder in the layout that ships, and the model that it holds."""
    folder = tmp_path_factory.mktemp("tiny-encoder")
    return folder, write_encoder(folder)
