"""The torch engine: a transformers sequence-classification model on CPU, CUDA or MPS."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError, OutOfMemoryError, UnsupportedModelError
from rerank_plugins.scoring import engines
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.packed import (
    Attention,
    attention_by_row,
    attention_on_cuda,
    can_pack,
    packed_logits,
)

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

logger = logging.getLogger(__name__)

# How far the packed pass may be from the plain one on the rows of `_probe`: what rounding in
# each precision does to them.
_NEAR = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2}


class TorchEngine:
    """Holds the weights and runs forward passes.

    Models of the BERT and RoBERTa architectures go through `packed_logits` on a CPU, and on
    CUDA in half precision; others, and other devices, through transformers' own forward with
    torch's sdpa attention. What was chosen is in ``packed``. A short trial when the model is
    loaded compares the two, and keeps the plain one should they differ or the kernel fail.

    Args:
        folder: Local checkpoint folder.
        device: ``auto`` (CUDA, then MPS, then CPU) or a torch device name.
        precision: ``auto`` is fp16 on CUDA (the published models' own advice), bf16 on a CPU
            that has instructions for it, else fp32; never what the checkpoint happens to be
            stored in: transformers keeps an fp16 checkpoint in fp16 even on a CPU, where that
            is slow.
        trust_remote_code: Whether code in the checkpoint may run.
        allow_pickle_weights: Whether weights other than safetensors may be read.

    Raises:
        UnsupportedModelError: Weights are missing, damaged, or lack the scoring head.
    """

    name = "torch"

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        trust_remote_code: bool = False,
        allow_pickle_weights: bool = False,
    ) -> None:
        import torch

        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        model = load_model(
            folder,
            dtypes[self.precision],
            trust_remote_code=trust_remote_code,
            allow_pickle_weights=allow_pickle_weights,
        )
        try:
            self._model = model.to(self.device).eval()
        except (AssertionError, RuntimeError) as error:
            raise InvalidInputError(
                f"device must be one that this machine has, but {device!r} cannot be used: {error}"
            ) from error
        self._attention = self._tried(_attention(self._model, self.device, self.precision))

    @property
    def packed(self) -> bool:
        """Whether rows go without padding, and the last layer for first tokens alone."""
        return self._attention is not None

    def _tried(self, attention: Attention | None) -> Attention | None:
        """The attention, if the packed pass with it gives what the plain pass gives."""
        if attention is None:
            return None
        import torch

        probe = _probe(self._model.config)
        try:
            with torch.inference_mode():
                found = packed_logits(self._model, probe, attention).float()
                expected = self._plain(probe).float()
        except Exception as error:  # noqa: BLE001 - an old GPU, a torch without the kernel
            why = f"{type(error).__name__}: {error}"
        else:
            # Rounding grows with the logit, but logits of trained models are all within 10 or so.
            far = ((found - expected).abs() / (expected.abs() / 10).clamp(min=1.0)).max().item()
            if far <= _NEAR[self.precision]:
                return attention
            why = f"its logits are {far:.2g} off"
        logger.warning(
            "%s on %s in %s runs padded: the packed forward pass failed its trial (%s)",
            type(self._model).__name__,
            self.device,
            self.precision,
            why,
        )
        return None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self._model.parameters())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, labels), float32 whatever the weights are.

        Raises:
            OutOfMemoryError: The batch does not fit in the device's memory; a smaller may.
            UnsupportedModelError: An id in it is beyond the model's tables.
        """
        import torch

        try:
            with torch.inference_mode():
                if self._attention is None:
                    logits = self._plain(batch)
                else:
                    logits = packed_logits(self._model, batch, self._attention)
                return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)
        except IndexError as error:
            raise UnsupportedModelError(
                "the checkpoint's tokenizer gives tokens, types or positions that its model has "
                f"no weights for: {error}"
            ) from error
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            said = str(error)
        # Not within `except`, nor `from error`: its frames hold the tensors that fill the memory.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        rows, longest = batch.input_ids.shape
        raise OutOfMemoryError(
            f"a batch of {rows} x {longest} tokens does not fit in the memory of {self.device}: "
            f"{said}"
        )

    def _plain(self, batch: Batch) -> torch.Tensor:
        import torch

        def tensor(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(values).to(self.device)

        inputs: dict[str, Any] = {
            "input_ids": tensor(batch.input_ids),
            "attention_mask": tensor(batch.attention_mask),
        }
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = tensor(batch.token_type_ids)
        logits: torch.Tensor = self._model(**inputs).logits
        return logits


def load_model(
    folder: Path, dtype: torch.dtype, *, trust_remote_code: bool, allow_pickle_weights: bool
) -> Any:
    """The checkpoint's transformers model, on the CPU.

    Raises:
        UnsupportedModelError: Weights are missing, damaged, or lack the scoring head.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with _bars_on_a_terminal_only():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=None if allow_pickle_weights else True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"the checkpoint in {folder} could not be loaded as a sequence-classification "
            f"model: {error}"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UnsupportedModelError(
            f"the checkpoint in {folder} has no weights for {missing[:4]}: it is no "
            "trained cross-encoder (its scores would be random)"
        )
    return model


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    """Keeps transformers from drawing its loading bar into logs and pipes."""
    from transformers.utils import logging

    quiet = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if quiet:
            logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(
            f"device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', but got {name!r}"
        ) from error


def _precision(precision: Precision, device: torch.device) -> str:
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and engines.native_bf16() else "fp32"


def _attention(model: Any, device: torch.device, precision: str) -> Attention | None:
    """How a packed forward pass would attend here; None where there shall be none."""
    if not can_pack(model):
        return None
    if device.type == "cpu":
        return attention_by_row
    if device.type == "cuda" and precision != "fp32":
        return attention_on_cuda
    return None


def _probe(config: Any) -> Batch:
    """Three rows of 24, 9 and 2 tokens, with ids from all over the vocabulary."""
    mask = (np.arange(24) < np.array([[24], [9], [2]])).astype(np.int64)
    ids = np.linspace(0, config.vocab_size - 1, mask.size, dtype=np.int64).reshape(mask.shape)
    types = (np.arange(24) > 6).astype(np.int64) % config.type_vocab_size
    return Batch(ids, mask, np.broadcast_to(types, mask.shape).copy())


def _out_of_memory(error: Exception) -> bool:
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
