"""Builds tiny checkpoints, files and all, of the architectures that the catalog names.

The tokenizers are the real classes: SentencePiece models trained on sample texts and read by
transformers' own converters, a cased WordPiece vocabulary. The weights are random, seeded,
and drawn wide so that scores differ from pair to pair.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from filelock import FileLock
from texts import training_texts
from tokenizers import BertWordPieceTokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    CamembertConfig,
    CamembertForSequenceClassification,
    CamembertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaTokenizer,
)

# The catalog's names and the tiny checkpoint that stands in for each.
STAND_INS = {
    "BAAI/bge-reranker-large": "bge",
    "Omartificial-Intelligence-Space/ARA-Reranker-V1": "ara",
    "jaspercatapang/R-star": "rstar",
    "antoinelouis/crossencoder-camembert-L2-mmarcoFR": "camembert",
    "sdadas/polish-reranker-bge-v2": "polish",
}
ARCHITECTURES = tuple(STAND_INS.values())

_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,
}


class TinyCheckpoints(Mapping[str, Path]):
    """Folders of tiny checkpoints by name; each is built when it is first asked for.

    ``bge``, ``ara``, ``rstar``, ``camembert``, ``polish``: one for each model of the
    catalog, with its architecture, tokenizer class, token types and position count.

    Others, each a separate trap: ``two_labels`` and ``two_labels_reversed`` (the relevant
    class second, first), ``three_labels``, ``no_head`` (a base model), ``identity`` (its
    authors put no activation over the logit), ``fp16`` (``bge``, stored in half precision),
    ``no_limit`` (``bge``, whose tokenizer states no length), ``pickle_only`` (``bge`` with its
    weights in pytorch_model.bin), ``sentencepiece_only`` (``bge`` without tokenizer.json),
    ``vocabulary_only`` (``rstar`` with vocab.txt in its place).
    """

    names = (
        *ARCHITECTURES,
        "two_labels",
        "two_labels_reversed",
        "three_labels",
        "no_head",
        "identity",
        "fp16",
        "no_limit",
        "pickle_only",
        "sentencepiece_only",
        "vocabulary_only",
    )

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getitem__(self, name: str) -> Path:
        if name not in self.names:
            raise KeyError(name)
        folder = self._root / name
        if folder.is_dir():  # whole: it was renamed
            return folder
        # Processes that share the root build each checkpoint once, and never meet half of one.
        with FileLock(self._root / f"{name}.lock"):
            if not folder.is_dir():
                unfinished = self._root / f"{name}.unfinished"
                getattr(self, f"_{name}")(unfinished)
                unfinished.rename(folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    # The five of the catalog.

    def _bge(self, folder: Path) -> None:
        model = _xlm_roberta(self._xlm_roberta_tokenizer, positions=514, seed=1)
        _save(folder, model, self._xlm_roberta_tokenizer)

    def _ara(self, folder: Path) -> None:
        model = _xlm_roberta(self._xlm_roberta_tokenizer, positions=514, seed=2)
        _save(folder, model, self._xlm_roberta_tokenizer)
        # As sentence-transformers 4 and later save their cross-encoders.
        _edit(
            folder / "config.json",
            sentence_transformers={
                "activation_fn": "torch.nn.modules.activation.Sigmoid",
                "version": "4.0.1",
            },
        )

    def _rstar(self, folder: Path) -> None:
        _save(folder, _bert(self._bert_tokenizer, labels=1, seed=3), self._bert_tokenizer)

    def _camembert(self, folder: Path) -> None:
        tokenizer = self._camembert_tokenizer
        torch.manual_seed(4)
        config = CamembertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=514,
            type_vocab_size=1,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **_SHAPE,
        )
        _save(folder, CamembertForSequenceClassification(config), tokenizer)

    def _polish(self, folder: Path) -> None:
        tokenizer = self._xlm_roberta_tokenizer
        _save(folder, _xlm_roberta(tokenizer, positions=8194, seed=5), tokenizer)
        _edit(folder / "tokenizer_config.json", model_max_length=8192)

    # The traps.

    def _two_labels(self, folder: Path) -> None:
        _save(folder, _bert(self._bert_tokenizer, labels=2, seed=6), self._bert_tokenizer)

    def _two_labels_reversed(self, folder: Path) -> None:
        shutil.copytree(self["two_labels"], folder)
        _edit(
            folder / "config.json",
            id2label={"0": "relevant", "1": "irrelevant"},
            label2id={"relevant": 0, "irrelevant": 1},
        )

    def _three_labels(self, folder: Path) -> None:
        _save(folder, _bert(self._bert_tokenizer, labels=3, seed=7), self._bert_tokenizer)

    def _no_head(self, folder: Path) -> None:
        torch.manual_seed(8)
        _save(folder, BertModel(_bert_config(self._bert_tokenizer, 1)), self._bert_tokenizer)

    def _identity(self, folder: Path) -> None:
        shutil.copytree(self["rstar"], folder)
        # As sentence-transformers 2 and 3 saved it.
        _edit(
            folder / "config.json",
            sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
        )

    def _fp16(self, folder: Path) -> None:
        model = _xlm_roberta(self._xlm_roberta_tokenizer, positions=514, seed=1)
        _save(folder, model.half(), self._xlm_roberta_tokenizer)

    def _no_limit(self, folder: Path) -> None:
        shutil.copytree(self["bge"], folder)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        del settings["model_max_length"]
        file.write_text(json.dumps(settings), encoding="utf-8")

    def _pickle_only(self, folder: Path) -> None:
        model = XLMRobertaForSequenceClassification.from_pretrained(self["bge"])
        shutil.copytree(self["bge"], folder)
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")

    def _sentencepiece_only(self, folder: Path) -> None:
        shutil.copytree(self["bge"], folder)
        (folder / "tokenizer.json").unlink()
        shutil.copy(self._sentencepiece, folder / "sentencepiece.bpe.model")

    def _vocabulary_only(self, folder: Path) -> None:
        shutil.copytree(self["rstar"], folder)
        (folder / "tokenizer.json").unlink()
        shutil.copy(self._vocabulary, folder / "vocab.txt")

    # Tokenizers.

    @property
    def _sentencepiece(self) -> Path:
        """A SentencePiece Unigram model, with the normalization and unknowns of XLM-R's."""
        file = self._root / "tokenizers" / "sentencepiece.bpe.model"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(training_texts()),
                model_prefix=str(file.with_suffix("")),
                vocab_size=1200,
                hard_vocab_limit=False,
                model_type="unigram",
                normalization_rule_name="nmt_nfkc",
                character_coverage=0.9995,
                num_threads=1,
                minloglevel=2,
            )
        return file

    @property
    def _xlm_roberta_tokenizer(self) -> PreTrainedTokenizerBase:
        folder = self._sentencepiece.parent / "xlm-roberta"
        if not folder.is_dir():
            folder.mkdir()
            shutil.copy(self._sentencepiece, folder / "sentencepiece.bpe.model")
            tokenizer = XLMRobertaTokenizer.from_pretrained(folder, model_max_length=512)
            tokenizer.save_pretrained(folder)
        return XLMRobertaTokenizer.from_pretrained(folder)

    @property
    def _camembert_tokenizer(self) -> PreTrainedTokenizerBase:
        folder = self._sentencepiece.parent / "camembert"
        if not folder.is_dir():
            folder.mkdir()
            shutil.copy(self._sentencepiece, folder / "sentencepiece.bpe.model")
            tokenizer = CamembertTokenizer.from_pretrained(folder, model_max_length=512)
            tokenizer.save_pretrained(folder)
        return CamembertTokenizer.from_pretrained(folder)

    @property
    def _vocabulary(self) -> Path:
        """A cased WordPiece vocabulary."""
        file = self._root / "tokenizers" / "vocab.txt"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            trained = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
            trained.train_from_iterator(
                training_texts(), vocab_size=1200, min_frequency=1, show_progress=False
            )
            trained.save_model(str(file.parent))
        return file

    @property
    def _bert_tokenizer(self) -> PreTrainedTokenizerBase:
        return BertTokenizer(
            vocab=str(self._vocabulary),
            do_lower_case=False,
            strip_accents=False,
            model_max_length=512,
        )


def _xlm_roberta(
    tokenizer: PreTrainedTokenizerBase, *, positions: int, seed: int
) -> XLMRobertaForSequenceClassification:
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_SHAPE,
    )
    return XLMRobertaForSequenceClassification(config)


def _bert_config(tokenizer: PreTrainedTokenizerBase, labels: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        type_vocab_size=2,
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id,
        **_SHAPE,
    )


def _bert(
    tokenizer: PreTrainedTokenizerBase, *, labels: int, seed: int
) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(_bert_config(tokenizer, labels))


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _edit(file: Path, **changes: Any) -> None:
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, **changes}), encoding="utf-8")
