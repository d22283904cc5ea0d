"""Stage 5: the files that ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from recipes.bundled import e5
from rerank_plugins.scoring import blocks

WORDS = "embeddings.word_embeddings.weight"
# Of cosines as scores, chosen on the dev parts: scale and middle by Platt's method over BM25's
# first twenty, BM25's share by nDCG@10.
VECTORS = {"scale": 64.0, "middle": 0.859, "first_stage_weight": 0.3}
SETTINGS = {
    "window_tokens": 128,
    "long_passages": "best",
    "first_stage_weight": 0.4,
    "max_length": 256,
}


def reranker(
    model: BertForSequenceClassification,
    tokenizer: Tokenizer,
    out: Path,
    settings: dict[str, object],
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the cross-encoder: config, weights, tokenizer.

    Args:
        model: as trained.
        tokenizer: of the recipe.
        out: the folder.
        settings: the profile's defaults, read by the package from `config.json`.
        scale: logits are multiplied by it, so that sigmoid is a probability.
        shift: and this is added.
        dtype: of the file.
    """
    head = model.classifier
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(shift)
    model.config.id2label, model.config.label2id = {0: "relevant"}, {"relevant": 0}
    model.config.problem_type = None
    model.config.rerank_plugins = settings
    model.to(dtype).save_pretrained(out)
    model.float()
    clean = Tokenizer.from_str(tokenizer.to_str())
    clean.no_truncation()
    clean.no_padding()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=clean,
        unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>",
        model_max_length=int(model.config.max_position_embeddings),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.save_pretrained(out)
    _readable(out)


def cross_encoder(
    model: BertForSequenceClassification, tokenizer: Tokenizer, out: Path,
    settings: dict[str, object], *, scale: float = 1.0, shift: float = 0.0,
) -> None:  # fmt: skip
    """Write the cross-encoder in 8-bit blocks; its word rows are those of the sibling `encoder`.

    Args:
        model: as trained, with frozen word rows.
        tokenizer: of the encoder, which may have more pieces than the model was trained with.
        out: the folder, beside `encoder`.
        settings: the profile's defaults, read by the package from `config.json`.
        scale: logits are multiplied by it, so that sigmoid is a probability.
        shift: and this is added.
    """
    reranker(model, tokenizer, out, settings, scale=scale, shift=shift, dtype=torch.float32)
    (out / "model.safetensors").unlink()
    words = f"bert.{WORDS}"
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if name == words:
            continue
        if values.ndim == 2 and values.shape[1] % blocks.BLOCK == 0 and len(values) > 1:
            tensors[f"{name}.q8"], tensors[f"{name}.scale"] = blocks.to_8_bits(values)
        else:
            tensors[name] = values
    shared = {"shared": json.dumps({words: ["encoder", WORDS]})}
    save_numpy(tensors, out / blocks.FILE, metadata=shared)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = tokenizer.get_vocab_size()
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    _readable(out)


def text_encoder(work: Path, out: Path) -> None:
    """Write e5 with the pieces kept: its own 4-bit blocks, so that nothing is lost."""
    out.mkdir(parents=True, exist_ok=True)
    kept = json.loads((work / "pieces.json").read_text(encoding="utf-8"))
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, values in e5.raw(e5.fetch(work)).items():
        rows = values[kept] if name == WORDS else values
        if rows.dtype == np.uint8:
            scale = np.ascontiguousarray(rows[:, :, :2]).view(np.float16)[:, :, 0]
            tensors[f"{name}.scale"] = np.ascontiguousarray(scale)
            tensors[f"{name}.q4"] = np.ascontiguousarray(rows[:, :, 2:])
        else:
            tensors[name] = np.ascontiguousarray(rows)
    save_numpy(tensors, out / blocks.FILE)
    config = e5.load(e5.fetch(work))[0].config
    stated = {
        name: getattr(config, name)
        for name in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "hidden_act",
        )
    }  # fmt: skip
    stated["rerank_plugins"] = VECTORS
    stated = {"model_type": "bert", "vocab_size": len(kept), "pad_token_id": 1} | stated
    (out / "config.json").write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    Tokenizer.from_file(str(work / "tokenizer.json")).save(
        str(out / "tokenizer.json"), pretty=False
    )
    _readable(out)


def static_encoder(table: NDArray[np.float32], tokenizer: Tokenizer, out: Path) -> None:
    """Write the static encoder: a table and its tokenizer, as sentence-transformers keeps them."""
    out.mkdir(parents=True, exist_ok=True)
    clean = Tokenizer.from_str(tokenizer.to_str())
    clean.no_truncation()
    clean.no_padding()
    clean.save(str(out / "tokenizer.json"))
    weights = {"embedding.weight": torch.from_numpy(table).half().contiguous()}
    save_file(weights, str(out / "model.safetensors"))
    rows, size = table.shape
    config = {
        "model_type": "static", "vocab_size": rows, "embedding_dim": size, "pooling": "mean",
        "normalize": True, "dtype": "float16",
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    module = [{"idx": 0, "name": "0", "path": "", "type": STATIC}]
    (out / "modules.json").write_text(json.dumps(module, indent=2) + "\n", encoding="utf-8")
    _readable(out)


def _readable(out: Path) -> None:
    """Safetensors writes files that only their owner can read; a wheel carries that on."""
    for file in out.iterdir():
        file.chmod(0o644)


STATIC = "sentence_transformers.models.StaticEmbedding"
