"""Linear layers of a forward pass: as they are, or with int8 weights and activations.

On a CPU both go through oneDNN, by the operators that torch's own compiler (Inductor) calls.
For fp32 that is a matter of speed alone: torch's ``linear`` hands fp32 to MKL, which leaves
AVX-512 unused on processors other than Intel's, half of what oneDNN reaches there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

# Activations are 7 bits wide, -63 to 63 around 64: two products of 8 by 8 bits overflow the
# 16-bit sums of processors without VNNI.
_LARGEST = 63
_ZERO = 64

# Names of config.json's ``hidden_act``; what oneDNN calls each, and how it is approximated.
ACTIVATIONS: Final = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Linear:
    """``activation(x @ weight.T + bias)``.

    Args:
        weight: Shape (out, in), on the device and in the type that the pass computes in.
        bias: Shape (out,).
        activation: ``none``, or a name of `ACTIVATIONS`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: str = "none") -> None:
        self.weight = weight
        self.bias = bias
        self._activation = activation
        self._onednn = weight.device.type == "cpu" and has_onednn(weight.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """From shape (tokens, in) to (tokens, out)."""
        import torch

        if self._onednn:
            return _pointwise(x, self.weight, self.bias, self._activation)
        return activated(torch.nn.functional.linear(x, self.weight, self.bias), self._activation)


class Int8Linear:
    """`Linear` with int8 weights, a scale per output, and int8 activations, a scale per token.

    A token's scale comes from that token alone, so that its result does not depend on what
    else is in the batch.

    Args:
        weight: Shape (out, in), fp32, on the CPU.
        bias: Shape (out,), fp32.
        activation: ``none``, or a name of `ACTIVATIONS`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: str = "none") -> None:
        import torch

        # A row of zeros has no scale; any will do.
        self._scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        whole = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias
        self._activation = activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """From shape (tokens, in) to (tokens, out), fp32."""
        import torch

        # Not aminmax() or a norm, which take twenty times as long along rows.
        largest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
        largest = largest.clamp_(min=1e-12)
        # .5 because the cast cuts what should be rounded.
        whole = (x * (_LARGEST / largest)).add_(_ZERO + 0.5).to(torch.uint8)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            whole,
            1 / _LARGEST,
            _ZERO,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return activated(torch.addcmul(self._bias, y, largest, out=y), self._activation)


def activated(x: torch.Tensor, activation: str) -> torch.Tensor:
    """The activation of that name over ``x``."""
    import torch

    if activation == "none":
        return x
    name, approximate = ACTIVATIONS[activation]
    if name == "relu":
        return torch.relu(x)
    return torch.nn.functional.gelu(x, approximate=approximate)


def _pointwise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: str
) -> torch.Tensor:
    import torch

    name, approximate = ("none", "") if activation == "none" else ACTIVATIONS[activation]
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
        x, weight, bias, name, [], approximate
    )
    return y


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether `Linear` can use oneDNN in this torch, on this machine; tried once per type."""
    return all(
        _works(lambda x, weight, bias, name=name: _pointwise(x, weight, bias, name), dtype, name)
        for name in ("none", *ACTIVATIONS)
    )


@cache
def has_int8() -> bool:
    """Whether `Int8Linear` works in this torch, on this machine; tried once."""
    import torch

    return _works(lambda x, weight, bias: Int8Linear(weight, bias)(x), torch.float32, near=0.1)


def _works(linear: Any, dtype: torch.dtype, activation: str = "none", near: float = 0.0) -> bool:
    import torch

    weight = torch.linspace(-1, 1, 64 * 32).reshape(64, 32).sin()
    bias, x = torch.linspace(-1, 1, 64), torch.linspace(-2, 2, 5 * 32).reshape(5, 32).cos()
    expected = activated(torch.nn.functional.linear(x, weight, bias), activation)
    try:
        with torch.inference_mode():
            found = linear(x.to(dtype), weight.to(dtype), bias.to(dtype)).float()
    except Exception:  # noqa: BLE001 - a torch without oneDNN raises of every kind
        return False
    near = near or (1e-4 if dtype == torch.float32 else 0.1)
    return bool((found - expected).abs().max() < near)
