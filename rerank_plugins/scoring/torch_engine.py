"""The torch engine: a transformers sequence-classification model on CPU, CUDA or MPS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring.encoding import Batch

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class TorchEngine:
    """Holds the weights and runs forward passes.

    Args:
        folder: Local checkpoint folder.
        device: ``auto`` (CUDA, then MPS, then CPU) or a torch device name.
        precision: ``auto`` is fp32 on CPU and MPS, fp16 on CUDA (the published models' own
            advice); never what the checkpoint happens to be stored in: transformers keeps an
            fp16 checkpoint in fp16 even on a CPU, where that is slow.
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

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self._model.parameters())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, labels), float32 whatever the weights are."""
        import torch

        def tensor(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(values).to(self.device)

        inputs: dict[str, Any] = {
            "input_ids": tensor(batch.input_ids),
            "attention_mask": tensor(batch.attention_mask),
        }
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = tensor(batch.token_type_ids)
        with torch.inference_mode():
            output = self._model(**inputs).logits.float().cpu().numpy()
        return np.asarray(output, dtype=np.float32)


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
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return precision
