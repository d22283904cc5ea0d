"""Which engine computes the text encoder, and that OpenVINO's vectors are torch's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertModel

from rerank_plugins import load_reranker
from rerank_plugins.bundled import FOLDER, BundledEncoder
from rerank_plugins.errors import (
    InvalidInputError,
    MissingDependencyError,
    UnsupportedModelError,
)
from rerank_plugins.samples import load_passages
from rerank_plugins.scoring import engines

Tiny = tuple[Path, BertModel]
shipped = pytest.mark.skipif(
    not (FOLDER / "encoder" / "config.json").is_file(), reason="the encoder that ships is not here"
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One where OpenVINO is installed and was measured, with no bf16."""
    monkeypatch.setattr(engines, "_MEASURED_MACHINES", {engines.platform.machine()})
    monkeypatch.setattr(engines, "openvino_installed", lambda: True)
    monkeypatch.setattr(engines, "native_bf16", lambda: False)
    return monkeypatch


def chosen(tiny: Tiny, **options: Any) -> tuple[str, str]:
    """Engine and precision, which nothing is loaded for."""
    told = BundledEncoder(tiny[0], **options).describe()
    assert told["chosen"]
    return told["engine"], told["precision"]


def test_auto_takes_openvino_where_it_was_measured(tiny: Tiny, machine: pytest.MonkeyPatch) -> None:
    """By the rule for cross-encoders; int8 stays with torch."""
    assert chosen(tiny) == ("openvino", "fp32")
    assert chosen(tiny, engine="torch") == ("torch", "fp32")
    assert chosen(tiny, precision="int8") == ("torch", "int8")
    assert chosen(tiny, precision="bf16") == ("torch", "bf16")
    machine.setattr(engines, "native_bf16", lambda: True)
    assert chosen(tiny) == chosen(tiny, precision="bf16") == ("openvino", "bf16")
    assert chosen(tiny, precision="fp32") == ("openvino", "fp32")
    machine.setattr(engines, "_MEASURED_MACHINES", set())
    assert chosen(tiny) == ("torch", "bf16")


def test_without_openvino_it_is_torch(tiny: Tiny, machine: pytest.MonkeyPatch) -> None:
    """Who asks for OpenVINO is told what to install, at once."""
    machine.setattr(engines, "openvino_installed", lambda: False)
    assert chosen(tiny) == ("torch", "fp32")
    with pytest.raises(MissingDependencyError, match=r"rerank-plugins\[openvino\]"):
        BundledEncoder(tiny[0], engine="openvino")


def test_what_goes_together_with_no_engine_is_refused(
    tiny: Tiny, machine: pytest.MonkeyPatch
) -> None:
    """Each with the way out."""
    for options, message in (
        ({"engine": "sentence-transformers"}, "'torch', 'openvino'"),
        ({"engine": "openvino", "precision": "int8"}, "engine='torch'"),
        ({"precision": "fp16"}, "bf16"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            BundledEncoder(tiny[0], **options)
    with pytest.raises(InvalidInputError, match="AVX512-BF16"):
        BundledEncoder(tiny[0], engine="openvino", precision="bf16").encode_query(["river"])


def test_a_model_that_openvino_has_no_graph_for_runs_on_torch(
    tiny: Tiny, machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unless OpenVINO is asked for."""
    for file in tiny[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    encoder = BundledEncoder(tmp_path)
    assert encoder.describe()["chosen"] == "its hidden_act is 'relu'"
    assert np.isfinite(encoder.encode_query(["river"])).all()
    with pytest.raises(UnsupportedModelError, match="engine='torch'"):
        BundledEncoder(tmp_path, engine="openvino").encode_query(["river"])


def test_openvino_reads_other_weights_than_blocks(tiny: Tiny, tmp_path: Path) -> None:
    """A folder with ``model.safetensors`` in half precision."""
    tiny[1].half().save_pretrained(tmp_path)
    tiny[1].float()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny[0] / name).read_bytes())
    texts = ["river", "the town north of the river"]
    found = BundledEncoder(tmp_path, engine="openvino").encode_document(texts)
    wanted = BundledEncoder(tiny[0], engine="torch").encode_document(texts)
    np.testing.assert_allclose((found * wanted).sum(1), 1, atol=1e-3)


def test_openvino_computes_in_as_many_threads_as_the_user_says(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not read ``OMP_NUM_THREADS`` itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    encoder = BundledEncoder(tiny[0], engine="openvino")
    encoder.encode_query(["river"])
    compiled = encoder._load()._body._compiled._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


FORKS = """
import os, signal, sys, threading
from rerank_plugins.bundled import BundledEncoder
encoder = BundledEncoder(sys.argv[1], engine="openvino")
texts = ["river of the town " * many for many in (1, 3, 7)]
wanted = encoder.encode_document(texts)
stop = threading.Event()
def busy():
    while not stop.is_set():
        encoder.encode_document(texts * 8)
thread = threading.Thread(target=busy)
thread.start()
codes = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        os._exit(int(abs(encoder.encode_document(texts) - wanted).max() > 1e-4))
    codes.append(os.waitpid(child, 0)[1])
stop.set()
thread.join()
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_compiles_its_own(tiny: Tiny) -> None:
    """The parent's has threads that the child lacks, and computes at that moment."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(tiny[0])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[0] == "[0, 0, 0, 0]"


def test_nothing_is_kept_on_the_disk_and_torch_is_not_imported(tmp_path: Path) -> None:
    """So a read-only home does not matter, and a new process answers in half of the time."""
    code = """
import sys
from rerank_plugins.bundled import BundledEncoder
print(BundledEncoder(engine="openvino").encode_query(["Who?"]).shape, "torch" in sys.modules)
"""
    if not Path("/proc/cpuinfo").is_file():
        pytest.skip("only Linux tells of the processor without torch")
    surroundings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "(1, 384) False"
    assert not list(tmp_path.iterdir())


def test_a_script_that_keeps_a_retriever_and_a_store_ends_without_a_word() -> None:
    """At the interpreter's end a module's names are gone before what it holds."""
    pytest.importorskip("langchain_core")
    code = """
from langchain_core.documents import Document
from rerank_plugins.langchain import (
    BM25Retriever, BundledEmbeddings, FaissVectorStore, RerankingRetriever
)
documents = [Document(page_content="a museum"), Document(page_content="a bus")]
retriever = RerankingRetriever(BM25Retriever.from_documents(documents), k=1)
retriever.invoke("museum")
store = FaissVectorStore.from_documents(documents, BundledEmbeddings())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@shipped
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvinos_vectors_are_torchs(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of passages in four languages, short and of several windows."""
    monkeypatch.setattr(engines, "native_bf16", lambda: True)
    passages = [passage.text for passage in load_passages()]
    texts = [*passages[:: len(passages) // 24], "", " ".join(passages[:12])]
    found, owners = BundledEncoder(engine="openvino", precision=precision).embed_windows(texts)
    wanted, same = BundledEncoder(engine="torch", precision="fp32").embed_windows(texts)
    np.testing.assert_array_equal(owners, same)
    assert len(owners) > len(texts)
    near = 0.99999 if precision == "fp32" else 0.999
    assert (found * wanted).sum(1).min() > near
    alike = np.abs(found @ found.T - wanted @ wanted.T).max()
    assert alike < (1e-4 if precision == "fp32" else 5e-3)


@shipped
def test_a_reranker_by_vectors_tells_its_engine() -> None:
    """And takes the settings of the encoder."""
    reranker = load_reranker("bundled-encoder", engine="openvino", precision="fp32")
    told = reranker.describe()
    assert (told["engine"], told["device"], told["precision"]) == ("openvino", "cpu", "fp32")
    [first, *_] = reranker.rerank("Who bakes bread?", ["A tram.", "The baker makes bread."])
    assert first.candidate.key == 1
    assert load_reranker("bundled-encoder", precision="int8").describe()["engine"] == "torch"
    with pytest.raises(InvalidInputError, match="engine"):
        load_reranker("bundled-encoder", engine="sentence-transformers")
