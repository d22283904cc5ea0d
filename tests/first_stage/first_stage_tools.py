"""Embeddings for tests: related texts get near vectors, and a tiny encoder on disk."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.first_stage import analyzer_for

DIMENSION = 48


def embed_words(texts: list[str]) -> NDArray[np.float32]:
    """Sums a fixed random vector for each word: texts that share words are near."""
    terms = analyzer_for("neutral")
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, text in enumerate(texts):
        for term in terms(text):
            seed = zlib.crc32(term.encode("utf-8"))
            vectors[row] += np.random.default_rng(seed).normal(size=DIMENSION)
    return vectors


WORDS = ("[UNK]", "cat", "dog", "sun", "قطة", "chat")
TABLE = np.asarray(
    [[9, 9, 9], [3, 0, 0], [0, 4, 0], [0, 0, 5], [2, 2, 0], [1, 0, 1]], dtype=np.float16
)


def write_encoder(folder: Path) -> Path:
    """A word-level encoder with the six words above; special tokens would spoil its means."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="sun $A", special_tokens=[("sun", 3)])
    tokenizer.enable_truncation(2)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embedding.weight": TABLE}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"dimension": 3}), encoding="utf-8")
    return folder
