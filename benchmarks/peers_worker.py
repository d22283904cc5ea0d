"""A peer in a separate environment; started by `peers.py`, needs nothing of this library.

    python peers_worker.py PEER CHECKPOINT

Says ``{"versions": ...}`` once the model is loaded. Then, for each JSON object on standard
input, with the file of a query and its passages and the clock to read, one line: seconds taken,
scores in the order of the passages, their scale, and megabytes in memory. Any failure says
``{"error": ...}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Score = Callable[[str, "list[str]"], "Sequence[float]"]


def flag(folder: Path) -> Score:
    """FlagEmbedding's FlagReranker; fp32, since fp16 is for GPUs."""
    from FlagEmbedding import FlagReranker

    model = FlagReranker(str(folder), use_fp16=False, devices="cpu", max_length=512)
    return lambda query, passages: model.compute_score([(query, text) for text in passages])


def rerankers(folder: Path) -> Score:
    """answerdotai/rerankers."""
    from rerankers import Reranker

    model = Reranker(str(folder), model_type="cross-encoder", device="cpu", dtype="fp32", verbose=0)

    def score(query: str, passages: list[str]) -> list[float]:
        found = model.rank(query, passages, doc_ids=list(range(len(passages))))
        by_place = {item.document.doc_id: float(item.score) for item in found.results}
        return [by_place[place] for place in range(len(passages))]

    return score


def openvino(folder: Path) -> Score:
    """sentence-transformers' own OpenVINO backend, through optimum-intel; fp32."""
    return _predict(_exported(folder))


def openvino_int8(folder: Path) -> Score:
    """The same, statically quantized by its documented helper."""
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers.backend import export_static_quantized_openvino_model

    texts = folder / "texts"  # calibration passages that peers.py put there
    export_static_quantized_openvino_model(
        _exported(folder),
        OVQuantizationConfig(num_samples=200),
        str(folder),
        dataset_name=str(texts),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )
    from sentence_transformers import CrossEncoder

    name = "openvino/openvino_model_qint8_quantized.xml"
    return _predict(
        CrossEncoder(str(folder), backend="openvino", device="cpu",
                     model_kwargs={"file_name": name}, local_files_only=True)
    )  # fmt: skip


def _exported(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), backend="openvino", device="cpu", local_files_only=True)


def _predict(model: Any) -> Score:
    import torch

    return lambda query, passages: model.predict(
        [(query, text) for text in passages], activation_fn=torch.nn.Identity()
    )


def flashrank(folder: Path) -> Score:
    """FlashRank: a local model stands under a name and in a place that it knows."""
    from flashrank import Ranker, RerankRequest

    place = _onnx(folder) / "ms-marco-MiniLM-L-12-v2"
    if not place.exists():
        place.mkdir()
        named = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        (place / "special_tokens_map.json").write_text(json.dumps(named))
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (place / name).symlink_to(folder / name)
        (place / "flashrank-MiniLM-L-12-v2_Q.onnx").symlink_to(folder / "model.onnx")
    model = Ranker(model_name="ms-marco-MiniLM-L-12-v2", cache_dir=str(folder), max_length=512)

    def score(query: str, passages: list[str]) -> list[float]:
        given = [{"id": place, "text": text} for place, text in enumerate(passages)]
        found = model.rerank(RerankRequest(query=query, passages=given))
        by_place = {item["id"]: float(item["score"]) for item in found}
        return [by_place[place] for place in range(len(passages))]

    return score


def fastembed(folder: Path) -> Score:
    """TextCrossEncoder of fastembed, with a model of the user's own."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        model="local/model", sources=ModelSource(hf="local/model"), model_file="model.onnx"
    )
    named = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (_onnx(folder) / "special_tokens_map.json").write_text(json.dumps(named))
    model = TextCrossEncoder("local/model", specific_model_path=str(folder))
    return lambda query, passages: list(model.rerank(query, passages, batch_size=len(passages)))


def _onnx(folder: Path) -> Path:
    """The folder, with the checkpoint as ``model.onnx`` in fp32."""
    if (folder / "model.onnx").exists():
        return folder
    # In a process that ends, so that what this takes is not counted as the peer's.
    subprocess.run([sys.executable, __file__, "onnx", str(folder)], stdout=sys.stderr, check=True)
    return folder


def export(folder: Path) -> None:
    """Writes the checkpoint as ``model.onnx``."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {0: torch.export.Dim("rows", max=1024), 1: torch.export.Dim("tokens", max=512)}
    torch.onnx.export(
        model.eval(),
        kwargs={name: torch.ones(3, 64, dtype=torch.int64) for name in names},
        f=str(folder / "model.onnx"),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, free),
        dynamo=True,
        external_data=False,
    )


PEERS: dict[str, tuple[Callable[[Path], Score], str, tuple[str, ...]]] = {
    "FlagReranker": (flag, "logit", ("FlagEmbedding", "transformers")),
    "rerankers": (rerankers, "logit", ("rerankers", "transformers")),
    "CrossEncoder openvino fp32": (openvino, "logit", ("sentence-transformers", "optimum-intel",
                                                       "openvino", "transformers")),
    "CrossEncoder openvino int8": (openvino_int8, "logit", ("sentence-transformers",
                                                            "optimum-intel", "openvino")),
    "FlashRank": (flashrank, "probability", ("flashrank", "onnxruntime")),
    "fastembed": (fastembed, "logit", ("fastembed", "onnxruntime")),
}  # fmt: skip


def megabytes() -> float:
    """What this process has in memory, by Linux; 0 elsewhere."""
    told = Path("/proc/self/statm")
    pages = int(told.read_text().split()[1]) if told.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else 0


def main() -> None:
    """Serves scores until standard input ends."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    os.environ["HF_HUB_OFFLINE"] = "1"
    if name == "onnx":
        with redirect_stdout(sys.stderr):
            export(folder)
        return
    make, scale, packages = PEERS[name]
    told = sys.stdout

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=told, flush=True)

    try:
        with redirect_stdout(sys.stderr):  # what a library prints is not an answer
            score = make(folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, the report shows it
        tell({"error": f"{type(error).__name__}: {error}"})
        return
    tell({"versions": ", ".join(f"{package} {version(package)}" for package in packages)})
    for line in sys.stdin:
        request = json.loads(line)
        asked = json.loads(Path(request["file"]).read_text(encoding="utf-8"))
        clock = CLOCKS[request["clock"]]
        try:
            with redirect_stdout(sys.stderr):
                start = clock()
                scores = score(asked["query"], asked["passages"])
                seconds = clock() - start
            answer = {"seconds": seconds, "scores": [float(one) for one in scores]}
            tell({**answer, "scale": scale, "megabytes": megabytes()})
        except Exception as error:  # noqa: BLE001
            tell({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
