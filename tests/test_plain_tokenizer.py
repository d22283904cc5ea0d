"""Checkpoints that transformers would only read are read without it, and alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from rerank_plugins.models.catalog import bundled_folder
from rerank_plugins.scoring import checkpoint
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.plain_tokenizer import read_plainly
from rerank_plugins.scoring.tokenizer_files import lowercased

TEXTS = ["من هو وزير المالية؟", "Où est l'œuvre ?", "Zażółć gęślą jaźń", "naïve  text\n[SEP] 1,5"]


@pytest.fixture(scope="module")
def generic(tiny_checkpoints: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose tokenizer is of transformers' generic class."""
    folder = tmp_path_factory.mktemp("generic")
    for file in tiny_checkpoints["rstar"].iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=64,
    ).save_pretrained(folder)
    return folder


def raw(folder: Path) -> dict[str, Any]:
    """config.json."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["bundled", "generic"])
def test_it_reads_what_transformers_reads(name: str, generic: Path) -> None:
    """Ids, special tokens, limits and labels."""
    folder = bundled_folder() if name == "bundled" else generic
    read = read_plainly(folder, raw(folder))
    assert read is not None
    config, found = read
    expected = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ours = found.backend_tokenizer.encode(text, "b")
        theirs = expected.backend_tokenizer.encode(text, "b")
        assert (ours.ids, ours.type_ids) == (theirs.ids, theirs.type_ids)
    for attribute in ("pad_token_id", "cls_token_id", "sep_token_id", "model_max_length"):
        assert getattr(found, attribute) == getattr(expected, attribute), attribute
    assert config.num_labels == AutoConfig.from_pretrained(folder).num_labels


def test_the_checkpoint_is_the_same_either_way(
    generic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is told of it, its tokenizer aside."""
    direct = read_checkpoint(generic)
    monkeypatch.setattr(checkpoint, "read_plainly", lambda *_: None)
    by_transformers = read_checkpoint(generic)
    for field in direct.__dataclass_fields__:
        if field != "tokenizer":
            assert getattr(direct, field) == getattr(by_transformers, field), field


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {}}),
        ("tokenizer_config.json", {"do_lower_case": True}),
        ("tokenizer_config.json", {"sep_token": {"content": "[SEP]"}}),
        ("tokenizer_config.json", {"eos_token": "[NEW]"}),
        ("config.json", {"model_type": "electra"}),
        ("config.json", {"auto_map": {}}),
        ("config.json", {"hidden_size": None}),
    ],
)
def test_what_it_does_not_know_is_left_to_transformers(
    generic: Path, tmp_path: Path, file: str, change: dict[str, Any]
) -> None:
    """Each could change ids, or the model."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((generic / name).read_bytes())
    assert read_plainly(tmp_path, raw(tmp_path)) is not None
    settings = json.loads((tmp_path / file).read_text(encoding="utf-8"))
    (tmp_path / file).write_text(json.dumps({**settings, **change}), encoding="utf-8")
    assert read_plainly(tmp_path, raw(tmp_path)) is None


def test_the_bundled_model_ranks_without_importing_transformers() -> None:
    """What a cold process waits for."""
    code = (
        "import sys\n"
        "from rerank_plugins import load_reranker\n"
        "ranking = load_reranker('bundled', engine='torch').rerank('a', ['b', 'c'])\n"
        "print(len(ranking), 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_files_of_equal_content_are_one_tokenizer(generic: Path, tmp_path: Path) -> None:
    """That of the bundled encoder takes 80 MiB; one that must lowercase is a copy."""
    shutil.copytree(generic, tmp_path / "copy")
    one, two = (read_checkpoint(folder) for folder in (generic, tmp_path / "copy"))
    assert one.pair_tokenizer is two.pair_tokenizer
    upper = one.pair_tokenizer.encode("A").ids
    lower = lowercased(one.pair_tokenizer)
    assert lower.encode("A").ids == lower.encode("a").ids != upper
    assert one.pair_tokenizer.encode("A").ids == upper


def test_what_a_tokenizer_states_of_truncation_and_padding_is_not_applied(
    generic: Path, tmp_path: Path
) -> None:
    """Rows are cut and padded by whoever makes them."""
    shutil.copytree(generic, tmp_path / "own")
    file = tmp_path / "own" / "tokenizer.json"
    stated = Tokenizer.from_file(str(file))
    stated.enable_truncation(4)
    stated.enable_padding(length=6)
    stated.save(str(file))
    found = read_checkpoint(tmp_path / "own").pair_tokenizer
    assert found.encode("a").ids == read_checkpoint(generic).pair_tokenizer.encode("a").ids
    assert len(found.encode("a b c d e f g")) > 6
