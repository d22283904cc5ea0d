"""Writes a tiny encoder in the layout that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from rerank_plugins.scoring.blocks import BLOCK, FILE

WORDS = ("query:", "passage:", "river", "town", "north", "of", "the", "tram", "متحف", "يفتح")
CONFIG = {
    "model_type": "bert", "vocab_size": 4 + len(WORDS), "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 40,
    "type_vocab_size": 2, "pad_token_id": 1, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """`<s> text </s>`, a token per word."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {word: 4 + place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def four_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nibbles, scales, and the weights that they stand for."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    scale = (np.abs(blocks).max(axis=2) / 7).astype(np.float16)
    wide = np.maximum(scale.astype(np.float32), 1e-9)[:, :, None]
    integers = np.clip(np.rint(blocks / wide), -8, 7)
    nibbles = (integers + 8).astype(np.uint8)
    packed = nibbles[:, :, : BLOCK // 2] | nibbles[:, :, BLOCK // 2 :] << 4
    return packed, scale, (integers * wide).reshape(weights.shape)


def write_encoder(folder: Path) -> BertModel:
    """Writes the folder; the model has the very weights that the folder's blocks stand for."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False).eval()
    state = model.state_dict()
    tensors = {}
    for name, tensor in state.items():
        values = tensor.numpy()
        if values.ndim == 2 and "word" in name + "query":
            packed, scale, exact = four_bits(values)
            tensors |= {f"{name}.q4": packed, f"{name}.scale": scale}
            tensor.copy_(torch.from_numpy(exact))
        else:
            tensors[name] = values
    save_file(tensors, folder / FILE)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    write_tokenizer(folder)
    return model
