"""The forward pass without padding gives transformers' own logits, to 1e-5 in fp32.

Everything in it but the attention kernel runs here; what a CUDA kernel is given is checked
against the kernel's documented contract.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rerank_plugins.scoring import torch_engine
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.packed import (
    Layout,
    attention_by_row,
    attention_on_cuda,
    can_pack,
    packed_logits,
)
from rerank_plugins.scoring.torch_engine import TorchEngine

TOLERANCE = 1e-5
PACKED = (*ARCHITECTURES, "two_labels", "three_labels")
LENGTHS = [200, 30, 30, 12, 12, 12, 7, 2, 1]
SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 1,
    "initializer_range": 0.5,
}


@cache
def model_of(folder: Path) -> Any:
    """The fp32 model, straight from transformers."""
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return loaded.eval()


def batch_of(model: Any, lengths: Sequence[int], seed: int = 0) -> Batch:
    """Rows of any ids of the vocabulary, the padding's id among them."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(0, model.config.vocab_size, mask.shape)
    ids[rng.random(mask.shape) < 0.05] = model.config.pad_token_id
    types = rng.integers(0, model.config.type_vocab_size, mask.shape)
    return Batch(np.where(mask, ids, model.config.pad_token_id), mask, types)


def plain(model: Any, batch: Batch) -> torch.Tensor:
    """Transformers' own forward."""
    types = batch.token_type_ids
    with torch.inference_mode():
        return model(
            input_ids=torch.from_numpy(batch.input_ids),
            attention_mask=torch.from_numpy(batch.attention_mask),
            token_type_ids=None if types is None else torch.from_numpy(types),
        ).logits


def by_the_book(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """softmax(q k / sqrt(d)) v, a row and a head at a time."""
    answers = torch.empty_like(query)
    first_tokens = len(query) == len(layout.lengths)
    seen = 0
    for row, length in enumerate(layout.lengths):
        whole = slice(seen, seen + length)
        asking = slice(row, row + 1) if first_tokens else whole
        for head in range(query.shape[1]):
            weights = query[asking, head] @ key[whole, head].T / query.shape[2] ** 0.5
            answers[asking, head] = weights.softmax(dim=1) @ value[whole, head]
        seen += length
    return answers


@pytest.mark.parametrize("attention", [by_the_book, attention_by_row])
@pytest.mark.parametrize("name", PACKED)
def test_same_logits_as_transformers(
    tiny_checkpoints: Mapping[str, Path], name: str, attention: Any
) -> None:
    """Rows of many lengths, equal ones and a single token among them, of any ids and types."""
    model = model_of(tiny_checkpoints[name])
    batch = batch_of(model, LENGTHS)
    expected = plain(model, batch)
    assert expected.std() > 0.1
    with torch.inference_mode():
        found = packed_logits(model, batch, attention)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["bge", "rstar"])
def test_without_token_types_they_are_zeros(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """As transformers takes them."""
    model = model_of(tiny_checkpoints[name])
    given_types = batch_of(model, [9, 4])
    batch = Batch(given_types.input_ids, given_types.attention_mask, None)
    with torch.inference_mode():
        found = packed_logits(model, batch, attention_by_row)
    torch.testing.assert_close(found, plain(model, batch), atol=TOLERANCE, rtol=TOLERANCE)


def test_a_roberta_of_its_own_class_is_packed_too() -> None:
    """The English RoBERTa, beside XLM-R and CamemBERT."""
    torch.manual_seed(0)
    config = RobertaConfig(**SMALL, max_position_embeddings=40, pad_token_id=1)
    model = RobertaForSequenceClassification(config).eval()
    batch = batch_of(model, [30, 5, 5])
    assert can_pack(model)
    with torch.inference_mode():
        found = packed_logits(model, batch, attention_by_row)
    torch.testing.assert_close(found, plain(model, batch), atol=TOLERANCE, rtol=TOLERANCE)


@given(
    lengths=st.lists(st.integers(min_value=1, max_value=20), min_size=1, max_size=8),
    first_tokens=st.booleans(),
    seed=st.integers(min_value=0, max_value=1000),
)
def test_attention_by_row_is_attention_by_the_book(
    lengths: list[int], first_tokens: bool, seed: int
) -> None:
    """In any order of lengths, for all tokens and for first tokens."""
    random = torch.Generator().manual_seed(seed)
    layout = Layout(lengths, torch.device("cpu"))
    asking = len(lengths) if first_tokens else sum(lengths)
    query = torch.randn(asking, 2, 8, generator=random)
    key, value = torch.randn(2, sum(lengths), 2, 8, generator=random)
    found = attention_by_row(query, key, value, layout)
    expected = by_the_book(query, key, value, layout)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def documented_kernel(  # noqa: PLR0917 - as torch has it
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
) -> torch.Tensor:
    """What torch documents of ``varlen_attn``, in plain products, and what it requires."""
    for starts, tokens, longest in ((cu_seq_q, query, max_q), (cu_seq_k, key, max_k)):
        assert starts.dtype == torch.int32
        assert starts[0] == 0
        assert starts[-1] == len(tokens)
        assert starts.diff().max() == longest
    rows = []
    for row in range(len(cu_seq_q) - 1):
        asking, seen = (slice(*starts[row : row + 2].tolist()) for starts in (cu_seq_q, cu_seq_k))
        weights = torch.einsum("qhd,khd->hqk", query[asking], key[seen]) / query.shape[2] ** 0.5
        rows.append(torch.einsum("hqk,khd->qhd", weights.softmax(dim=2), value[seen]))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["bge", "rstar"])
def test_what_the_cuda_kernel_is_given_fits_its_contract(
    tiny_checkpoints: Mapping[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starts, lengths and shapes: with the documented formula in the kernel's place, parity."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch is older than 2.10")
    monkeypatch.setattr(varlen, "varlen_attn", documented_kernel)
    model = model_of(tiny_checkpoints[name])
    batch = batch_of(model, LENGTHS)
    with torch.inference_mode():
        found = packed_logits(model, batch, attention_on_cuda)
    torch.testing.assert_close(found, plain(model, batch), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["bge", "rstar", "camembert"])
def test_on_cuda_the_engine_packs_and_agrees_with_fp32(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """With the kernel itself."""
    engine = TorchEngine(tiny_checkpoints[name], device="cuda", precision="fp16")
    assert engine.packed
    model = model_of(tiny_checkpoints[name])
    batch = batch_of(model, LENGTHS)
    np.testing.assert_allclose(engine.logits(batch), plain(model, batch).numpy(), atol=0.1)


class OwnBert(BertForSequenceClassification):
    """As a checkpoint's own code may be."""


def small_models() -> dict[str, Any]:
    """Models that must take the plain pass."""
    bert = BertConfig(**SMALL, max_position_embeddings=40)
    return {
        "subclass": OwnBert(bert),
        "decoder": BertForSequenceClassification(
            BertConfig(**SMALL, max_position_embeddings=40, is_decoder=True)
        ),
        "electra": ElectraForSequenceClassification(ElectraConfig(**SMALL, embedding_size=16)),
        "distilbert": DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
        ),
    }


def test_other_architectures_take_the_plain_pass(tmp_path: Path) -> None:
    """Electra's head reads the first token too, but by a class that was not compared."""
    for name, model in small_models().items():
        assert not can_pack(model), name
    model = small_models()["electra"].eval()
    model.save_pretrained(tmp_path)
    engine = TorchEngine(tmp_path, device="cpu", precision="fp32")
    batch = batch_of(model, [9, 4])
    assert not engine.packed
    np.testing.assert_allclose(engine.logits(batch), plain(model, batch).numpy(), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_engine_packs_the_catalogue_s_architectures(
    tiny_checkpoints: Mapping[str, Path], name: str, precision: Any
) -> None:
    """On a CPU the trial at loading passes in both precisions."""
    engine = TorchEngine(tiny_checkpoints[name], device="cpu", precision=precision)
    assert engine.packed
    if precision == "fp32":
        batch = batch_of(model_of(tiny_checkpoints[name]), LENGTHS)
        expected = plain(model_of(tiny_checkpoints[name]), batch).numpy()
        np.testing.assert_allclose(engine.logits(batch), expected, atol=TOLERANCE, rtol=TOLERANCE)


def forgets_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """Lets every token see every row."""
    return by_the_book(query, key, value, Layout([len(key)], layout.device))[: len(query)]


def breaks(*_: object) -> torch.Tensor:
    """As on a GPU for which the kernel was not built."""
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("kernel", "why"), [(forgets_rows, "its logits are"), (breaks, "no kernel image")]
)
def test_a_kernel_that_fails_its_trial_is_not_used(
    tiny_checkpoints: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kernel: Any,
    why: str,
) -> None:
    """Wrong or missing, it costs speed and a line in the log, never a score."""
    monkeypatch.setattr(torch_engine, "attention_by_row", kernel)
    model = model_of(tiny_checkpoints["bge"])
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        engine = TorchEngine(tiny_checkpoints["bge"], device="cpu", precision="fp32")
    assert not engine.packed
    assert why in caplog.text
    batch = batch_of(model, LENGTHS)
    np.testing.assert_allclose(engine.logits(batch), plain(model, batch).numpy(), atol=TOLERANCE)
