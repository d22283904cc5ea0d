"""Weights in blocks of 4 and 8 bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.blocks import (
    BLOCK,
    FILE,
    Blocks,
    has_blocks,
    read_blocks,
    to_8_bits,
)


def test_four_bits_are_read_as_they_were_packed(tmp_path: Path) -> None:
    """Low nibbles are a block's first half, high ones its second, around 8."""
    rng = np.random.default_rng(0)
    nibbles = rng.integers(0, 16, (3, 2, BLOCK))
    scale = rng.normal(size=(3, 2)).astype(np.float16)
    packed = (nibbles[:, :, :16] | nibbles[:, :, 16:] << 4).astype(np.uint8)
    save_file({"x.q4": packed, "x.scale": scale, "y": np.ones(3, np.float16)}, tmp_path / FILE)
    assert has_blocks(tmp_path)
    found = read_blocks(tmp_path)
    wanted = ((nibbles - 8) * scale.astype(np.float32)[:, :, None]).reshape(3, 64)
    np.testing.assert_array_equal(found["x"].numpy(), wanted)
    assert found["y"].dtype == torch.float32


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_eight_bits_are_within_half_a_step(seed: int, size: float) -> None:
    """No weight is further off than half of its block's scale, and float16's rounding of it."""
    weights = (np.random.default_rng(seed).normal(size=(2, 64)) * size).astype(np.float32)
    weights[0, :BLOCK] = 0
    integers, scale = to_8_bits(weights)
    wide = np.repeat(scale.astype(np.float32), BLOCK, axis=1)
    assert (np.abs(integers * wide - weights) <= wide * (0.5 + 127 * 2**-10)).all()
    assert not integers[0, :BLOCK].any()


def test_a_table_that_two_models_share_is_kept_once(tmp_path: Path) -> None:
    """It is read from the sibling's file, and from nowhere else."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    save_file({"table": np.arange(4, dtype=np.float32)}, tmp_path / "one" / FILE)
    metadata = {"shared": json.dumps({"mine": ["one", "table"]})}
    save_file({"own": np.ones(2, np.float32)}, tmp_path / "two" / FILE, metadata)
    assert read_blocks(tmp_path / "two")["mine"].tolist() == [0, 1, 2, 3]
    outside = {"shared": json.dumps({"mine": ["../../etc", "table"]})}
    save_file({"own": np.ones(2, np.float32)}, tmp_path / "two" / FILE, outside)
    with pytest.raises(UnsupportedModelError, match="sibling folder"):
        read_blocks(tmp_path / "two")


def test_a_damaged_file_is_told_of(tmp_path: Path) -> None:
    """So is a missing one."""
    with pytest.raises(UnsupportedModelError, match="could not be read"):
        read_blocks(tmp_path)
    (tmp_path / FILE).write_bytes(b"not weights")
    with pytest.raises(UnsupportedModelError, match="could not be read"):
        read_blocks(tmp_path)


def test_rows_are_decoded_as_they_are_looked_up(tmp_path: Path) -> None:
    """As in the whole matrix, for each way that a table may be stored."""
    rng = np.random.default_rng(0)
    integers, scale = to_8_bits(rng.normal(size=(5, 64)).astype(np.float32))
    nibbles = rng.integers(0, 256, (5, 2, 16)).astype(np.uint8)
    plain = rng.normal(size=(5, 3)).astype(np.float16)
    save_file(
        {"a.q8": integers, "a.scale": scale, "b.q4": nibbles, "b.scale": scale, "c": plain},
        tmp_path / FILE,
    )
    blocks = Blocks(tmp_path)
    assert blocks.count() == sum(tensor.numel() for tensor in blocks.values()) == 5 * (64 + 64 + 3)
    ids = np.array([4, 0, 0])
    for name, whole in blocks.items():
        rows = blocks.rows(name)
        assert rows.shape == whole.shape
        np.testing.assert_array_equal(rows(ids), whole[ids].numpy())
        with pytest.raises(IndexError):
            rows(np.array([5]))


def test_a_scale_that_does_not_fit_is_told_of(tmp_path: Path) -> None:
    """By the file's name, when the matrix is read."""
    save_file({"x.q8": np.ones((2, 64), np.int8), "x.scale": np.ones((2, 3))}, tmp_path / FILE)
    for read in (read_blocks, lambda folder: Blocks(folder).rows("x")):
        with pytest.raises(UnsupportedModelError, match=FILE):
            read(tmp_path)
