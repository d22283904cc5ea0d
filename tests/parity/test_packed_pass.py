"""The forward pass without padding gives transformers' own logits, to 1e-5 in fp32.

Everything in it but the attention kernel runs here; what a CUDA kernel is given is checked
against the kernel's documented contract.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rerank_plugins.scoring import linear, torch_engine
from rerank_plugins.scoring.attention import Attention, Layout, attention_by_row, attention_on_cuda
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.linear import Int8Linear, activation_steps
from rerank_plugins.scoring.packed import PackedBody, PackedClassifier, against_packing
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


def packed_logits(model: Any, batch: Batch, attention: Attention) -> torch.Tensor:
    """Those of our pass over the model's weights."""
    return packed_of(model).logits(batch, attention)


def packed_of(model: Any, **options: Any) -> PackedClassifier:
    """Our pass over the model's weights."""
    options = {"dtype": torch.float32, "device": torch.device("cpu"), **options}
    return PackedClassifier(model.config.to_dict(), model.state_dict(), **options)


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
    assert against_packing(config.to_dict()) is None
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


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_act": "mish"}, "mish"),
        ({"pruned_heads": {"0": [1]}}, "pruned heads"),
        ({"model_type": "electra"}, "electra"),
        ({"num_hidden_layers": 0}, "no layers"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ],
)
def test_settings_that_the_packed_pass_does_not_know_are_named(
    setting: dict[str, Any], why: str
) -> None:
    """Each changes the logits, or where the weights lie."""
    known = BertConfig(**SMALL, max_position_embeddings=40).to_dict()
    assert against_packing(known) is None
    assert why in str(against_packing({**known, **setting}))


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_same_logits_with_each_activation(activation: str) -> None:
    """Exact and approximate ones are told apart."""
    torch.manual_seed(0)
    config = BertConfig(**SMALL, max_position_embeddings=40, hidden_act=activation)
    model = BertForSequenceClassification(config).eval()
    batch = batch_of(model, [30, 5, 5])
    assert against_packing(config.to_dict()) is None
    with torch.inference_mode():
        found = packed_logits(model, batch, attention_by_row)
    torch.testing.assert_close(found, plain(model, batch), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["bge", "rstar"])
def test_every_token_s_last_hidden_state_is_transformers_own(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """What an encoder pools."""
    model = model_of(tiny_checkpoints[name])
    batch = batch_of(model, LENGTHS)
    with torch.inference_mode():
        found, layout = packed_of(model).body.hidden(batch, attention_by_row)
        expected = model.base_model(
            input_ids=torch.from_numpy(batch.input_ids),
            attention_mask=torch.from_numpy(batch.attention_mask),
            token_type_ids=torch.from_numpy(batch.token_type_ids),
        ).last_hidden_state
    assert layout.lengths == LENGTHS
    kept = expected[torch.from_numpy(batch.attention_mask.astype(bool))]
    torch.testing.assert_close(found, kept, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_body_alone_is_read_by_its_bare_names(tiny_checkpoints: Mapping[str, Path]) -> None:
    """As text encoders are saved."""
    model = model_of(tiny_checkpoints["rstar"])
    batch = batch_of(model, [9, 4])
    body = PackedBody(
        model.config.to_dict(),
        model.base_model.state_dict(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        prefix="",
    )
    with torch.inference_mode():
        found, _ = body.hidden(batch, attention_by_row)
        expected, _ = packed_of(model).body.hidden(batch, attention_by_row)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_int8_is_near_fp32_and_does_not_depend_on_the_batch(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """Each token has a separate scale; a scale for the batch would change with it."""
    model = model_of(tiny_checkpoints[name])
    batch = batch_of(model, LENGTHS)
    expected = plain(model, batch)
    engine = TorchEngine(tiny_checkpoints[name], device="cpu", precision="int8")
    together = engine.logits(batch)
    # Random weights of this size are a hard case: a trained model's logits are ten times nearer.
    assert 0 < np.abs(together - expected.numpy()).mean() < 0.2 * float(expected.std())
    types = batch.token_type_ids
    for row, length in enumerate(LENGTHS):
        own = np.s_[row : row + 1, :length]
        alone = Batch(
            batch.input_ids[own],
            batch.attention_mask[own],
            None if types is None else types[own],
        )
        np.testing.assert_allclose(engine.logits(alone)[0], together[row], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["albert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"]
)
def test_int8_of_architectures_without_a_packed_pass(
    tiny_cross_encoders: Mapping[str, Path], name: str
) -> None:
    """As plain fp32 products of rounded numbers; embeddings, pooler and head stay exact."""
    folder = tiny_cross_encoders[name]
    rng = np.random.default_rng(0)
    engine = TorchEngine(folder, device="cpu", precision="int8")
    assert not engine.packed
    ids = rng.integers(5, 60, (6, 12))
    found = engine.logits(Batch(ids, np.ones_like(ids), None))
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert engine.parameters == sum(weight.numel() for weight in model.parameters())
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(6, 12).long()}
    with torch.inference_mode():
        exact = model(**inputs).logits
        for place, part in model.base_model.named_modules():
            if isinstance(part, torch.nn.Linear) and re.search(r"\.\d+\.", f".{place}"):
                part.weight.copy_(rounded(part.weight))
                part.register_forward_pre_hook(lambda _, args: (in_steps(args[0]),))
        expected = model(**inputs).logits
    np.testing.assert_allclose(found, expected.numpy(), atol=0.02)
    assert np.abs(found - exact.numpy()).max() > 1e-4, "nothing was quantized"
    alone = engine.logits(Batch(ids[:1], np.ones_like(ids[:1]), None))
    np.testing.assert_allclose(alone[0], found[0], atol=1e-4)


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_int8_products_are_exact_on_a_processor_without_vnni(instructions: str) -> None:
    """There two products of 8 bits are summed in 16; the largest values must fit."""
    done = subprocess.run(
        [sys.executable, "-c", EXACT_PRODUCTS],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["200", "0.0"]


# A token in `activation_steps` equal steps, so that only products and weights are rounded.
EXACT_PRODUCTS = """
import torch
from rerank_plugins.scoring.linear import Int8Linear, activation_steps
steps = activation_steps()
generator = torch.Generator().manual_seed(0)
far = 0.0
shapes = (1, 64, 64), (7, 384, 384), (300, 384, 96), (64, 1536, 33), (5, 99, 7)
for tokens, inputs, outputs in shapes:
    weight = torch.randn(outputs, inputs, generator=generator)
    weight[::2] = weight[::2].abs()
    pairs = weight[:, : inputs // 2 * 2].unflatten(1, (-1, 2)).sum(2).abs().amax(1)
    scale = torch.maximum(weight.abs().amax(1) / 127, pairs / 162)[:, None]
    whole = (weight / scale).round().double()
    x = torch.randint(0, steps + 1, (tokens, inputs), generator=generator).double()
    x[:, 0], x[:, 1:20] = 0, steps
    found = Int8Linear((whole * scale.double()).float(), torch.zeros(outputs))(x.float())
    expected = x @ (whole * scale).T
    far = max(far, ((found - expected).abs() / expected.abs().amax()).max().item())
print(steps, round(far, 4))
"""


@pytest.mark.parametrize("steps", [127, 200, 255])
def test_int8_keeps_a_token_whose_values_have_one_sign(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """No error is beyond that of rounding to so many steps, far from 0 as well."""
    monkeypatch.setattr(linear, "activation_steps", lambda: steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(9, 64, generator=generator) + torch.tensor([0.0, 5, -7] * 3)[:, None]
    x[3], x[4] = 0, 2.5  # no range at all
    bias = torch.randn(32, generator=generator)
    found = Int8Linear(torch.eye(64)[:32], bias)(x)
    range_of = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    assert ((found - bias - x[:, :32]).abs() <= range_of / steps * 0.51 + 1e-5).all()


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """Each row in whole steps, 127 at most; where pairs must fit in 16 bits, two 162 together."""
    step = weight.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    if activation_steps() == 200:
        pairs = weight.unflatten(1, (-1, 2)).sum(2).abs().amax(-1, keepdim=True)
        step = torch.maximum(step, pairs / 162)
    return torch.round(weight / step) * step


def in_steps(values: torch.Tensor) -> torch.Tensor:
    """Each row in whole steps from its lowest to its highest value."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    step = (high - low).clamp(min=1e-12) / activation_steps()
    return torch.floor((values - low) / step + 0.5) * step + low


def test_other_architectures_take_the_plain_pass(tmp_path: Path) -> None:
    """Electra's head reads the first token too, but by a class that was not compared."""
    model = ElectraForSequenceClassification(ElectraConfig(**SMALL, embedding_size=16)).eval()
    model.save_pretrained(tmp_path)
    engine = TorchEngine(tmp_path, device="cpu", precision="fp32")
    batch = batch_of(model, [9, 4])
    assert not engine.packed
    np.testing.assert_allclose(engine.logits(batch), plain(model, batch).numpy(), atol=1e-5)


def test_shards_and_early_names_are_read(tmp_path: Path) -> None:
    """Early BERT checkpoints call a norm's weight gamma and its bias beta."""
    torch.manual_seed(0)
    config = BertConfig(**SMALL, max_position_embeddings=40)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    early = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: files[number % 2] for number, name in enumerate(early)}
    for file in files:
        save_file({name: early[name] for name in early if where[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    engine = TorchEngine(tmp_path, device="cpu", precision="fp32")
    batch = batch_of(model, [9, 4])
    assert engine.packed
    np.testing.assert_allclose(engine.logits(batch), plain(model, batch).numpy(), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_engine_packs_the_catalog_s_architectures(
    tiny_checkpoints: Mapping[str, Path], name: str, precision: Any
) -> None:
    """In both precisions."""
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
def test_a_kernel_that_fails_its_trial_is_named(
    tiny_checkpoints: Mapping[str, Path], kernel: Any, why: str
) -> None:
    """Wrong or missing, it costs speed and a line in the log, never a score."""
    model = model_of(tiny_checkpoints["bge"])
    packed, probe = packed_of(model), torch_engine._probe(model.config.to_dict())
    with torch.inference_mode():
        assert why in str(torch_engine._objection(packed, kernel, probe))
        assert torch_engine._objection(packed, attention_by_row, probe) is None
