"""The torch engine for bge-reranker-v2.5-gemma2-lightweight; none of its remote code runs.

Its layers are Gemma 2's, as transformers has them. What is its own is little: a head that reads
the score behind any layer, so that layers can be left out, and in front of some layers the
passage's tokens become means of neighbours. Written after ``CostWiseGemmaForCausalLM`` in
FlagEmbedding 1.4.2 (MIT), which needs an older transformers. Two things there are not what
config.json would let one expect, and are kept, since the published scores are made so: for one
cutoff layer it reads the first of its heads, whatever the layer; and as its attention is torch's
fused one by default, attention logits are not capped (``attn_logit_softcapping``).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.forward import forward_on
from rerank_plugins.scoring.lightweight import Lightweight

if TYPE_CHECKING:
    import torch

# Token types of a row: query (with what stands before the passage), passage, prompt.
QUERY, PASSAGE, PROMPT = 0, 1, 2


class LightweightEngine:
    """Runs forward passes; rows tell by their token types where passage and prompt are.

    Args:
        model: What `lightweight_model.read_cut` gives, on its device.
        chosen: What is left out.
        precision: Of the weights.
    """

    name = "torch"

    def __init__(self, model: Any, chosen: Lightweight, *, precision: str) -> None:
        self._model = model.eval()
        self._ratio = chosen.compress_ratio
        layers = model.config.num_hidden_layers
        between = {layer for layer in chosen.compress_layers if layer < layers}
        edges = [0, *(sorted(between) if self._ratio > 1 else ()), layers]
        self._parts = [_part(model.model, *edge) for edge in pairwise(edges)]
        self.device = next(model.parameters()).device
        self.precision = precision
        self._unscaled = self._scale()
        self._try_parts()

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self._model.parameters())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, 1): what the first head says of the last computed layer."""
        import torch

        if batch.token_type_ids is None:
            raise UnsupportedModelError("rows must tell their passage by token types")
        ids, real, types = (
            torch.from_numpy(array)
            for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        )
        return forward_on(
            self.device, batch.input_ids.shape, lambda: self._scores(ids, real, types)
        )

    def _scores(self, ids: torch.Tensor, real: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        import torch

        ids, real, types = (one.to(self.device) for one in (ids, real, types))
        hidden = self._model.model.embed_tokens(ids)
        for number, part in enumerate(self._parts):
            if number:
                hidden, real, types = compressed(hidden, real, types, self._ratio)
                hidden = hidden / self._unscaled
            hidden = part(
                inputs_embeds=hidden, attention_mask=real, use_cache=False
            ).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=self.device), real.sum(1) - 1]
        logits: torch.Tensor = self._model.lm_head[0]["linear_head"](last).float()
        cap = self._model.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _scale(self) -> torch.Tensor:
        """What a part multiplies its input with; 1 in newer versions of transformers.

        Gemma 2 scales its embeddings: there in the embedding layer, before in the forward pass.
        """
        import torch

        whole = self._model.model
        dtype = next(whole.parameters()).dtype
        own = hasattr(whole.embed_tokens, "embed_scale")
        value = 1.0 if own else float(whole.config.hidden_size) ** 0.5
        return torch.tensor(value, dtype=dtype, device=self.device)

    def _try_parts(self) -> None:
        """Refuses a version of transformers in which the parts are not the whole."""
        import torch

        if len(self._parts) == 1:
            return
        ids = torch.arange(1, 13, device=self.device)[None]
        with torch.inference_mode():
            whole = self._model.model(input_ids=ids, use_cache=False).last_hidden_state
            hidden = self._model.model.embed_tokens(ids)
            for number, part in enumerate(self._parts):
                hidden = hidden / self._unscaled if number else hidden
                hidden = part(inputs_embeds=hidden, use_cache=False).last_hidden_state
        far = float((hidden - whole).abs().max() / whole.abs().max())
        if far > (1e-3 if self.precision == "fp32" else 0.1):
            raise UnsupportedModelError(
                f"this version of transformers cannot run Gemma 2 in parts ({far:.2g} off): use "
                "Lightweight(compress_ratio=1), or another version"
            )


def compressed(
    hidden: torch.Tensor, real: torch.Tensor, types: torch.Tensor, ratio: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each ``ratio`` neighbours of the passage become their mean, the last ones of what is left.

    Args:
        hidden: (rows, tokens, size), padded on the right.
        real: (rows, tokens), 1 for tokens and 0 for padding.
        types: (rows, tokens), `QUERY`, `PASSAGE` or `PROMPT`.
        ratio: How many become one.

    Returns:
        The same three, as wide as the longest of the shorter rows.
    """
    import torch

    rows, width, size = hidden.shape
    passage = (types == PASSAGE) & (real == 1)
    long = passage.sum(1, keepdim=True)
    short = (long + ratio - 1) // ratio
    before = ((types == QUERY) & (real == 1)).sum(1, keepdim=True)
    place = torch.arange(width, device=hidden.device).expand(rows, -1)
    to = torch.where(types == PROMPT, place - long + short, place)
    to = torch.where(passage, before + (place - before) // ratio, to)
    lengths = real.sum(1, keepdim=True) - long + short
    most = int(lengths.max())
    to = torch.where(real == 1, to, most)  # padding goes to a separate column
    sums = hidden.new_zeros(rows, most + 1, size)
    sums.scatter_add_(1, to[..., None].expand_as(hidden), hidden)
    counts = hidden.new_zeros(rows, most + 1).scatter_add_(1, to, torch.ones_like(hidden[..., 0]))
    kinds = types.new_zeros(rows, most + 1).scatter_(1, to, types)
    means = sums / counts.clamp(min=1)[..., None]
    left = torch.arange(most, device=hidden.device) < lengths
    return means[:, :most], left.to(real.dtype), kinds[:, :most]


def _part(whole: Any, start: int, stop: int) -> Any:
    """Some of a Gemma2Model's layers as a separate model, which shares their weights.

    Only the last part ends with the norm. Positions begin anew in each, as in the original.
    """
    from torch.nn import Identity

    part = copy.copy(whole)
    part._modules = dict(whole._modules)  # noqa: SLF001 - a shallow copy shares the mapping
    part.config = copy.copy(whole.config)
    part.layers = whole.layers[start:stop]
    part.config.num_hidden_layers = stop - start
    part.config.layer_types = whole.config.layer_types[start:stop]
    if stop < len(whole.layers):
        part.norm = Identity()
    return part
