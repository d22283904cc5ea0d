"""The forward pass of BERT-like models over the tokens that count; the same logits.

Two parts of the usual pass reach no logit: the padding behind short rows, and in the last
layer every token but the first, since the scoring head reads that one alone. Here the rows
stand one behind the other, everything but attention works on tokens whatever row they are of,
and the last layer answers for first tokens only, whose attention still sees their whole row.
Of a layer's twelve hidden x hidden products a token, the last layer keeps two (keys, values):
two layers cost 14 of 24, twelve 134 of 144.

The weights are plain tensors by the names that checkpoints give them: transformers is not
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.attention import Attention, Layout
from rerank_plugins.scoring.blocks import Blocks
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.linear import ACTIVATIONS, Int8Linear, Linear

if TYPE_CHECKING:
    import torch

# Model types of config.json, and the name that their checkpoints give the body: one
# architecture, but for the numbers of positions and the scoring head.
_BODIES: Final = {
    "bert": "bert",
    "camembert": "roberta",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}


def against_packing(config: Mapping[str, Any]) -> str | None:
    """Why the model of this config.json must run otherwise; None where nothing speaks against.

    What a config leaves out is as transformers' own default for these four model types.
    """
    if config.get("model_type") not in _BODIES:
        return f"its architecture is {config.get('model_type')!r}"
    plain = {
        "add_cross_attention": False,
        "is_decoder": False,
        "position_embedding_type": "absolute",
        "quantization_config": None,
    }
    for name, expected in plain.items():
        if (config.get(name) or expected) != expected:
            return f"its {name} is {config[name]!r}"
    if config.get("pruned_heads"):
        return "it has pruned heads"
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        return f"its hidden_act is {config['hidden_act']!r}"
    return None if config.get("num_hidden_layers", 12) else "it has no layers"


class PackedBody:
    """Embeddings and layers of a BERT or RoBERTa.

    Args:
        config: Of config.json; one that `against_packing` has nothing against.
        tensors: Weights by name, of any type, on any device.
        dtype: What to compute in.
        device: Where.
        int8: Compute the layers' linear parts in int8, on a CPU, with ``dtype`` fp32.
        prefix: Before the names: ``bert.`` or ``roberta.`` in classifiers, nothing in
            checkpoints of a body alone. None for a classifier's.

    Raises:
        KeyError: If a weight is missing.
        ValueError: Weights do not fit together or do not fit the config.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
        int8: bool = False,
        prefix: str | None = None,
    ) -> None:
        if prefix is None:
            prefix = _BODIES[config["model_type"]] + "."
        self.device = device
        self.heads: int = config.get("num_attention_heads", 12)
        self.width: int = config.get("hidden_size", 768)
        self._size = self.width // self.heads
        self._eps: float = config.get("layer_norm_eps", 1e-12)
        padding = config.get("pad_token_id", 1)
        self._padding: int | None = None if config["model_type"] == "bert" else padding
        linear: Any = Int8Linear if int8 else Linear

        def weight(name: str, *shape: int | None) -> torch.Tensor:
            found = tensors[prefix + name]
            check_shape(prefix + name, found.shape, shape)
            return found.to(device=device, dtype=dtype)

        def norm(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return weight(f"{name}.weight", self.width), weight(f"{name}.bias", self.width)

        import torch

        self._words: Callable[[torch.Tensor], torch.Tensor]
        words = "embeddings.word_embeddings.weight"
        if device.type == "cpu":
            # Few rows are ever read: the table stays in its file, in the type that it has there.
            shape, look_up = _words_of(tensors, prefix + words)
            check_shape(prefix + words, shape, (None, self.width))
            self._words = lambda ids: look_up(ids).to(dtype)
        else:
            table = weight(words, None, self.width)
            self._words = partial(torch.nn.functional.embedding, weight=table)
        self._places = weight("embeddings.position_embeddings.weight", None, self.width)
        self._types = weight("embeddings.token_type_embeddings.weight", None, self.width)
        self._norm = norm("embeddings.LayerNorm")
        inner: int = config.get("intermediate_size", 3072)
        count: int = config.get("num_hidden_layers", 12)
        # One product for queries, keys and values where a token is quantized for each, or weights
        # are copied to a device; else it gains nothing, and three leave them in their file.
        joined = int8 or device.type != "cpu"
        self._layers = []
        for number in range(count):
            at = f"encoder.layer.{number}."
            own = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
            weights = [weight(f"{one}.weight", self.width, self.width) for one in own]
            biases = [weight(f"{one}.bias", self.width) for one in own]
            # In the last layer queries may be fewer.
            alone = 1 if number == count - 1 else 0
            asking, seen = weights[:alone], weights[alone:]
            if joined:
                seen, biases[alone:] = [torch.cat(seen)], [torch.cat(biases[alone:])]
            self._layers.append(
                _Layer(
                    linear(asking[0], biases[0]) if asking else None,
                    [linear(*some) for some in zip(seen, biases[alone:], strict=True)],
                    linear(
                        weight(f"{at}attention.output.dense.weight", self.width, self.width),
                        weight(f"{at}attention.output.dense.bias", self.width),
                    ),
                    norm(f"{at}attention.output.LayerNorm"),
                    linear(
                        weight(f"{at}intermediate.dense.weight", inner, self.width),
                        weight(f"{at}intermediate.dense.bias", inner),
                        config.get("hidden_act", "gelu"),
                    ),
                    linear(
                        weight(f"{at}output.dense.weight", self.width, inner),
                        weight(f"{at}output.dense.bias", self.width),
                    ),
                    norm(f"{at}output.LayerNorm"),
                )
            )

    def hidden(self, batch: Batch, attention: Attention) -> tuple[torch.Tensor, Layout]:
        """The last layer's output for every token, shape (tokens, width), row after row."""
        hidden, layout = self._embedded(batch)
        for layer in self._layers:
            hidden = self._run(layer, hidden, attention, layout)
        return hidden, layout

    def first(self, batch: Batch, attention: Attention) -> torch.Tensor:
        """The last layer's output for each row's first token, shape (rows, width)."""
        hidden, layout = self._embedded(batch)
        *layers, last = self._layers
        for layer in layers:
            hidden = self._run(layer, hidden, attention, layout)
        return self._run(last, hidden, attention, layout, first=True)

    def _embedded(self, batch: Batch) -> tuple[torch.Tensor, Layout]:
        import torch
        from torch.nn.functional import embedding

        real = batch.attention_mask.astype(bool)
        layout = Layout(real.sum(axis=1).tolist(), self.device)

        def packed(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(values[real]).to(self.device)

        hidden = self._words(packed(batch.input_ids))
        types = batch.token_type_ids
        hidden = hidden + (
            self._types[0] if types is None else embedding(packed(types), self._types)
        )
        hidden = hidden + embedding(packed(self._positions(batch.input_ids)), self._places)
        return self._normed(hidden, self._norm), layout

    def _positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """BERT numbers from 0, RoBERTa behind its padding id.

        RoBERTa numbers no padding token, also where a text spells one out.
        """
        if self._padding is None:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        counted = ids != self._padding
        return np.asarray(np.cumsum(counted, axis=1) * counted + self._padding)

    def _run(
        self,
        layer: _Layer,
        hidden: torch.Tensor,
        attention: Attention,
        layout: Layout,
        *,
        first: bool = False,
    ) -> torch.Tensor:
        *parts, key, value = (
            part
            for linear in layer.seen
            for part in linear(hidden).view(len(hidden), -1, self.heads, self._size).unbind(1)
        )
        if first:
            hidden = hidden[layout.starts[:-1]]
        if layer.asking is not None:
            parts = [layer.asking(hidden).view(len(hidden), self.heads, self._size)]
        mixed = attention(parts[0], key, value, layout).flatten(1)
        attended = self._normed(layer.mixing(mixed) + hidden, layer.mixed_norm)
        return self._normed(layer.narrow(layer.wide(attended)) + attended, layer.norm)

    def _normed(
        self, hidden: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        from torch.nn.functional import layer_norm

        return layer_norm(hidden, (self.width,), *norm, eps=self._eps)


def _words_of(
    tensors: Mapping[str, torch.Tensor], name: str
) -> tuple[Sequence[int], Callable[[torch.Tensor], torch.Tensor]]:
    """Shape of a table on the CPU, and what gives the rows of some numbers."""
    import torch

    if not isinstance(tensors, Blocks):
        table = tensors[name].cpu()
        return table.shape, lambda ids: table.index_select(0, ids)
    rows = tensors.rows(name)
    return rows.shape, lambda ids: torch.from_numpy(rows(ids.numpy()))


def check_shape(name: str, shape: Sequence[int], wanted: tuple[int | None, ...]) -> None:
    """Refuses a weight of another shape; None is any size.

    Raises:
        ValueError: If it has another.
    """
    if len(shape) != len(wanted) or any(
        want not in (None, have) for want, have in zip(wanted, shape, strict=True)
    ):
        raise ValueError(f"{name} must be of shape {wanted}, but is {tuple(shape)}")


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: linear parts, and weight and bias of the two norms.

    Attributes:
        asking: Gives queries; None where ``seen`` does.
        seen: Give, together, keys and values, behind queries where they give these too.
    """

    asking: Linear | None
    seen: list[Linear]
    mixing: Linear
    mixed_norm: tuple[torch.Tensor, torch.Tensor]
    wide: Linear
    narrow: Linear
    norm: tuple[torch.Tensor, torch.Tensor]


class PackedClassifier:
    """A `PackedBody` and its scoring head, which is never quantized.

    Args:
        config, tensors, dtype, device, int8: As in `PackedBody`.

    Raises:
        KeyError: If a weight is missing.
        ValueError: Weights do not fit together or do not fit the config.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
        int8: bool = False,
    ) -> None:
        self.body = PackedBody(config, tensors, dtype=dtype, device=device, int8=int8)
        names = ["bert.pooler.dense", "classifier"]
        if config["model_type"] != "bert":
            names = ["classifier.dense", "classifier.out_proj"]

        def weight(name: str) -> torch.Tensor:
            return tensors[name].to(device=device, dtype=dtype)

        # BERT's pooler and RoBERTa's head: the same two steps by other names.
        self._dense, self._out = (
            Linear(weight(f"{name}.weight"), weight(f"{name}.bias")) for name in names
        )
        width = self.body.width
        if self._dense.weight.shape != (width, width) or self._out.weight.shape[1] != width:
            raise ValueError("the scoring head must fit the body")

        self.parameters = (
            tensors.count()
            if isinstance(tensors, Blocks)
            else sum(tensor.numel() for tensor in tensors.values())
        )

    def logits(self, batch: Batch, attention: Attention) -> torch.Tensor:
        """Logits of a batch's rows, shape (rows, labels); inference only.

        Args:
            batch: Padded rows; in every row the padding comes last.
            attention: How a row's tokens see each other.
        """
        import torch

        return self._out(torch.tanh(self._dense(self.body.first(batch, attention))))
