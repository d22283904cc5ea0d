"""The OpenVINO engine: a checkpoint converted once, kept on disk, run on the CPU.

The model is exported by ``torch.export`` with both dimensions dynamic, so that one compiled
model takes every batch and every length. Where the architecture allows it (see
`packed.against_packing`) the last layer is computed for each row's first token alone: the scoring
head reads no other. Each conversion is compared with the original before it is kept.
"""

from __future__ import annotations

import logging
import time
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring import converted
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.engines import native_bf16
from rerank_plugins.scoring.openvino_compiled import (
    CompiledModel,
    openvino_library,
    without_telemetry,
)
from rerank_plugins.scoring.packed import against_packing
from rerank_plugins.scoring.torch_engine import load_model

if TYPE_CHECKING:
    import openvino
    import torch

logger = logging.getLogger(__name__)

# What the parity tests demand of fp32 scores, relative where logits are large.
_TOLERANCE = 1e-4


class OpenVINOEngine:
    """A compiled model. Many threads may call it; it runs one forward pass at a time.

    Args:
        model: What OpenVINO read or converted.
        precision: ``fp32``, ``bf16``, or ``int8`` for a model that is quantized.
        facts: What is known of the model: the number of ``parameters``, and for int8 the
            ``agreement`` with fp32.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, model: openvino.Model, *, precision: str, facts: dict[str, Any]) -> None:
        self.precision = precision
        self.facts = facts
        # The parts of an int8 model that are not quantized run in bf16 where that is native.
        coarse = precision == "bf16" or (precision == "int8" and native_bf16())
        self._compiled = CompiledModel(lambda: model, bf16=coarse)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        precision: str,
        trust_remote_code: bool = False,
        allow_pickle_weights: bool = False,
    ) -> OpenVINOEngine:
        """The engine of a checkpoint in ``fp32`` or ``bf16``; both run the same kept model.

        Raises:
            UnsupportedModelError: Weights are missing or damaged, or cannot be converted.
        """
        model, facts = fp32_model(
            checkpoint,
            trust_remote_code=trust_remote_code,
            allow_pickle_weights=allow_pickle_weights,
        )
        return cls(model, precision=precision, facts=facts)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.facts["parameters"])

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, labels), float32 whatever the weights are.

        Raises:
            OutOfMemoryError: If the batch does not fit in memory; a smaller may.
        """
        return self._compiled.infer(inputs_of(batch))


def inputs_of(batch: Batch) -> dict[str, NDArray[np.int64]]:
    """The model's inputs by name."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs


def fp32_model(
    checkpoint: Checkpoint, *, trust_remote_code: bool, allow_pickle_weights: bool
) -> tuple[openvino.Model, dict[str, Any]]:
    """The converted model and its facts: the kept one, or a new one, which is then kept.

    Raises:
        UnsupportedModelError: Weights are missing or damaged, or cannot be converted.
    """
    import torch

    library = openvino_library()
    key = converted.key_of(
        checkpoint.fingerprint(),
        precision="fp32",
        versions={name: version(name) for name in ("openvino", "torch", "transformers")},
    )
    places = converted.places(checkpoint.folder)
    found = converted.find(places, key)
    if found is not None:
        return library.Core().read_model(found.model), found.facts
    logger.info("converting the checkpoint in %s for OpenVINO, once", checkpoint.folder)
    start = time.perf_counter()
    model = load_model(
        checkpoint.folder,
        torch.float32,
        trust_remote_code=trust_remote_code,
        allow_pickle_weights=allow_pickle_weights,
    ).eval()
    facts = {"parameters": sum(weight.numel() for weight in model.parameters())}
    result = _convert(model, checkpoint)
    kept = converted.keep(
        places, key, lambda file: library.save_model(result, file, compress_to_fp16=False), facts
    )
    seconds = time.perf_counter() - start
    if kept is None:
        logger.warning(
            "the checkpoint in %s was converted for OpenVINO in %.1f s, which each process will "
            "do again: none of %s can be written to",
            checkpoint.folder,
            seconds,
            [str(place) for place in places],
        )
        return result, facts
    logger.info("converted in %.1f s and kept in %s", seconds, kept.folder)
    return library.Core().read_model(kept.model), facts


def _convert(model: Any, checkpoint: Checkpoint) -> openvino.Model:
    """The first conversion that gives the model's own logits."""
    import torch

    example = _example(model, checkpoint)
    whole, first_token_only = _modules(model)
    with torch.inference_mode():
        expected = whole(**_tensors(example)).numpy()
    problems = []
    for module in [first_token_only, whole] if _first_token_suffices(model) else [whole]:
        result, problem = _tried(module, example, expected, checkpoint.max_length)
        if result is not None:
            return result
        logger.info("a way to convert %s failed: %s", checkpoint.folder, problem)
        problems.append(problem)
    raise UnsupportedModelError(
        f"the checkpoint in {checkpoint.folder} cannot be converted for OpenVINO; use "
        f"engine='torch'. What failed: {'; '.join(problems)}"
    )


def _first_token_suffices(model: Any) -> bool:
    # By its module: a checkpoint's own code may differ from what its config says.
    of_transformers = type(model).__module__.partition(".")[0] == "transformers"
    return of_transformers and against_packing(model.config.to_dict()) is None


def _tried(
    module: torch.nn.Module, example: Batch, expected: NDArray[np.float32], max_length: int
) -> tuple[openvino.Model | None, str]:
    """The converted module, or why it is of no use."""
    try:
        model = _export(module, example, max_length)
        found = OpenVINOEngine(model, precision="fp32", facts={}).logits(example)
    except Exception as error:  # noqa: BLE001 - torch and OpenVINO raise of every kind
        return None, f"{type(error).__name__}: {error}"
    if np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        return model, ""
    return None, f"logits differ from the original's by {np.abs(found - expected).max():.2g}"


def _modules(model: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The whole model as it is, and with its last layer computed for first tokens alone."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            logits: torch.Tensor = self.model(
                input_ids=input_ids, attention_mask=attention_mask, **types
            ).logits
            return logits

    class FirstTokenOnly(Whole):
        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            body = self.model.base_model
            hidden = body.embeddings(input_ids, token_type_ids=token_type_ids)
            mask = attention_mask[:, None, None, :].bool()
            *layers, last = body.encoder.layer
            for layer in layers:
                hidden = self.layer(layer, hidden, hidden, mask)
            first = self.layer(last, hidden[:, :1], hidden, mask)
            pooled = first if body.pooler is None else body.pooler(first)
            logits: torch.Tensor = self.model.classifier(pooled)
            return logits

        @staticmethod
        def layer(
            layer: Any, asking: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor
        ) -> torch.Tensor:
            own = layer.attention.self
            query, key, value = (
                part.unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)
                for part in (own.query(asking), own.key(hidden), own.value(hidden))
            )
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            attended = layer.attention.output(mixed.transpose(1, 2).flatten(2), asking)
            result: torch.Tensor = layer.output(layer.intermediate(attended), attended)
            return result

    return Whole(), FirstTokenOnly()


def _export(module: torch.nn.Module, example: Batch, max_length: int) -> openvino.Model:
    import torch

    inputs = _tensors(example)
    # More rows than any batch has: a batch of one-token rows is bounded by its token budget.
    sizes = {0: torch.export.Dim("rows", max=1 << 20), 1: torch.export.Dim("width", max=max_length)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code, of no use to a user
        program = torch.export.export(
            module, (), inputs, dynamic_shapes=dict.fromkeys(inputs, sizes)
        )
        with without_telemetry():
            import openvino

            return openvino.convert_model(program)


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(values) for name, values in inputs_of(batch).items()}


def _example(model: Any, checkpoint: Checkpoint) -> Batch:
    """Three rows of any tokens, one of them short."""
    rng = np.random.default_rng(0)
    width = min(24, checkpoint.max_length)
    ids = rng.integers(0, model.config.vocab_size, (3, width))
    mask = np.ones_like(ids)
    ids[1, width // 2 :] = checkpoint.pad_id
    mask[1, width // 2 :] = 0
    types = (np.arange(width) > width // 3).astype(np.int64) * mask
    return Batch(ids, mask, types if checkpoint.with_types else None)
