"""Ready models as scorers: a ``CrossEncoder``, or a ``BaseCrossEncoder`` of LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock
from rerank_plugins._validation import check_choice
from rerank_plugins.errors import (
    InvalidInputError,
    ScoreCountError,
    ScoringError,
    UnsupportedModelError,
)
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer
from rerank_plugins.scoring.checkpoint import Checkpoint, relevant_label
from rerank_plugins.scoring.engines import Choice
from rerank_plugins.scoring.loaded import Encoder, LoadedModel, ModelSettings
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.saved import SavedSettings
from rerank_plugins.scoring.sentence_transformers_engine import (
    SentenceTransformersEncoder,
    SentenceTransformersEngine,
    encoders_of,
    told_by,
)

ScoreKind = Literal["logit", "probability"]
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Identity": "identity", "Softmax": "softmax"}
_PRECISIONS = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


def is_cross_encoder(model: object) -> bool:
    """Whether it is a ``CrossEncoder`` of sentence-transformers, or a LangChain cross-encoder."""
    return _is_sentence_transformers(model) or _scores_pairs(model)


def _is_sentence_transformers(model: object) -> bool:
    return all(hasattr(model, name) for name in ("predict", "preprocess", "num_labels"))


def _scores_pairs(model: object) -> bool:
    return callable(getattr(model, "score", None)) and not isinstance(model, Scorer)


class CrossEncoderScorer:
    """Scores pairs with a model that is loaded already.

    ::

        Reranker(CrossEncoderScorer(CrossEncoder("owner/model")))

    A ``CrossEncoder`` of sentence-transformers scores as its ``predict`` does, with its own
    prompt, in this package's batches and windows. Of LangChain's ``BaseCrossEncoder`` only
    ``score`` is known: it gets the distinct pairs in one call and whole, so that windows and
    ``truncated`` say nothing; a ``HuggingFaceCrossEncoder`` counts as the ``CrossEncoder`` in it.

    Args:
        model: Either of the two.
        name: For rankings; None for the model's own.
        max_length: Tokens per pair; None for the model's own. Only for a ``CrossEncoder``.
        scores: What ``score`` of a ``BaseCrossEncoder`` gives: a ``logit`` (any number, higher
            is better), or a ``probability`` in [0, 1].

    Raises:
        InvalidInputError: ``model`` is neither, or an option is invalid.
        UnsupportedModelError: If it has more than two labels, or an activation function other
            than Sigmoid, Identity and Softmax.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str | None = None,
        max_length: int | None = None,
        scores: ScoreKind = "logit",
    ) -> None:
        check_choice("scores", scores, get_args(ScoreKind))
        if type(model).__name__ == "HuggingFaceCrossEncoder" and hasattr(model, "client"):
            name = model.model_name if name is None else name
            model = model.client
        self._scorer: Scorer
        if _is_sentence_transformers(model):
            self._scorer = _ReadyScorer(model, name, max_length)
        elif _scores_pairs(model):
            if max_length is not None:
                raise InvalidInputError(
                    f"max_length={max_length} needs a sentence-transformers CrossEncoder: a "
                    f"{type(model).__name__} cuts texts itself"
                )
            self._scorer = _PairsScorer(model, name or type(model).__name__, scores)
        else:
            raise InvalidInputError(
                "model must be a sentence-transformers CrossEncoder or a LangChain "
                f"BaseCrossEncoder, but got {type(model).__name__}"
            )

    def __getattr__(self, name: str) -> Any:
        # What only a CrossEncoder can tell; asked for by hasattr() where it is optional.
        if name in ("fingerprint", "count_tokens") and "_scorer" in self.__dict__:
            return getattr(self._scorer, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def name(self) -> str:
        """The model's name."""
        return self._scorer.name

    @property
    def first_stage_weight(self) -> float:
        """0.0: a ready model states none."""
        return self._scorer.first_stage_weight

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One logit per pair."""
        return self._scorer.score(pairs, options)

    def describe(self) -> dict[str, Any]:
        """What scores, as native types."""
        return self._scorer.describe()


class _ReadyModel(LoadedModel):
    """A ``CrossEncoder`` that the caller loaded."""

    def __init__(self, model: Any) -> None:
        encoder = SentenceTransformersEncoder(model, prompt=_prompt(model))
        checkpoint = Checkpoint(
            folder=Path(),
            architecture="",
            labels=1,
            relevant=relevant_label(_labels(model)),
            activation="",
            max_length=encoder.max_length,
            with_types=False,
            window_tokens=None,
            long_passages="truncate",
            first_stage_weight=0.0,
            saved=SavedSettings(prompt=_prompt(model), activation=_activation(model)),
            tokenizer=None,
            pad_id=0,
        )
        self.checkpoint = told_by(model, checkpoint, encoder.max_length)
        self.choice = Choice("sentence-transformers", "auto", "a ready CrossEncoder")
        precision = _PRECISIONS.get(str(model.dtype), str(model.dtype))
        self._encoders = encoders_of(model, self.checkpoint)
        self.engine = SentenceTransformersEngine(model, encoder.constants(), precision=precision)
        self.engine.try_padding(encoder)
        self._share()


class _ReadyScorer(LocalScorer):
    """A `LocalScorer` whose model the caller loaded."""

    def __init__(self, model: Any, name: str | None, max_length: int | None) -> None:
        _activation(model)
        stated = getattr(model.config, "name_or_path", None) or type(model).__name__
        super().__init__(ModelSettings(str(name or stated), "ready"), max_length=max_length)
        self._given = model
        self._making = fork_safe_lock()
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_making": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _making=fork_safe_lock())

    def _load(self) -> tuple[LoadedModel, Encoder]:
        with self._making:
            if self._ready is None:
                model = _ReadyModel(self._given)
                self._ready = (model, model.encoder(self._max_length))
            return self._ready

    def fingerprint(self) -> str:
        """Changes with every weight, with tokenizer and prompt, and with what labels mean."""
        import torch

        if self._digest is None:
            told = blake2b(digest_size=16)
            for key, weight in sorted(self._given.state_dict().items()):
                raw = weight.detach().cpu().contiguous().flatten().view(torch.uint8)
                told.update(f"{key}\0{weight.dtype}\0".encode())
                told.update(memoryview(raw.numpy()))
            told.update(repr([repr(module) for module in self._given]).encode())
            told.update(self._given.tokenizer.backend_tokenizer.to_str().encode())
            told.update(_prompt(self._given).encode("utf-8", "surrogatepass"))
            # Of two labels: which is the relevant one, and whether the other counts.
            told.update(repr((_labels(self._given), _activation(self._given))).encode())
            self._digest = told.hexdigest()
        return self._digest


class _PairsScorer:
    """A model of which only ``score(pairs)`` is known."""

    first_stage_weight = 0.0

    def __init__(self, model: Any, name: str, scores: ScoreKind) -> None:
        self._model = model
        self.name = name
        self._scores = scores

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        options: ScoreOptions,  # noqa: ARG002
    ) -> PairScores:
        """One logit per pair; each distinct pair is asked for once."""
        distinct = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        found = list(self._model.score(list(distinct))) if distinct else []
        try:
            values = np.asarray([float(value) for value in found], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ScoringError(
                f"score() of {self.name} must give one number per pair: {error}"
            ) from error
        if len(values) != len(distinct):
            raise ScoreCountError(
                f"score() of {self.name} must give one number per pair, but gave {len(values)} "
                f"for {len(distinct)} pairs"
            )
        places = np.asarray([distinct[pair] for pair in pairs], dtype=np.intp)
        return PairScores(self._as_logits(values)[places], np.zeros(len(pairs), dtype=np.bool_))

    def _as_logits(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._scores == "logit":
            return values
        if ((values < 0) | (values > 1)).any():
            raise ScoringError(
                f"scores='probability', but {self.name} gave {values.min():g} to "
                f"{values.max():g}: use scores='logit'"
            )
        # The largest that is not infinite: 1 - 2**-53 and its mirror.
        kept = np.clip(values, 2.0**-53, 1 - 2.0**-53)
        return np.asarray(np.log(kept) - np.log1p(-kept))

    def describe(self) -> dict[str, Any]:
        """The little that is known."""
        return {"model": self.name, "engine": type(self._model).__name__, "scores": self._scores}


def _prompt(model: Any) -> str:
    """What ``predict`` puts in front of a query when it is not told otherwise."""
    name = model.default_prompt_name
    return "" if name is None else str(model.prompts.get(name) or "")


def _labels(model: Any) -> dict[Any, str] | None:
    """Names of the labels by their numbers, where the model's configuration has them."""
    return getattr(model.config, "id2label", None)


def _activation(model: Any) -> str:
    kind = type(model.activation_fn).__name__
    if kind not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"activation_fn must be Sigmoid, Identity or Softmax, but the CrossEncoder has {kind}: "
            "set model.activation_fn"
        )
    return _ACTIVATIONS[kind]
