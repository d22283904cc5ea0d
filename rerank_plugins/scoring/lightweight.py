"""How much of bge-reranker-v2.5-gemma2-lightweight is computed: cut layers, compressed tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError

NAME = "bge-gemma2-lightweight"
ARCHITECTURE = "cost_wise_gemma"
_RATIOS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Lightweight:
    """What bge-reranker-v2.5-gemma2-lightweight leaves out, as its card lets one choose.

    The names, ranges and defaults are those of FlagEmbedding's ``LightweightLLMReranker``. The
    card's setting that saves 60% of the work, with figures near the whole model's, is
    ``Lightweight(cutoff_layer=25, compress_ratio=2, compress_layers=(8,))``.

    Args:
        cutoff_layer: The score is read behind so many layers, and no other is loaded; None for
            all of them. The checkpoint has a head for layers 8 to 42.
        compress_ratio: 1, 2, 4 or 8 tokens of the passage become their mean; 1 for none.
        compress_layers: In front of these layers, counted from 0; those from the cut on have no
            effect.

    Raises:
        InvalidInputError: If a value is not among these.
    """

    cutoff_layer: int | None = None
    compress_ratio: int = 1
    compress_layers: Sequence[int] = (8,)

    def __post_init__(self) -> None:
        if self.cutoff_layer is not None:
            check_count("cutoff_layer", self.cutoff_layer, minimum=1)
        if self.compress_ratio not in _RATIOS:
            raise InvalidInputError(
                f"compress_ratio must be one of {list(_RATIOS)}, but got {self.compress_ratio!r}"
            )
        if isinstance(self.compress_layers, (str, bytes)) or not isinstance(
            self.compress_layers, Sequence
        ):
            raise InvalidInputError(
                f"compress_layers must be a list of numbers, but got {self.compress_layers!r}"
            )
        for layer in self.compress_layers:
            check_count("each of compress_layers", layer, minimum=1)
        # Hashable, since models are shared by their settings.
        object.__setattr__(self, "compress_layers", tuple(self.compress_layers))

    def cut(self, config: Mapping[str, Any], folder: object) -> int:
        """How many layers are computed.

        Args:
            config: The checkpoint's config.json.
            folder: Where it lies.

        Raises:
            UnsupportedModelError: If the checkpoint has no head for each layer.
            InvalidInputError: If there is none behind the layer wanted.
        """
        if not config.get("layer_wise"):
            raise UnsupportedModelError(
                f"config.json in {folder} must have layer_wise=true: without it the model has no "
                "head that gives a score"
            )
        layers = int(config["num_hidden_layers"])
        scored = range(int(config["start_layer"]), layers + 1, int(config["layer_sep"]))
        wanted = layers if self.cutoff_layer is None else self.cutoff_layer
        if wanted not in scored:
            raise InvalidInputError(
                f"cutoff_layer must be one of {scored.start} to {scored[-1]} in steps of "
                f"{scored.step} for the checkpoint in {folder}, but got {wanted}"
            )
        return wanted
