"""Attention over rows that stand one behind the other, without padding between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_plugins._lazy import lazy

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layout:
    """Where the rows are in packed tokens.

    Attributes:
        lengths: Tokens of each row, in order; none is empty.
        device: Where the tokens are.
    """

    lengths: list[int]
    device: torch.device

    @lazy
    def starts(self) -> torch.Tensor:
        """Shape (rows + 1,), int32: where rows start and the last ends; ``cu_seqlens``."""
        import torch

        starts = np.cumsum([0, *self.lengths], dtype=np.int32)
        return torch.from_numpy(starts).to(self.device)

    @lazy
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
