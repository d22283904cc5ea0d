"""LocalScorer: a checkpoint on this machine, loaded at first use, its weights shared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._telemetry import span
from rerank_plugins._validation import check_count
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.batching import PACKED_TOKENS_ON_CPU, PADDED_TOKENS_ON_CPU
from rerank_plugins.scoring.checkpoint import (
    Checkpoint,
    is_panic,
)
from rerank_plugins.scoring.encoding import Batch, EncodedPairs, encode_in_time
from rerank_plugins.scoring.found import FoundScores
from rerank_plugins.scoring.loaded import Encoder, LoadedModel, ModelSettings, shared_model
from rerank_plugins.scoring.long_texts import BLOCK
from rerank_plugins.scoring.openvino_engine import OpenVINOEngine
from rerank_plugins.scoring.sharing import Work
from rerank_plugins.scoring.torch_engine import TorchEngine
from rerank_plugins.scoring.windows import within_allowance

logger = logging.getLogger(__name__)


class LocalScorer:
    """Scores pairs with a sequence-classification checkpoint on this machine.

    Nothing is read, fetched or imported before the first use. Scorers of equal settings
    share one set of weights.

    Args:
        settings: Which checkpoint, and how to load it.
        max_length: Tokens per pair, special tokens included; None for all that the model takes.
        instruction: What the model is told to look for, or the name of one of its prompts; None
            for the checkpoint's own.
        engine: Runs the checkpoint in place of the engine that the settings choose, and is
            not shared: to compare a model with another form of it.
    """

    def __init__(
        self,
        settings: ModelSettings,
        *,
        max_length: int | None = None,
        instruction: str | None = None,
        engine: TorchEngine | OpenVINOEngine | None = None,
    ) -> None:
        if max_length is not None:
            check_count("max_length", max_length, minimum=1)
        self.settings = settings
        self._max_length = max_length
        self._instruction = instruction
        self._engine = engine
        self._ready: tuple[LoadedModel, Encoder] | None = None

    keeps_deadlines = True

    def __getstate__(self) -> dict[str, Any]:
        # Settings travel to another process, weights do not: it loads its own at first use.
        return {**self.__dict__, "_ready": None}

    @property
    def name(self) -> str:
        """The name that the user asked for."""
        return self.settings.name

    @property
    def engine(self) -> str:
        """The engine in use; before loading, the one that was asked for."""
        return str(self.describe()["engine"]) if self._ready else self.settings.engine

    def _load(self) -> tuple[LoadedModel, Encoder]:
        ready = self._ready
        if ready is None:
            given = self._engine
            model = (
                shared_model(self.settings) if given is None else LoadedModel(self.settings, given)
            )
            ready = self._ready = (model, model.encoder(self._max_length, self._instruction))
        return ready

    @property
    def checkpoint(self) -> Checkpoint:
        """What the checkpoint says of itself; loads it when that has not happened yet."""
        return self._load()[0].checkpoint

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Batch]:
        """What the model is given for these pairs, a row at a time: to calibrate with."""
        model, encoder = self._load()
        encoded = encoder.encode(pairs, model.checkpoint.long_passages)
        for row in range(len(encoded.rows)):
            yield encoder.pad(encoded, np.array([row]))

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
        """One logit per pair: the head's only output, or relevant minus irrelevant class.

        The sigmoid of that difference is the softmax probability of the relevant class.
        Identical pairs are computed once.
        """
        try:
            return self._score(pairs, options)
        except BaseException as error:
            if not is_panic(error):
                raise
            raise UnsupportedModelError(
                f"the tokenizer of the checkpoint in {self.checkpoint.folder} is damaged: {error}"
            ) from error

    def _score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        model, encoder = self._load()
        how = options.long_passages or model.checkpoint.long_passages
        wanted = list(dict.fromkeys(pairs))
        if options.stop_at is None:
            parts = encoder.encode_ahead(wanted, how, options.windows)
        else:
            # If one passage has megabytes, the others are scored first.
            wanted.sort(key=lambda pair: len(pair[1]) > BLOCK)
            parts = encode_in_time(encoder, wanted, how, options.windows, options.stop_at)
        found = FoundScores(len(wanted))
        allowance = dict.fromkeys((query for query, _ in wanted), options.max_tokens)
        for encoded in parts:
            own = wanted[found.count : found.count + len(encoded.truncated)]
            with span("forward", rows=len(encoded.rows), tokens=int(encoded.lengths.sum())):
                read = within_allowance(
                    encoded.lengths,
                    encoded.turns,
                    [own[owner][0] for owner in encoded.owners.tolist()],
                    allowance,
                )
                work = self._work(model, encoder, encoded, np.flatnonzero(read), options)
                model.shared.run(work)
            best = found.add(encoded, work.logits, work.done, mean=how == "mean")
            if options.stop_at is None or perf_counter() < options.stop_at:
                spans = encoder.spans(own, encoded, best)
                if how == "mean":  # of all windows
                    spans = np.array([(0, len(passage)) for _, passage in own], dtype=np.int64)
                found.spans[found.count - len(own) : found.count] = spans
        at = {pair: place for place, pair in enumerate(wanted)}
        return found.of(np.fromiter((at[pair] for pair in pairs), dtype=np.intp, count=len(pairs)))

    @staticmethod
    def _work(
        model: LoadedModel,
        encoder: Encoder,
        encoded: EncodedPairs,
        read: NDArray[np.intp],
        options: ScoreOptions,
    ) -> Work:
        budget = options.batch_tokens
        if model.on_cpu:
            packed = getattr(model.engine, "packed", False)
            budget = min(budget, PACKED_TOKENS_ON_CPU if packed else PADDED_TOKENS_ON_CPU)
        # Longest first: what does not fit in memory fails at once. Against the clock, each pair's
        # first choice first, in the order of the pairs.
        key = -encoded.lengths if options.stop_at is None else encoded.turns
        order = read[np.argsort(key[read], kind="stable")].tolist()
        return Work(
            encoded.rows,
            encoded.types,
            order,
            pad=encoder.pad_rows,
            budget=budget,
            stop_at=options.stop_at,
        )

    def warm_up(self) -> None:
        """Loads the model and scores one pair, so that no query waits for either."""
        model, _ = self._load()
        if not model.warm:
            self.score([("a", "a")], ScoreOptions())
            model.warm = True

    def describe(self) -> dict[str, Any]:
        """What is loaded, as native types; loads it when that has not happened yet."""
        model, encoder = self._load()
        checkpoint = model.checkpoint
        known = getattr(model.engine, "facts", {})
        agreement = {"agreement": known["agreement"]} if "agreement" in known else {}
        return {
            "model": self.name,
            "engine": model.engine.name,
            "device": str(model.engine.device),
            "precision": model.engine.precision,
            "chosen": model.choice.reason,
            "parameters": model.engine.parameters,
            "architecture": checkpoint.architecture,
            "labels": checkpoint.labels,
            "activation": checkpoint.activation,
            "max_length": encoder.max_length,
            "token_types": checkpoint.with_types,
            "window_tokens": checkpoint.window_tokens,
            "long_passages": checkpoint.long_passages,
            "first_stage_weight": checkpoint.first_stage_weight,
            "instruction": self._instruction,
            "form": checkpoint.form,
            **({} if checkpoint.lightweight is None else asdict(checkpoint.lightweight)),
            **agreement,
        }
