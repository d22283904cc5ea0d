"""The forward pass of BERT-like classifiers over the tokens that count; the same logits.

Two parts of the usual pass reach no logit: the padding behind short rows, and in the last
layer every token but the first, since the scoring head reads that one alone. Here the rows
stand one behind the other, everything but attention works on tokens whatever row they are of,
and the last layer answers for first tokens only, whose attention still sees their whole row.
Of a layer's twelve hidden x hidden products a token, the last layer keeps two (keys, values):
two layers cost 14 of 24, twelve 134 of 144.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.encoding import Batch

if TYPE_CHECKING:
    import torch

# Classes and the name of the body in them: one architecture, but for the numbers of positions
# and the head. By name and exactly: a subclass, or a checkpoint's own code, may differ.
_BODIES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
}


@dataclass(frozen=True)
class Layout:
    """Where the rows are in packed tokens.

    Attributes:
        lengths: Tokens of each row, in order; none is empty.
        device: Where the tokens are.
    """

    lengths: list[int]
    device: torch.device

    @cached_property
    def starts(self) -> torch.Tensor:
        """Shape (rows + 1,), int32: where rows start and the last ends; ``cu_seqlens``."""
        import torch

        starts = np.cumsum([0, *self.lengths], dtype=np.int32)
        return torch.from_numpy(starts).to(self.device)

    @cached_property
    def ones(self) -> torch.Tensor:
        """`starts` of as many rows of one token each."""
        import torch

        return torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.device)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Neighbouring rows of one length: their number, the length."""
        for length, run in groupby(self.lengths):
            yield sum(1 for _ in run), length


# Takes queries of shape (tokens, heads, size), or (rows, heads, size) for first tokens alone,
# and keys and values of shape (tokens, heads, size); gives the shape of the queries.
Attention = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", Layout], "torch.Tensor"]


def attention_by_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """Scaled dot products on any device, a call for each run of rows of one length."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    of_first_tokens = len(query) == len(layout.lengths)
    found = []
    asked = seen = 0
    for rows, length in layout.runs():
        asking = rows if of_first_tokens else rows * length
        own = slice(seen, seen + rows * length)
        parts = (query[asked : asked + asking], key[own], value[own])
        one, two, three = (
            part.reshape(rows, -1, *part.shape[1:]).transpose(1, 2) for part in parts
        )
        mixed = scaled_dot_product_attention(one, two, three)
        found.append(mixed.transpose(1, 2).flatten(0, 1))
        asked, seen = asked + asking, own.stop
    return torch.cat(found)


def attention_on_cuda(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """One kernel call for all rows: fp16 or bf16 on CUDA, torch 2.10 or later."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(layout.lengths)
    of_first_tokens = len(query) == len(layout.lengths)
    mixed: Any = varlen_attn(
        query,
        key,
        value,
        layout.ones if of_first_tokens else layout.starts,
        layout.starts,
        1 if of_first_tokens else longest,
        longest,
    )
    return mixed  # type: ignore[no-any-return]


def can_pack(model: Any) -> bool:
    """Whether the model is of an architecture for which `packed_logits` gives its logits."""
    config = model.config
    return type(model).__name__ in _BODIES and not (
        type(model).__module__.partition(".")[0] != "transformers"
        or getattr(config, "is_decoder", False)
        or getattr(config, "add_cross_attention", False)
        or getattr(config, "position_embedding_type", "absolute") != "absolute"
        or not config.num_hidden_layers
    )


def packed_logits(model: Any, batch: Batch, attention: Attention) -> torch.Tensor:
    """Logits of a batch's rows, shape (rows, labels); inference only.

    Args:
        model: One for which `can_pack` says so.
        batch: Padded rows; in every row the padding comes last.
        attention: How a row's tokens see each other.
    """
    import torch

    body = getattr(model, _BODIES[type(model).__name__])
    real = batch.attention_mask.astype(bool)
    layout = Layout(real.sum(axis=1).tolist(), model.device)

    def packed(values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values[real]).to(model.device).unsqueeze(0)

    types = batch.token_type_ids
    hidden = body.embeddings(
        input_ids=packed(batch.input_ids),
        token_type_ids=packed(np.zeros_like(batch.input_ids) if types is None else types),
        position_ids=packed(_positions(batch.input_ids, body.embeddings)),
    ).squeeze(0)
    *layers, last = body.encoder.layer
    for layer in layers:
        hidden = _layer(layer, hidden, hidden, attention, layout)
    first = _layer(last, hidden[layout.starts[:-1]], hidden, attention, layout).unsqueeze(1)
    pooled = first if body.pooler is None else body.pooler(first)
    logits: torch.Tensor = model.classifier(pooled)
    return logits


def _positions(ids: NDArray[np.int64], embeddings: Any) -> NDArray[np.int64]:
    """As the embeddings number them: BERT from 0, RoBERTa behind its padding id.

    RoBERTa numbers no padding token, also where a text spells one out.
    """
    padding = getattr(embeddings, "padding_idx", None)
    if padding is None:
        return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    counted = ids != padding
    return np.asarray(np.cumsum(counted, axis=1) * counted + padding)


def _layer(
    layer: Any, asking: torch.Tensor, hidden: torch.Tensor, attention: Attention, layout: Layout
) -> torch.Tensor:
    own = layer.attention.self
    query, key, value = (
        part.unflatten(-1, (own.num_attention_heads, -1))
        for part in (own.query(asking), own.key(hidden), own.value(hidden))
    )
    mixed = attention(query, key, value, layout).flatten(1)
    attended = layer.attention.output(mixed, asking)
    answer: torch.Tensor = layer.output(layer.intermediate(attended), attended)
    return answer
