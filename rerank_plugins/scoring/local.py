"""LocalScorer: a checkpoint on this machine, loaded at first use, its weights shared."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.ordering import check_count
from rerank_plugins.scoring import hub
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.batching import token_budget_batches
from rerank_plugins.scoring.checkpoint import Checkpoint, checked_max_length, read_checkpoint
from rerank_plugins.scoring.encoding import EncodedPairs, PairEncoder
from rerank_plugins.scoring.torch_engine import PRECISIONS, Precision, TorchEngine


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Everything that decides which weights are loaded, and how.

    Attributes:
        name: What the user asked for; shown in rankings. Two names of one source are equal.
        source: Local folder, or name of a Hugging Face repository.
        device: ``auto`` or a torch device name.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        revision: Commit, tag or branch on the Hub.
        cache_folder: Where downloads are kept; None for the Hub client's own place.
        local_files_only: Never ask the network.
        trust_remote_code: Whether code in the checkpoint may run.
        allow_pickle_weights: Whether weights other than safetensors may be read.
    """

    name: str = field(compare=False)
    source: str
    device: str = "auto"
    precision: Precision = "auto"
    revision: str | None = None
    cache_folder: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    allow_pickle_weights: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision must be one of {list(PRECISIONS)}, but got {self.precision!r}"
            )


class LoadedModel:
    """One set of weights; a forward pass at a time, since more would only fight for cores."""

    def __init__(self, settings: ModelSettings) -> None:
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
        self.checkpoint: Checkpoint = read_checkpoint(
            folder, trust_remote_code=settings.trust_remote_code
        )
        self.engine = TorchEngine(
            folder,
            device=settings.device,
            precision=settings.precision,
            trust_remote_code=settings.trust_remote_code,
            allow_pickle_weights=settings.allow_pickle_weights,
        )
        self.lock = threading.Lock()


_models: WeakValueDictionary[ModelSettings, LoadedModel] = WeakValueDictionary()
_loading: dict[ModelSettings, threading.Lock] = {}
_guard = threading.Lock()


def _shared(settings: ModelSettings) -> LoadedModel:
    """The loaded model of these settings; loaded once, however many threads ask."""
    with _guard:
        lock = _loading.setdefault(settings, threading.Lock())
    with lock:
        model = _models.get(settings)
        if model is None:
            model = LoadedModel(settings)
            _models[settings] = model
        return model


class LocalScorer:
    """Scores pairs with a sequence-classification checkpoint on this machine.

    Nothing is read, fetched or imported before the first use. Scorers of equal settings
    share one set of weights.

    Args:
        settings: Which checkpoint, and how to load it.
        max_length: Tokens a pair, special tokens included; None for all that the model takes.
    """

    def __init__(self, settings: ModelSettings, *, max_length: int | None = None) -> None:
        if max_length is not None:
            check_count("max_length", max_length, minimum=1)
        self.settings = settings
        self._max_length = max_length
        self._ready: tuple[LoadedModel, PairEncoder] | None = None

    @property
    def name(self) -> str:
        """The name that the user asked for."""
        return self.settings.name

    def _load(self) -> tuple[LoadedModel, PairEncoder]:
        ready = self._ready
        if ready is None:
            model = _shared(self.settings)
            checkpoint = model.checkpoint
            encoder = PairEncoder(
                checkpoint.tokenizer,
                max_length=checked_max_length(checkpoint, self._max_length),
                window_tokens=checkpoint.window_tokens,
                pad_id=checkpoint.pad_id,
                with_types=checkpoint.with_types,
            )
            ready = self._ready = (model, encoder)
        return ready

    @property
    def first_stage_weight(self) -> float:
        """What the checkpoint states; 0.0 where it states nothing."""
        return self._load()[0].checkpoint.first_stage_weight

    def count_tokens(self, text: str) -> int:
        """Tokens of one text by the model's own tokenizer, special tokens not counted."""
        return self._load()[1].count_tokens(text)

    def fingerprint(self) -> str:
        """Tells the checkpoint's files from all others; a cache of scores asks for it."""
        return self._load()[0].checkpoint.fingerprint()

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit a pair: the head's only output, or relevant minus irrelevant class.

        The sigmoid of that difference is the softmax probability of the relevant class.
        Identical pairs are computed once.
        """
        model, encoder = self._load()
        distinct = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        places = np.fromiter((distinct[pair] for pair in pairs), dtype=np.intp, count=len(pairs))
        how = options.long_passages
        if how is None:
            how = model.checkpoint.long_passages
        encoded = encoder.encode(list(distinct), how)
        rows = self._row_logits(model, encoder, encoded, options.batch_tokens)
        logits = _by_pair(rows, encoded.owners, mean=how == "mean")
        return PairScores(logits[places], encoded.truncated[places])

    def _row_logits(
        self, model: LoadedModel, encoder: PairEncoder, encoded: EncodedPairs, batch_tokens: int
    ) -> NDArray[np.float64]:
        relevant = model.checkpoint.relevant
        rows = np.empty(len(encoded.rows), dtype=np.float64)
        for batch in token_budget_batches(encoded.lengths, batch_tokens):
            padded = encoder.pad(encoded, batch)
            with model.lock:
                logits = model.engine.logits(padded)
            if logits.shape[1] == 1:
                rows[batch] = logits[:, 0]
            else:
                rows[batch] = logits[:, relevant] - logits[:, 1 - relevant]
        return rows

    def describe(self) -> dict[str, Any]:
        """What is loaded, as native types; loads it when that has not happened yet."""
        model, encoder = self._load()
        checkpoint = model.checkpoint
        return {
            "model": self.name,
            "engine": model.engine.name,
            "device": str(model.engine.device),
            "precision": model.engine.precision,
            "parameters": model.engine.parameters,
            "architecture": checkpoint.architecture,
            "labels": checkpoint.labels,
            "activation": checkpoint.activation,
            "max_length": encoder.max_length,
            "token_types": checkpoint.with_types,
            "window_tokens": checkpoint.window_tokens,
            "long_passages": checkpoint.long_passages,
            "first_stage_weight": checkpoint.first_stage_weight,
        }


def _by_pair(
    rows: NDArray[np.float64], owners: NDArray[np.intp], *, mean: bool
) -> NDArray[np.float64]:
    """Joins the logits of a pair's windows; a pair with one row keeps it as it is."""
    if not rows.size:
        return rows
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    if mean:
        return np.asarray(np.add.reduceat(rows, starts) / np.bincount(owners))
    return np.asarray(np.maximum.reduceat(rows, starts))
