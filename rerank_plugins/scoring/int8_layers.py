"""int8 in the layers of a transformers model, for architectures without a packed pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_plugins.scoring.linear import Int8Linear

if TYPE_CHECKING:
    import torch


def quantize_layers(model: Any) -> int:
    """Puts `Int8Linear` in place of each ``torch.nn.Linear`` within the model's layers.

    Layers are what stands in a ``ModuleList`` of the body; embeddings, pooler and scoring head
    stay as they are.

    Args:
        model: A sequence classifier of transformers in fp32, on the CPU; it is changed.

    Returns:
        The number of linear parts that were replaced.
    """
    import torch

    class Quantized(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            weight = linear.weight.detach()
            bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
            self._linear = Int8Linear(weight, bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = self._linear(x.reshape(-1, x.shape[-1]))
            return flat.view(*x.shape[:-1], flat.shape[-1])

    lists = [part for part in model.base_model.modules() if isinstance(part, torch.nn.ModuleList)]
    count = 0
    for parent in {part for some in lists for part in some.modules()}:
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, Quantized(child))
                count += 1
    return count
