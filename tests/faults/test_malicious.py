"""Checkpoints, indexes and data files made by somebody who means harm.

What `test_storage_faults.py` has of forged indexes (names that leave the folder, links, sizes
that are lies) and `test_checkpoint.py` of checkpoints with code is not repeated here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_plugins import load_reranker
from rerank_plugins.errors import (
    IndexDamagedError,
    InvalidInputError,
    ModelError,
    StorageError,
    UnsupportedModelError,
)
from rerank_plugins.evaluation.data import read_pairs
from rerank_plugins.first_stage import BM25, Dense, _dense_segments, storage
from rerank_plugins.training.data import read_question_set

MEGABYTE = 1 << 20


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def model(tiny_checkpoints: Mapping[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that may be changed."""
    return Path(shutil.copytree(tiny_checkpoints["bge"], tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    """Other settings in a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))


def refused(folder: Path, **options: Any) -> str:
    """What the error says when the checkpoint is used."""
    with pytest.raises(ModelError) as raised:
        load_reranker(folder, device="cpu", engine="torch", **options).rerank("q", ["a", "b"])
    return str(raised.value)


# Code.


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("allowed", [False, True])
def test_a_pickle_that_would_run_a_command_does_not(
    model: Path, tmp_path: Path, weights: str, allowed: bool
) -> None:
    """As old weights, or under the name of safe ones; not even where pickles are allowed."""
    import torch

    mark = tmp_path / "ran"
    (model / "model.safetensors").unlink()
    torch.save({"classifier.out_proj.weight": Bomb(mark)}, model / weights)
    refused(model, allow_pickle_weights=allowed)
    assert not mark.exists()
    # The bomb is one: whoever unpickles it without care has the folder.
    torch.load((model / weights).rename(model / "old.bin"), weights_only=False)
    assert mark.is_dir()


def test_a_pickle_beside_safe_weights_is_not_opened(model: Path, tmp_path: Path) -> None:
    """Safetensors serve, whatever else lies there."""
    import torch

    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scaler.pt"):
        torch.save(Bomb(tmp_path / "ran"), model / name)
    load_reranker(model, device="cpu").rerank("q", ["a", "b"])
    assert not (tmp_path / "ran").exists()


CODE = "from pathlib import Path\nPath({!r}).mkdir()\n"


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        (
            "config.json",
            {"AutoConfig": "evil.Own", "AutoModelForSequenceClassification": "evil.Own"},
        ),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Own", "evil.Own"]}),
        ("config.json", {"AutoConfig": "someone/else--evil.Own"}),
    ],
    ids=["model", "tokenizer", "of another repository"],
)
def test_code_in_a_checkpoint_never_runs_unasked(
    model: Path, tmp_path: Path, file: str, entry: dict[str, Any]
) -> None:
    """Where the architecture is a known one, its own code is passed over or refused."""
    edit(model / file, auto_map=entry)
    (model / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    with suppress(ModelError):
        load_reranker(model, device="cpu").rerank("q", ["a", "b"])
    assert not (tmp_path / "ran").exists()
    assert not any(
        name.startswith("transformers_modules") and "evil" in name for name in sys.modules
    )


@pytest.mark.parametrize("value", ["no", 1, "false", [0]])
@pytest.mark.parametrize("option", ["trust_remote_code", "allow_pickle_weights"])
def test_permission_is_given_by_true_alone(model: Path, option: str, value: Any) -> None:
    """A setting read from a file as "no" is a true string."""
    with pytest.raises(InvalidInputError, match=f"{option} must be True or False"):
        load_reranker(model, **{option: value})


# Paths.


@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", "/etc/passwd", "a/../../b", "owner/../x", "a\0b", "~root/x", "a/b\n"],
)
def test_names_that_leave_the_cache_are_no_models(name: str, tmp_path: Path) -> None:
    """Nothing is read or made outside."""
    with pytest.raises(ModelError):
        load_reranker(name, cache_folder=tmp_path, local_files_only=True).describe()
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_shards_that_leads_elsewhere_is_refused(model: Path, tmp_path: Path) -> None:
    """A weight map may name files; those of the folder only serve."""
    (model / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    shard = "../elsewhere.safetensors"
    names = {"classifier.out_proj.weight": shard, "classifier.out_proj.bias": shard}
    content = json.dumps({"metadata": {}, "weight_map": names})
    (model / "model.safetensors.index.json").write_text(content)
    assert "must name files beside it alone" in refused(model)


# Sizes that are lies, and bombs. In a process with little memory: what unpacks them is killed.


def in_little_memory(code: str, *arguments: object, limit: int = 6 << 30) -> str:
    """What the code prints in a process that may not have more address space than that."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{code}",
         *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    return told.stdout


# What is large is imported once; each checkpoint is then loaded in a fork.
LOAD = """
import os, resource, traceback
from rerank_plugins import load_reranker
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring import checkpoint, torch_engine
import torch, transformers
from transformers import AutoModelForSequenceClassification, XLMRobertaForSequenceClassification

def load(folder):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_reranker(folder, device="cpu", engine="torch").rerank("q", ["a", "b"])
    except UnsupportedModelError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(os.path.basename(folder), grown, "kB:", str(error).replace("\\n", " "), flush=True)

for folder in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            load(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(os.path.basename(folder), "failed with status", status, flush=True)
"""


def absurd_header(model: Path) -> None:
    """A safetensors header of a petabyte."""
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 50) + content[8:])


def absurd_tensor(model: Path) -> None:
    """A tensor that the header calls a terabyte."""
    header = {"x": {"dtype": "F32", "shape": [1 << 19, 1 << 19], "data_offsets": [0, 1 << 40]}}
    raw = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 64)


def huge(name: str) -> Callable[[Path], None]:
    """A file of a terabyte, all holes."""

    def damage(model: Path) -> None:
        with (model / name).open("ab") as file:
            file.truncate(1 << 40)

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    """A config of a model far larger than its weights."""
    return lambda model: edit(model / "config.json", **changes)


BOMBS = {
    "safetensors header": absurd_header,
    "safetensors tensor": absurd_tensor,
    "tokenizer.json of a terabyte": huge("tokenizer.json"),
    "config.json of a terabyte": huge("config.json"),
    "a billion words": config(vocab_size=10**9),
    "a billion layers": config(num_hidden_layers=10**9),
    "a billion wide": config(hidden_size=10**9, num_attention_heads=1),
    "a billion inside": config(intermediate_size=10**9),
    "a billion types": config(type_vocab_size=10**9),
}


@pytest.fixture(scope="module")
def said_of_bombs(
    tiny_checkpoints: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What loading each of them says, by name."""
    root = tmp_path_factory.mktemp("bombs")
    for number, damage in enumerate(BOMBS.values()):
        damage(Path(shutil.copytree(tiny_checkpoints["bge"], root / str(number))))
    lines = in_little_memory(LOAD, *(root / str(number) for number in range(len(BOMBS))))
    said = dict(line.split(maxsplit=1) for line in lines.splitlines())
    return {name: said.get(str(number), "") for number, name in enumerate(BOMBS)}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_checkpoint_that_says_it_is_huge_is_refused_in_little_memory(
    said_of_bombs: Mapping[str, str], bomb: str
) -> None:
    """Before anything of that size is made."""
    said = said_of_bombs[bomb]
    assert said, "it loaded"
    assert re.match(r"\d+ kB: ", said), said
    assert int(said.split()[0]) < 500_000, said


def test_deep_json_in_a_checkpoint_is_refused(model: Path) -> None:
    """Nested a hundred thousand times."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = (model / name).read_bytes()
        (model / name).write_bytes(b"[" * 100_000)
        refused(model)
        (model / name).write_bytes(content)


def forged(path: Path, name: str, content: bytes) -> None:
    """Another content of a file of an index, with checksums that fit."""
    file = next(path.glob(f"data-*/{name}"))
    file.write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_bytes())
    del manifest["sha256"]
    told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"][name] = told
    (path / "manifest.json").write_bytes(storage.rendered(manifest))


def npy(shape: str, descr: str = "'|b1'") -> bytes:
    """A .npy header, and nothing behind it."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    raw = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw.encode()


@pytest.mark.parametrize(
    "content",
    [
        npy("(1099511627776,)"),
        npy("(-1,)"),
        npy("(2, 3)"),
        npy("(__import__('os').mkdir('ran'),)"),
        npy("(5,)", "'|O'"),
        npy("(5,)", "[('f', '|O')]"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 32) - 1),
        b"\x80\x04N.",
    ],
    ids=["terabyte", "negative", "two dimensions", "code", "objects", "record of objects",
         "header of 4 GB", "a pickle"],
)  # fmt: skip
def test_an_array_that_is_a_lie_is_refused(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of a terabyte, Python in the header, pickled objects: nothing is made or run."""
    monkeypatch.chdir(tmp_path)
    BM25(["a museum", "nine"]).save(tmp_path / "index")
    forged(tmp_path / "index", "live.npy", content)
    with pytest.raises(IndexDamagedError):
        BM25.load(tmp_path / "index")
    assert not (tmp_path / "ran").exists()


def test_a_faiss_file_that_claims_more_than_it_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A length in it is raised to a terabyte of vectors."""
    monkeypatch.setattr(_dense_segments, "GRAPH_FROM", 0)

    def embed(texts: list[str]) -> Any:
        return np.eye(4)[[len(text) % 4 for text in texts]]

    Dense(["a", "bb"], embed=embed, index="hnsw").save(tmp_path / "index")
    content = next(tmp_path.glob("index/data-*/vectors0.faiss")).read_bytes()
    count = struct.pack("<q", 2)
    found = [at for at in range(len(content) - 8) if content[at : at + 8] == count]
    assert found
    for at in found:
        bad = content[:at] + struct.pack("<q", 1 << 38) + content[at + 8 :]
        forged(tmp_path / "index", "vectors0.faiss", bad)
        with pytest.raises(StorageError):
            Dense.load(tmp_path / "index", embed=embed)


def test_a_link_beside_the_files_of_an_index_is_never_followed(tmp_path: Path) -> None:
    """When a save sweeps old folders away, what a link points at stays."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    BM25(["a museum"]).save(tmp_path / "index")
    (tmp_path / "index" / f"data-{'0' * 32}").symlink_to(precious)
    BM25(["nine"]).save(tmp_path / "index")
    assert (precious / "thesis.txt").read_text() == "mine"
    assert len(BM25.load(tmp_path / "index")) == 1


# Data files.


def packed_zeros(path: Path, megabytes: int, *, lines: bool) -> None:
    """A gzip file of so many megabytes of blanks, which are a thousandth of that."""
    block = (b" " * (MEGABYTE - 1) + b"\n") if lines else b" " * MEGABYTE
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(megabytes):
            file.write(block)


def test_a_packed_line_without_end_is_refused(tmp_path: Path) -> None:
    """It is read no further than a line may be long."""
    packed_zeros(tmp_path / "pairs.jsonl.gz", 100, lines=False)
    with pytest.raises(InvalidInputError, match="a line must not exceed"):
        read_pairs(tmp_path / "pairs.jsonl.gz")


def test_a_packed_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how much more comes out than went in."""
    from rerank_plugins import _lines

    monkeypatch.setattr(_lines, "_UNPACKED_ANYWAY", MEGABYTE)
    packed_zeros(tmp_path / "corpus.jsonl.gz", 8, lines=True)
    (tmp_path / "queries.jsonl").write_text('{"id": "q", "text": "q"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(InvalidInputError, match=r"times the file.s size"):
        read_question_set(tmp_path)


def test_refusals_are_unsupported_models_that_name_the_folder(model: Path) -> None:
    """So that a server's log says which checkpoint it was."""
    absurd_header(model)
    with pytest.raises(UnsupportedModelError, match="model"):
        load_reranker(model, device="cpu").describe()
