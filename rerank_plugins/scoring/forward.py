"""One forward pass on a device: float32 out, and what fails said in this package's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import OutOfMemoryError, UnsupportedModelError

if TYPE_CHECKING:
    import torch


def forward_on(
    device: torch.device, shape: tuple[int, ...], forward: Callable[[], torch.Tensor]
) -> NDArray[np.float32]:
    """What the pass gives, as float32 whatever the weights are.

    Args:
        device: Where it runs.
        shape: Rows and tokens of the batch, for the message.
        forward: The pass; called once, without gradients.

    Raises:
        OutOfMemoryError: If the batch does not fit in the device's memory; a smaller may.
        UnsupportedModelError: If an id in it is beyond the model's tables.
    """
    import torch

    try:
        with torch.inference_mode():
            return np.asarray(forward().float().cpu().numpy(), dtype=np.float32)
    except IndexError as error:
        raise UnsupportedModelError(
            "the checkpoint's tokenizer gives tokens, types or positions that its model has "
            f"no weights for: {error}"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        said = str(error)
    # Not within `except`, nor `from error`: its frames hold the tensors that fill the memory.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    rows, longest = shape
    raise OutOfMemoryError(
        f"a batch of {rows} x {longest} tokens does not fit in the memory of {device}: {said}"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left: CUDA, MPS, or torch's CPU allocator, by its words."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    said = str(error)
    return any(
        words in said
        for words in (
            "can't allocate memory",
            "not enough memory: you tried to allocate",
            "out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        )
    )
