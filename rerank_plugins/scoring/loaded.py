"""One set of weights on this machine: read, put on an engine, shared by all who ask for it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock, lock_without_forks
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring import hub
from rerank_plugins.scoring.batching import TokenLimit
from rerank_plugins.scoring.causal_engine import CausalEngine
from rerank_plugins.scoring.causal_forms import EncoderMaker, checked_instruction, with_form
from rerank_plugins.scoring.causal_loading import load_causal
from rerank_plugins.scoring.checkpoint import (
    Checkpoint,
    checked_max_length,
    read_checkpoint,
)
from rerank_plugins.scoring.encoding import Batch, PairEncoder
from rerank_plugins.scoring.engines import Choice, EngineName, Precision, check_engine, choose
from rerank_plugins.scoring.lightweight import Lightweight
from rerank_plugins.scoring.lightweight_engine import LightweightEngine
from rerank_plugins.scoring.openvino_engine import OpenVINOEngine
from rerank_plugins.scoring.sentence_transformers_engine import (
    SentenceTransformersEngine,
    encoders_of,
    load_cross_encoder,
)
from rerank_plugins.scoring.sharing import SharedPass
from rerank_plugins.scoring.text_pairs import TextPairEncoder
from rerank_plugins.scoring.token_cache import TokenCache
from rerank_plugins.scoring.torch_engine import TorchEngine

logger = logging.getLogger(__name__)

Encoder = PairEncoder | TextPairEncoder
Engine = (
    TorchEngine | OpenVINOEngine | SentenceTransformersEngine | CausalEngine | LightweightEngine
)


class Int8Maker(Protocol):
    """Makes the int8 engine of a checkpoint: `rerank_plugins.scoring.quantization.int8_engine`.

    That measures the engine by a scorer of the checkpoint, and so knows this module.
    """

    def __call__(
        self, settings: ModelSettings, checkpoint: Checkpoint, engine: str
    ) -> TorchEngine | OpenVINOEngine:
        """The engine of that name, with its agreement."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Everything that decides which weights are loaded, and how.

    Attributes:
        name: What the user asked for; shown in rankings. Two names of one source are equal.
        source: Local folder, or name of a Hugging Face repository.
        device: ``auto`` or a torch device name.
        engine: ``auto``, ``torch``, ``openvino`` or ``sentence-transformers``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        revision: Commit, tag or branch on the Hub.
        cache_folder: Where downloads are kept; None for the Hub client's own place.
        local_files_only: Never ask the network.
        trust_remote_code: Whether code in the checkpoint may run.
        allow_pickle_weights: Whether weights other than safetensors may be read.
        form: How pairs are put to a causal language model, in place of what it says itself.
        known_form: The same for a checkpoint that says nothing: the catalogue's.
        make_int8: Makes the engine of ``precision="int8"``.
    """

    name: str = field(compare=False)
    source: str
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "auto"
    revision: str | None = None
    cache_folder: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    allow_pickle_weights: bool = False
    form: str | Lightweight | None = None
    known_form: str | None = None
    make_int8: Int8Maker | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_engine(self.engine, self.precision, self.device)


def checkpoint_of(settings: ModelSettings) -> Checkpoint:
    """What the checkpoint says of itself; fetched if it is not on this machine.

    Raises:
        UnsupportedModelError: If the checkpoint is damaged, or asks for what is not supported.
    """
    return _read(settings, _folder(settings))


def _folder(settings: ModelSettings) -> Path:
    folder = Path(settings.source)
    if not folder.is_dir() and not folder.is_absolute():
        folder = hub.fetch(
            settings.source,
            revision=settings.revision,
            cache_folder=settings.cache_folder,
            local_files_only=settings.local_files_only,
            trust_remote_code=settings.trust_remote_code,
            allow_pickle_weights=settings.allow_pickle_weights,
        )
    return folder


def _read(settings: ModelSettings, folder: Path) -> Checkpoint:
    return with_form(
        read_checkpoint(folder, trust_remote_code=settings.trust_remote_code),
        settings.form,
        settings.known_form,
    )


class LoadedModel:
    """One set of weights; a forward pass at a time, since more would only fight for cores.

    Args:
        settings: Which checkpoint, and how to load it.
        engine: What runs it, in place of what the settings choose.
    """

    def __init__(
        self, settings: ModelSettings, engine: TorchEngine | OpenVINOEngine | None = None
    ) -> None:
        # What makes encoders, where pairs are not two texts with special tokens around them.
        self._encoders: EncoderMaker | None = None
        folder = _folder(settings)  # a download, which no fork waits for
        with lock_without_forks():
            self.checkpoint: Checkpoint = _read(settings, folder)
            self.choice = choose(
                settings.engine,
                settings.precision,
                settings.device,
                self.checkpoint,
                remote_code=settings.trust_remote_code,
            )
            self.engine = engine or self._engine(settings)
        logger.info(
            "%s runs on engine %s, device %s, precision %s (%s)",
            settings.name,
            self.engine.name,
            self.engine.device,
            self.engine.precision,
            self.choice.reason,
        )
        self._share()

    def _share(self) -> None:
        """What all scorers of these weights have in common."""
        self.warm = False
        # Forward passes, and texts already tokenized.
        self.shared = SharedPass(
            # No cycle: weights go with the last user.
            partial(_logits, self.engine, self.checkpoint, lock_without_forks()),
            TokenLimit(),
        )
        self.tokens = TokenCache()

    @property
    def on_cpu(self) -> bool:
        """Whether the processor computes."""
        return str(self.engine.device).lower() == "cpu"

    def encoder(self, max_length: int | None, instruction: str | None = None) -> Encoder:
        """What makes rows of pairs for this model.

        Raises:
            InvalidInputError: If more tokens are wanted than the model can take, or an instruction
                where it takes none.
        """
        checkpoint = self.checkpoint
        length = checked_max_length(checkpoint, max_length)
        instruction = checked_instruction(checkpoint, instruction)
        if self._encoders is not None:
            return self._encoders(length, instruction)
        return PairEncoder(
            checkpoint.pair_tokenizer,
            max_length=length,
            window_tokens=checkpoint.window_tokens,
            pad_id=checkpoint.pad_id,
            with_types=checkpoint.with_types,
            cache=self.tokens,
            prompt=checkpoint.saved.prompt if instruction is None else instruction,
        )

    def _engine(self, settings: ModelSettings) -> Engine:
        permissions = {
            "trust_remote_code": settings.trust_remote_code,
            "allow_pickle_weights": settings.allow_pickle_weights,
        }
        if self.choice.precision == "int8":
            if settings.make_int8 is None:
                raise UnsupportedModelError(
                    "these settings do not say how an int8 model is made: use load_scorer()"
                )
            return settings.make_int8(settings, self.checkpoint, self.choice.engine)
        if self.choice.engine == "openvino":
            try:
                return OpenVINOEngine.load(
                    self.checkpoint, precision=self.choice.precision, **permissions
                )
            except UnsupportedModelError as error:
                if settings.engine == "openvino":
                    raise
                self.choice = Choice("torch", settings.precision, f"OpenVINO failed: {error}")
        if self.choice.engine == "sentence-transformers":
            model, self.checkpoint, engine = load_cross_encoder(
                self.checkpoint,
                device=settings.device,
                precision=self.choice.precision,
                **permissions,
            )
            self._encoders = encoders_of(model, self.checkpoint)
            return engine
        if self.checkpoint.saved.causal:
            self.checkpoint, causal, self._encoders = load_causal(
                self.checkpoint,
                device=settings.device,
                precision=self.choice.precision,
                **permissions,
            )
            return causal
        return TorchEngine(
            self.checkpoint.folder,
            device=settings.device,
            precision=self.choice.precision,
            **permissions,
        )


def _logits(
    engine: Engine, checkpoint: Checkpoint, computing: threading.RLock, batch: Batch
) -> NDArray[np.float64]:
    """Shape (rows,): the head's only output, or the relevant class minus the other."""
    with computing:
        logits = engine.logits(batch).astype(np.float64)
    relevant = checkpoint.relevant
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0])
    if checkpoint.independent:
        return np.asarray(logits[:, relevant])
    return np.asarray(logits[:, relevant] - logits[:, 1 - relevant])


_models: WeakValueDictionary[ModelSettings, LoadedModel] = WeakValueDictionary()
_loading: dict[ModelSettings, threading.Lock] = {}
_guard = fork_safe_lock()


def shared_model(settings: ModelSettings) -> LoadedModel:
    """The loaded model of these settings; loaded once, however many threads ask."""
    with _guard:
        lock = _loading.setdefault(settings, fork_safe_lock())
    with lock:
        model = _models.get(settings)
        if model is None:
            model = LoadedModel(settings)
            _models[settings] = model
        return model
