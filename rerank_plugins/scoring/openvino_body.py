"""A BERT's layers and the mean of what they give, as a graph for OpenVINO.

Built from the weights in a tenth of a second: nothing is traced or converted by torch, which
takes seconds, so that nothing need be kept on the disk, and torch need not be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.openvino_compiled import openvino_library
from rerank_plugins.scoring.packed import check_shape

if TYPE_CHECKING:
    import openvino

# What a score of attention loses where there is only padding to see.
_UNSEEN = np.float32(-1e4)


def against_graph(config: Mapping[str, Any]) -> str | None:
    """Why the model of this config.json has no such graph; None where nothing speaks against."""
    for name, expected in (("model_type", "bert"), ("hidden_act", "gelu")):
        if (found := config.get(name, expected)) != expected:
            return f"its {name} is {found!r}"
    return None


def mean_pooled(
    config: Mapping[str, Any], array: Callable[[str], NDArray[np.float32]]
) -> openvino.Model:
    """From ``words``, (rows, tokens, width), and ``mask``, (rows, tokens), to (rows, width).

    The inputs are float32: rows of the table of words, and 1 for a token, 0 for padding, which
    comes last.

    Args:
        config: Of config.json; one that `against_graph` has nothing against.
        array: Gives weights by their names in a checkpoint of a body alone.

    Raises:
        KeyError: If a weight is missing.
        ValueError: Weights do not fit together or do not fit the config.
    """
    library = openvino_library()
    from openvino import opset13 as ops

    width: int = config["hidden_size"]
    inner: int = config.get("intermediate_size", 3072)
    heads: int = config.get("num_attention_heads", 12)
    if width % heads:
        raise ValueError(f"hidden_size must be a multiple of {heads} heads, but is {width}")
    eps: float = config.get("layer_norm_eps", 1e-12)
    by_head, joined = np.array([0, 0, heads, width // heads]), np.array([0, 0, width])
    turned = np.array([0, 2, 1, 3])

    def weight(name: str, *shape: int | None) -> Any:
        found = array(name)
        check_shape(name, found.shape, shape)
        return ops.constant(found)  # an array itself would become a list of floats first

    def linear(x: Any, name: str, size: int = width, size_in: int = width) -> Any:
        product = ops.matmul(
            x, weight(f"{name}.weight", size, size_in), transpose_a=False, transpose_b=True
        )
        return ops.add(product, weight(f"{name}.bias", size))

    def norm(x: Any, name: str) -> Any:
        x = ops.mvn(x, np.array([-1]), normalize_variance=True, eps=eps, eps_mode="inside_sqrt")
        x = ops.multiply(x, weight(f"{name}.weight", width))
        return ops.add(x, weight(f"{name}.bias", width))

    words = ops.parameter([-1, -1, width], np.float32, name="words")
    mask = ops.parameter([-1, -1], np.float32, name="mask")
    places = ops.slice(
        weight("embeddings.position_embeddings.weight", None, width),
        np.array([0]),
        ops.slice(ops.shape_of(words), np.array([1]), np.array([2]), np.array([1])),
        np.array([1]),
        np.array([0]),
    )
    types = weight("embeddings.token_type_embeddings.weight", None, width)
    # Type 0 throughout.
    types = ops.gather(types, np.array(0), np.array(0))
    hidden = norm(ops.add(ops.add(words, types), places), "embeddings.LayerNorm")
    unseen = ops.multiply(ops.subtract(np.float32(1), mask), _UNSEEN)
    unseen = ops.unsqueeze(unseen, np.array([1, 2]))
    for number in range(config.get("num_hidden_layers", 12)):
        at = f"encoder.layer.{number}"
        parts = [
            ops.transpose(
                ops.reshape(
                    linear(hidden, f"{at}.attention.self.{part}"), by_head, special_zero=True
                ),
                turned,
            )
            for part in ("query", "key", "value")
        ]
        mixed = ops.transpose(ops.scaled_dot_product_attention(*parts, unseen), turned)
        mixed = linear(
            ops.reshape(mixed, joined, special_zero=True), f"{at}.attention.output.dense"
        )
        hidden = norm(ops.add(mixed, hidden), f"{at}.attention.output.LayerNorm")
        wide = ops.gelu(linear(hidden, f"{at}.intermediate.dense", inner), "erf")
        hidden = norm(
            ops.add(linear(wide, f"{at}.output.dense", size_in=inner), hidden),
            f"{at}.output.LayerNorm",
        )
    real = ops.unsqueeze(mask, np.array([2]))
    sums = ops.reduce_sum(ops.multiply(hidden, real), np.array([1]))
    means = ops.divide(sums, ops.reduce_sum(real, np.array([1])))
    return library.Model([means], [words, mask], "mean_pooled")
