"""The weights of bge-reranker-v2.5-gemma2-lightweight up to the layer where it is cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.lightweight import Lightweight
from rerank_plugins.scoring.torch_engine import check_complete, loading

if TYPE_CHECKING:
    import torch

# Of config.json, what says which code to run.
_OWN = ("architectures", "auto_map", "model_type", "rerank_plugins")


@cache
def _cut_gemma2() -> Any:
    """Gemma 2 up to the cut, with the head that is used; weights by the checkpoint's names."""
    from torch import nn
    from transformers.models.gemma2.modeling_gemma2 import Gemma2Model, Gemma2PreTrainedModel

    class CutGemma2(Gemma2PreTrainedModel):  # type: ignore[misc]
        # Layers behind the cut, and the other heads, are in the checkpoint and are not read.
        _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
            r"lm_head\.\d+",
            r"model\.layers\.\d+",
        ]

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Gemma2Model(config)
            head = nn.Linear(config.hidden_size, 1, bias=False)
            self.lm_head = nn.ModuleList([nn.ModuleDict({"linear_head": head})])
            self.post_init()

    return CutGemma2


def read_cut(
    checkpoint: Checkpoint, chosen: Lightweight, dtype: torch.dtype, *, allow_pickle_weights: bool
) -> tuple[Any, Any]:
    """Tokenizer and model of a checkpoint, no layer behind the cut.

    Raises:
        UnsupportedModelError: If it cannot be loaded, or weights are missing.
        InvalidInputError: If it has no head at the cut.
    """
    from transformers import AutoTokenizer, Gemma2Config

    folder = checkpoint.folder
    raw: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = chosen.cut(raw, folder)
    with loading(folder, checkpoint.architecture):
        config = Gemma2Config.from_dict({k: v for k, v in raw.items() if k not in _OWN})
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:layers]
        config.attn_logit_softcapping = None  # see lightweight_engine
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True)
        model, report = _cut_gemma2().from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=None if allow_pickle_weights else True,
            output_loading_info=True,
        )
    check_complete(folder, report["missing_keys"])
    return tokenizer, model
