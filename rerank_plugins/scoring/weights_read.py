"""Whether a ``CrossEncoder`` has the weights of its checkpoint: none pickled, none made up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.saved import module_folders
from rerank_plugins.scoring.torch_engine import check_complete

if TYPE_CHECKING:
    import torch


def refuse_pickled_modules(folder: Path) -> None:
    """Refuses a checkpoint with a module whose weights are pickled alone.

    Raises:
        UnsupportedModelError: If there is one; the error names it.
    """
    for name in module_folders(folder):
        if (folder / name / "pytorch_model.bin").is_file() and not any(
            (folder / name).glob("*.safetensors")
        ):
            raise UnsupportedModelError(
                f"the module {name} in {folder} has pickled weights alone; if you trust them, "
                "pass allow_pickle_weights=True"
            )


def check_weights(model: Any, folder: Path) -> None:
    """Refuses a model of which some weights were made up, as they are for a missing head.

    Raises:
        UnsupportedModelError: If weights are missing, or an adapter's were not read.
    """
    body = model.transformers_model
    if body is None:
        return
    # transformers marks what it has read (core_model_loading.py); a tied weight counts as read.
    # peft marks nothing.
    configs = getattr(body, "peft_config", ())
    adapters = [f".{name}." for name in configs]
    missing = (
        name
        for name, weight in body.named_parameters()
        if not getattr(weight, "_is_hf_initialized", False)
        # An adapter brings its own copy of what it replaces.
        and "original_module" not in name
        and not any(adapter in name for adapter in adapters)
    )
    check_complete(folder, missing)
    if configs:
        _check_adapter(dict(body.named_parameters()), folder)


def _check_adapter(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Refuses an adapter of which the model lacks a weight.

    peft passes over names that it does not expect, and what they were for stays random: so with
    DoRA's under transformers 5.
    """
    from peft import load_peft_weights

    alike: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
    for weight in weights.values():
        alike[weight.shape].append(weight)
    saved = load_peft_weights(str(folder), device="cpu")
    unread = [name for name, weight in saved.items() if not _is_among(weight, alike[weight.shape])]
    if unread:
        raise UnsupportedModelError(
            f"peft did not read {unread[:2]} of the adapter in {folder} ({len(unread)} of "
            f"{len(saved)} weights): its scores would be random. Merge the adapter into its "
            "model (peft's merge_and_unload) and save that"
        )


def _is_among(weight: torch.Tensor, others: Sequence[torch.Tensor]) -> bool:
    import torch

    first = weight.flatten()[:1].float()
    return any(
        # Precisions differ; most weights differ in their first number.
        torch.allclose(other.flatten()[:1].float().cpu(), first, rtol=1e-2)
        and torch.allclose(other.float().cpu(), weight.float(), rtol=1e-2)
        for other in others
    )
