"""The sentence-transformers engine: any ``CrossEncoder``, by the library's own code.

Texts go through the model's own ``preprocess`` and rows through its own chain of modules, so
prompts, chat templates, Dense heads, adapters and whatever else a checkpoint asks for are what
they are in ``CrossEncoder.predict``. Batches are this package's: by token budget, sorted by
length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import (
    MissingDependencyError,
    RerankPluginsError,
    UnsupportedModelError,
)
from rerank_plugins.scoring.checkpoint import Checkpoint, positions_before_the_first
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.engines import PROVED_ON_TORCH
from rerank_plugins.scoring.forward import forward_on
from rerank_plugins.scoring.padding import a_length_at_a_time, depends_on_padding
from rerank_plugins.scoring.text_pairs import Pair, Rows, TextPairEncoder
from rerank_plugins.scoring.torch_engine import (
    Precision,
    bars_on_a_terminal_only,
    torch_device,
    torch_dtype,
    torch_precision,
)
from rerank_plugins.scoring.weights_read import check_weights, refuse_pickled_modules

if TYPE_CHECKING:
    import torch

    from rerank_plugins.scoring.causal_engine import Prefixes

# What a row is made of; everything else that preprocess gives must be one for all rows.
_ROW = ("input_ids", "attention_mask", "token_type_ids")
_UNCUT = {"truncation": False}
# A call pads to its longest text.
_TEXTS_AT_A_TIME = 32
# Of different lengths, to see whether scores depend on padding.
_UNLIKE = [("a", "a"), ("a", "a " * 24), ("a a", "a " * 9)]


class SentenceTransformersEngine:
    """Runs the module chain of a ``CrossEncoder``.

    Args:
        model: The model, on its device.
        constants: What ``preprocess`` gives beside the rows' arrays, the same for all rows.
        precision: Of the weights: ``fp32``, ``bf16`` or ``fp16``.
    """

    name = "sentence-transformers"
    packed = False

    def __init__(self, model: Any, constants: dict[str, Any], *, precision: str) -> None:
        self.model = model.eval()
        self.device = model.device
        self.precision = precision
        self._constants = constants
        config = model.config
        # Without padding, whatever the trial says: rows need as many end tokens, too.
        self._end_id: int | None = None
        self._unpadded = bool(getattr(config, "is_encoder_decoder", False))
        if self._unpadded:
            self._end_id = config.eos_token_id

    def try_padding(self, encoder: SentenceTransformersEncoder) -> None:
        """Finds out whether scores depend on padding; if so, rows go a length at a time.

        Of FNet, ConvBERT and XLNet they do: what they compute reaches into the padding.
        """
        known = getattr(self.model.config, "model_type", None) in PROVED_ON_TORCH
        if not (self._unpadded or known or type(self.model[-1]).__name__ == "LogitScore"):
            batch = encoder.pad(encoder.encode(_UNLIKE), np.arange(len(_UNLIKE)))
            self._unpadded = depends_on_padding(self._forward, batch, self.precision)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, labels), float32, before any activation function.

        Raises:
            OutOfMemoryError: If the batch does not fit in the device's memory; a smaller may.
        """
        if self._unpadded:
            return a_length_at_a_time(self._forward, batch, self._end_id)
        return self._forward(batch)

    def _forward(self, batch: Batch) -> NDArray[np.float32]:
        import torch

        def forward() -> torch.Tensor:
            arrays = {name: getattr(batch, name) for name in _ROW}
            features = {
                name: torch.from_numpy(values).to(self.device)
                for name, values in arrays.items()
                if values is not None
            }
            scores: torch.Tensor = self.model({**features, **self._constants})["scores"]
            return scores.reshape(len(batch.input_ids), -1)

        return forward_on(self.device, batch.input_ids.shape, forward)


class SentenceTransformersEncoder(TextPairEncoder):
    """Rows by the model's own ``preprocess``; ``truncate`` cuts as ``predict`` does.

    ``predict`` cuts the longer of the two texts first (``longest_first``), the query too where
    it is the longer one; windows cap the query and leave it whole in each.

    Args:
        model: A ``CrossEncoder``.
        prompt: In front of the query, or the chat template's system message; "" for none.
        max_length: Tokens per pair; None for the model's own limit.
        window_tokens: Passage tokens per window; None for as many as fit.
        prefixes: Where the common beginning of a query's rows is noted; None for nowhere.
    """

    def __init__(
        self,
        model: Any,
        *,
        prompt: str = "",
        max_length: int | None = None,
        window_tokens: int | None = None,
        prefixes: Prefixes | None = None,
    ) -> None:
        self._model = model
        self._prompt = prompt or None
        self._saved: dict[str, Any] = getattr(model[0], "processing_kwargs", {})
        limit = self._limit()
        with _explained("encode a pair"):
            super().__init__(
                model.tokenizer,
                max_length=limit if max_length is None else min(limit, max_length),
                window_tokens=window_tokens,
                prefixes=prefixes,
            )

    def constants(self) -> dict[str, Any]:
        """What ``preprocess`` gives beside the arrays of the rows.

        Raises:
            UnsupportedModelError: If an array that is not known here is among it.
        """
        with self._lock, _explained("encode a pair"):
            features = self._model.preprocess([("a", "a")], prompt=self._prompt)
        rest = {name: value for name, value in features.items() if name not in _ROW}
        if arrays := sorted(name for name, value in rest.items() if hasattr(value, "shape")):
            raise UnsupportedModelError(
                f"the checkpoint's tokenizer gives {arrays}, which cannot be batched here"
            )
        return rest

    def _limit(self) -> int:
        """The length that ``preprocess`` cuts at."""
        for bucket in ("chat_template", "common", "text"):
            if (stated := self._saved.get(bucket, {}).get("max_length")) is not None:
                return int(stated)
        limits = [int(self._model.max_seq_length or 1 << 30)]
        config = self._model.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and positions > 0:
            limits.append(int(positions) - positions_before_the_first(config))
        return min(limits)

    def _rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        return self._preprocessed(pairs, _UNCUT)

    def _cut_rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        return self._preprocessed(pairs, {"max_length": self.max_length})

    def _preprocessed(
        self, pairs: Sequence[Pair], settings: dict[str, Any]
    ) -> tuple[Rows, Rows | None]:
        # Saved settings of the other two buckets win over those of the first.
        overrides: dict[str, Any] = {"text": settings}
        for bucket in ("common", "chat_template"):
            if known := settings.keys() & self._saved.get(bucket, {}).keys():
                overrides[bucket] = {name: settings[name] for name in known}
        rows: Rows = []
        types: Rows = []
        if not pairs:
            return rows, None
        for start in range(0, len(pairs), _TEXTS_AT_A_TIME):
            some = list(pairs[start : start + _TEXTS_AT_A_TIME])
            with self._lock:
                features = self._model.preprocess(
                    some, prompt=self._prompt, processing_kwargs=overrides
                )
            real = features["attention_mask"].bool()
            rows += _unpadded(features["input_ids"], real)
            if "token_type_ids" in features:
                types += _unpadded(features["token_type_ids"], real)
        return rows, types or None


def _unpadded(values: torch.Tensor, real: torch.Tensor) -> Rows:
    return [row[mask].tolist() for row, mask in zip(values, real, strict=True)]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns whatever the library raises into an error that says what was tried."""
    try:
        yield
    except RerankPluginsError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"sentence-transformers could not {what} with this checkpoint: {error}"
        ) from error


def load_cross_encoder(
    checkpoint: Checkpoint,
    *,
    device: str,
    precision: Precision,
    trust_remote_code: bool,
    allow_pickle_weights: bool,
) -> tuple[Any, Checkpoint, SentenceTransformersEngine]:
    """A checkpoint's ``CrossEncoder``, what it says of itself once loaded, and its engine.

    Args:
        checkpoint: What its files say.
        device: ``auto`` or a torch device name.
        precision: Same as in `TorchEngine`.
        trust_remote_code: Whether code in the checkpoint may run.
        allow_pickle_weights: Whether weights other than safetensors may be read.

    Raises:
        MissingDependencyError: If it has a PEFT adapter, and peft is not installed.
        UnsupportedModelError: sentence-transformers cannot load it, or weights are missing.
    """
    from sentence_transformers import CrossEncoder

    folder = checkpoint.folder
    where = torch_device(device)
    settled = torch_precision(precision, where)
    weights = {} if allow_pickle_weights else {"use_safetensors": True}
    if not allow_pickle_weights:
        refuse_pickled_modules(folder)
    try:
        with bars_on_a_terminal_only(), _explained("load a CrossEncoder"):
            model = CrossEncoder(
                str(folder),
                device=str(where),
                model_kwargs={"dtype": torch_dtype(settled), **weights},
                trust_remote_code=trust_remote_code,
                local_files_only=True,
            )
    except UnsupportedModelError as error:
        if isinstance(error.__cause__, ImportError) and "peft" in str(error.__cause__).lower():
            raise MissingDependencyError(
                f"the checkpoint in {folder} is a PEFT adapter: pip install peft"
            ) from error
        raise
    check_weights(model, folder)
    if type(model[-1]).__name__ != "LogitScore" and model.tokenizer is not None:
        # On the left, padding moves the token that an encoder's head reads, and a score would
        # depend on its batch. Decoders' heads find the last real token on either side.
        model.tokenizer.padding_side = "right"
    encoder = SentenceTransformersEncoder(model, prompt=checkpoint.saved.prompt)
    engine = SentenceTransformersEngine(model, encoder.constants(), precision=settled)
    engine.try_padding(encoder)
    return model, told_by(model, checkpoint, encoder.max_length), engine


def encoders_of(
    model: Any, checkpoint: Checkpoint, prefixes: Prefixes | None = None
) -> Callable[[int | None, str | None], SentenceTransformersEncoder]:
    """What makes encoders of a ``CrossEncoder``, for a length and an instruction."""

    def encoder(max_length: int | None, instruction: str | None) -> SentenceTransformersEncoder:
        return SentenceTransformersEncoder(
            model,
            prompt=checkpoint.saved.prompt if instruction is None else instruction,
            max_length=max_length,
            window_tokens=checkpoint.window_tokens,
            prefixes=prefixes,
        )

    return encoder


def told_by(model: Any, checkpoint: Checkpoint, max_length: int) -> Checkpoint:
    """The checkpoint with what only the loaded model tells: labels, activation, length.

    Raises:
        UnsupportedModelError: If it has more than two labels.
    """
    labels = int(model.num_labels)
    if labels not in (1, 2):
        raise UnsupportedModelError(
            f"a cross-encoder has one label or two, but the checkpoint in {checkpoint.folder} "
            f"has {labels}"
        )
    stated = checkpoint.saved.activation
    return replace(
        checkpoint,
        labels=labels,
        relevant=checkpoint.relevant if labels == 2 else 0,
        activation=stated or ("sigmoid" if labels == 1 else "softmax"),
        architecture=str(getattr(model.config, "model_type", checkpoint.architecture)),
        max_length=min(max_length, checkpoint.max_length),
    )
