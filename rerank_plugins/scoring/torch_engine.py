"""The torch engine: a transformers sequence-classification model on CPU, CUDA or MPS."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from rerank_plugins._cpus import limit_threads
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring import engines
from rerank_plugins.scoring.attention import Attention, attention_by_row, attention_on_cuda
from rerank_plugins.scoring.blocks import has_blocks
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.forward import forward_on
from rerank_plugins.scoring.int8_layers import quantize_layers
from rerank_plugins.scoring.linear import check_int8
from rerank_plugins.scoring.packed import PackedClassifier, against_packing
from rerank_plugins.scoring.padding import a_length_at_a_time, depends_on_padding
from rerank_plugins.scoring.weights import read_tensors

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

logger = logging.getLogger(__name__)

# How far the packed pass on CUDA may be from the plain one on the rows of `_probe`: what
# rounding in half precision does to them.
_NEAR = 0.2


class TorchEngine:
    """Holds the weights and runs forward passes.

    Models of the BERT and RoBERTa architectures go through `PackedClassifier` on a CPU, and
    on CUDA in half precision, without transformers, which takes seconds to import; others,
    and other devices, through transformers' own forward with torch's sdpa attention. What was
    chosen is in ``packed``. On CUDA a short trial compares the kernel for rows of different
    lengths with plain attention, and leaves packing should they differ or the kernel fail.

    Args:
        folder: Local checkpoint folder.
        device: ``auto`` (CUDA, then MPS, then CPU) or a torch device name.
        precision: ``auto`` is fp16 on CUDA (the published models' own advice), bf16 on a CPU
            that has instructions for it, else fp32; never what the checkpoint happens to be
            stored in: transformers keeps an fp16 checkpoint in fp16 even on a CPU, where that
            is slow. ``int8`` is for CPUs: weights and activations of the layers' linear parts,
            each token with a separate range; embeddings, attention, norms and the scoring head
            stay fp32.
        trust_remote_code: Whether code in the checkpoint may run.
        allow_pickle_weights: Whether weights other than safetensors may be read.

    Raises:
        InvalidInputError: If the machine does not have the device, or cannot compute in int8.
        UnsupportedModelError: Weights are missing, damaged, or lack the scoring head; or the
            model has no linear layers to compute in int8.
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
        self.device = torch_device(device)
        self.precision = torch_precision(precision, self.device)
        self._dtype = torch_dtype(self.precision)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # What was measured: of int8, its ``agreement`` with fp32.
        self.facts: dict[str, Any] = {}
        self._model: Any = None
        self._unpadded, self._end_id = bool(config.get("is_encoder_decoder")), None
        self._packed, against = None, _against(config, self.device, self.precision)
        if against is None and not (trust_remote_code and "auto_map" in config):
            self._attention: Attention = attention_by_row
            try:
                self._packed = self._read_packed(folder, config)
            except (KeyError, OSError, ValueError, SafetensorError) as error:
                # Transformers reads more than we do, and says better what is wrong.
                against = f"{type(error).__name__}: {error}"
            except (AssertionError, RuntimeError) as error:
                raise _no_such_device(device, error) from error
        if self._packed is not None:
            return
        model = load_model(
            folder,
            self._dtype,
            trust_remote_code=trust_remote_code,
            allow_pickle_weights=allow_pickle_weights,
        )
        self._weights = sum(weight.numel() for weight in model.parameters())
        if self.precision == "int8" and not quantize_layers(model):
            raise UnsupportedModelError(
                f"int8 is for linear layers, but the checkpoint in {folder} has none: use "
                "precision='fp32' or 'auto'"
            )
        try:
            self._model = model.to(self.device).eval()
        except (AssertionError, RuntimeError) as error:
            raise _no_such_device(device, error) from error
        if self._unpadded:
            self._end_id = config.get("eos_token_id")
        elif config.get("model_type") not in engines.PROVED_ON_TORCH:
            probe = _probe(config)
            ids, mask = probe.input_ids[:2], probe.attention_mask[:2]
            rows = Batch(np.where(mask == 1, ids, config.get("pad_token_id") or 0), mask, None)
            self._unpadded = depends_on_padding(self._forward, rows, self.precision)

    @property
    def packed(self) -> bool:
        """Whether rows go without padding, and the last layer for first tokens alone."""
        return self._packed is not None

    def _read_packed(self, folder: Path, config: dict[str, Any]) -> PackedClassifier | None:
        """The packed model; None where its kernel for CUDA does not give what it should."""
        import torch

        with torch.inference_mode():
            packed = PackedClassifier(
                config,
                read_tensors(folder),
                dtype=self._dtype,
                device=self.device,
                int8=self.precision == "int8",
            )
            if self.device.type == "cpu":
                return packed
            why = _objection(packed, attention_on_cuda, _probe(config))
        if why is None:
            self._attention = attention_on_cuda
            return packed
        logger.warning(
            "%s on %s in %s runs padded: the packed forward pass failed its trial (%s)",
            folder,
            self.device,
            self.precision,
            why,
        )
        return None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self._weights) if self._packed is None else self._packed.parameters

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, labels), float32 whatever the weights are.

        Raises:
            OutOfMemoryError: If the batch does not fit in the device's memory; a smaller may.
            UnsupportedModelError: If an id in it is beyond the model's tables.
        """
        if self._unpadded:
            return a_length_at_a_time(self._forward, batch, self._end_id)
        return self._forward(batch)

    def _forward(self, batch: Batch) -> NDArray[np.float32]:
        packed = self._packed
        return forward_on(
            self.device,
            batch.input_ids.shape,
            lambda: self._plain(batch) if packed is None else packed.logits(batch, self._attention),
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

    if has_blocks(folder):
        return _model_of_blocks(folder, dtype)
    with loading(folder, "a sequence-classification model"):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=None if allow_pickle_weights else True,
            local_files_only=True,
            output_loading_info=True,
        )
    check_complete(folder, report["missing_keys"])
    return model


@contextmanager
def loading(folder: Path, kind: str) -> Iterator[None]:
    """Whatever transformers raises becomes an error that names the checkpoint.

    Args:
        folder: The checkpoint's.
        kind: What it is loaded as.

    Raises:
        UnsupportedModelError: If anything was raised inside.
    """
    try:
        with bars_on_a_terminal_only():
            yield
    except Exception as error:
        raise UnsupportedModelError(
            f"the checkpoint in {folder} could not be loaded as {kind}: {error}"
        ) from error


def check_complete(folder: Path, missing: Iterable[str]) -> None:
    """Refuses a model of which some weights were made up, as they are for a missing head.

    Raises:
        UnsupportedModelError: If weights are missing.
    """
    if named := sorted(missing)[:4]:
        raise UnsupportedModelError(
            f"the checkpoint in {folder} has no weights for {named}: it is not a trained "
            "cross-encoder (its scores would be random)"
        )


def _model_of_blocks(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    try:
        model.load_state_dict(read_tensors(folder))
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"weights and config.json in {folder} do not fit together: {error}"
        ) from error
    return model.to(dtype)


@contextmanager
def bars_on_a_terminal_only() -> Iterator[None]:
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


def torch_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA, then MPS, then the CPU."""
    import torch

    limit_threads(torch, "get_num_threads", "set_num_threads")
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


def torch_precision(precision: Precision, device: torch.device) -> str:
    """The precision, ``auto`` settled by the device."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and engines.native_bf16() else "fp32"


def torch_dtype(precision: str) -> torch.dtype:
    """Torch's dtype of the weights; what int8 quantizes is read in fp32."""
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return dtypes.get(precision, torch.float32)


def _against(config: dict[str, Any], device: torch.device, precision: str) -> str | None:
    """Why the packed pass cannot be used; None if it can."""
    if precision == "int8" and device.type != "cpu":
        raise InvalidInputError(f"precision='int8' runs on the CPU, but device is {device}")
    if precision == "int8":
        check_int8()
    if device.type == "cpu" or (device.type == "cuda" and precision != "fp32"):
        return against_packing(config)
    return f"the device is {device.type}"


def _no_such_device(device: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"device must be one that this machine has, but {device!r} cannot be used: {error}"
    )


def _objection(packed: PackedClassifier, attention: Attention, probe: Batch) -> str | None:
    """What speaks against an attention kernel; None when it gives what it should."""
    expected = packed.logits(probe, attention_by_row).float()
    try:
        found = packed.logits(probe, attention).float()
    except Exception as error:  # noqa: BLE001 - an old GPU, a torch without the kernel
        return f"{type(error).__name__}: {error}"
    # Rounding grows with the logit; those of trained models are within 10 or so.
    far = ((found - expected).abs() / (expected.abs() / 10).clamp(min=1.0)).max().item()
    return None if far <= _NEAR else f"its logits are {far:.2g} off"


def _probe(config: dict[str, Any]) -> Batch:
    """Three rows of 24, 9 and 2 tokens, with ids from all over the vocabulary."""
    mask = (np.arange(24) < np.array([[24], [9], [2]])).astype(np.int64)
    ids = np.linspace(0, config["vocab_size"] - 1, mask.size, dtype=np.int64).reshape(mask.shape)
    types = (np.arange(24) > 6).astype(np.int64) % config.get("type_vocab_size", 2)
    return Batch(ids, mask, np.broadcast_to(types, mask.shape).copy())
