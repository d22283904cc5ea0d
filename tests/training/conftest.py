"""A checkpoint small enough to train within seconds, made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the extra train is not installed")
pytest.importorskip("accelerate", reason="the extra train is not installed")

import torch
from toys import CUE, FILLER, TOPICS


def write_base(folder: Path, **settings: object) -> Path:
    """A random two-layer BERT with a WordPiece tokenizer over the toy's words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789?")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOPICS, *FILLER, CUE, "what"]
    words += letters + [f"##{letter}" for letter in letters]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        **{"num_labels": 1, "intermediate_size": 64, **settings},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with one label."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small models are fastest, and the same on every machine, with one thread."""
    torch.set_num_threads(1)
