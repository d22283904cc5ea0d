"""Linear layers of a forward pass: as they are, or with int8 weights and activations.

On a CPU both go through oneDNN, by the operators that torch's own compiler (Inductor) calls.
For fp32 that is a matter of speed alone: torch's ``linear`` hands fp32 to MKL, which leaves
AVX-512 unused on processors other than Intel's, half of what oneDNN reaches there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rerank_plugins.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

# Without VNNI: (162 + 1) x 200 fits in 16 bits, the 1 being what rounding may add to two weights.
_STEPS_OF_PAIRS: Final = 200
_LARGEST_PAIR: Final = 162

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
    """`Linear` with int8 weights, a scale per output, and uint8 activations, a range per token.

    A token's range, from its lowest value to its highest, comes from that token alone, so that its
    result does not depend on what else is in the batch. A range around 0 would waste half of its
    steps: behind a GELU, and where a few outlying channels of a layer norm have one sign.

    Activations have as many steps as `activation_steps` says. Where those are 200, a row's scale is
    so large that the weights of no two neighbours sum to more than 162.

    Args:
        weight: Shape (out, in), fp32, on the CPU.
        bias: Shape (out,), fp32.
        activation: ``none``, or a name of `ACTIVATIONS`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: str = "none") -> None:
        import torch

        self._steps = activation_steps()
        # A row of zeros has no scale; any will do.
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        if self._steps == _STEPS_OF_PAIRS:
            even = weight[:, : weight.shape[1] // 2 * 2].reshape(len(weight), -1, 2)
            pairs = even.sum(dim=2).abs().amax(dim=1)
            scales = torch.maximum(scales, pairs / _LARGEST_PAIR)
        whole = (weight / scales[:, None]).round().to(torch.int8)
        self._product = _Product(whole, scales)
        # What the products give for a token whose values are all 1.
        self._sums = whole.sum(dim=1) * scales
        self._bias = bias
        self._activation = activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """From shape (tokens, in) to (tokens, out), fp32."""
        import torch

        # Not aminmax(), which takes twenty times as long along rows.
        low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
        step = (high - low).clamp_(min=1e-12).div_(self._steps)
        # Half a step more, because the cast cuts what should be rounded; from fp32 to uint8 at
        # once takes three times as long.
        whole = (x - (low - step / 2)).mul_(1 / step).to(torch.int16).to(torch.uint8)
        y = self._product(whole)
        torch.addcmul(self._bias, y, step, out=y)
        return activated(y.addcmul_(low, self._sums), self._activation)


class _Product:
    """Of uint8 and int8 matrices, by oneDNN; the outputs scaled, fp32."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor) -> None:
        import torch

        self._weight = torch.ops.onednn.qlinear_prepack(weight, None)
        self._scales = scales
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            x,
            1.0,
            0,
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
        return y


@cache
def activation_steps() -> int:
    """Steps in which activations are kept: 255, 200 or 127; which is exact here is tried once.

    255 is all of 8 bits, for processors that sum products of 8 by 8 bits in 32 (VNNI, AMX). Others
    sum two of them in 16 first, those of neighbouring inputs: with 200 steps that is exact where
    two weights sum to no more than 163, with 127 steps always.
    """
    if _is_exact(255, [127, 127]):
        return 255
    rest = _LARGEST_PAIR + 1 - 127
    return _STEPS_OF_PAIRS if _is_exact(_STEPS_OF_PAIRS, [127, rest]) else 127


def _is_exact(largest: int, weights: list[int]) -> bool:
    """Whether sums over the largest activations are, with two weights in turn."""
    import torch

    for tokens, inputs in ((1, 64), (64, 384)):
        weight = torch.tensor(weights * (inputs // 2), dtype=torch.int8).repeat(64, 1)
        x = torch.full((tokens, inputs), largest, dtype=torch.uint8)
        with torch.inference_mode():
            y = _Product(weight, torch.ones(64))(x)
        if bool((y != largest * sum(weights) * (inputs // 2)).any()):
            return False
    return True


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


def check_int8() -> None:
    """Refuses int8 where `Int8Linear` does not work in this torch, on this machine.

    Raises:
        InvalidInputError: If so.
    """
    if not has_int8():
        raise InvalidInputError(
            "precision='int8' needs oneDNN's int8 products, which this torch or processor lacks: "
            "use precision='fp32' or 'auto'"
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
