"""From a model's name to a Reranker."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any, cast

from typing_extensions import Unpack

from rerank_plugins._names import check_options
from rerank_plugins._validation import check_flag, kind_of
from rerank_plugins.bundled import BundledEncoder, load_encoder
from rerank_plugins.errors import InvalidInputError, UnknownModelError
from rerank_plugins.models.calibration import Calibration, calibrated
from rerank_plugins.models.catalog import (
    ALIASES,
    BUNDLED,
    BUNDLED_ENCODER,
    CATALOG,
    ModelProfile,
    bundled_folder,
    near_names,
)
from rerank_plugins.reranking.options import RerankerOptions, ScoringOptions
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import Scorer
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.cross_encoder import CrossEncoderScorer, is_cross_encoder
from rerank_plugins.scoring.engines import EngineName, Precision
from rerank_plugins.scoring.lightweight import Lightweight
from rerank_plugins.scoring.loaded import ModelSettings
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.vectors import VectorScorer

logger = logging.getLogger(__name__)


class ModelOptions(ScoringOptions, total=False):
    """The keyword options of `load_reranker` that the frameworks' adapters pass on."""

    device: str
    engine: EngineName
    precision: Precision
    revision: str | None
    max_length: int | None
    cache_folder: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    allow_pickle_weights: bool
    instruction: str | None
    form: str | Lightweight | None
    calibration: Calibration | str | Path | None


def load_scorer(
    model: str | Path = BUNDLED,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    revision: str | None = None,
    max_length: int | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle_weights: bool = False,
    instruction: str | None = None,
    form: str | Lightweight | None = None,
) -> LocalScorer | VectorScorer:
    """The scorer of a model; see `load_reranker` for the arguments."""
    if not (revision is None or isinstance(revision, str)):
        raise InvalidInputError(f"revision must be a name or None, but got {revision!r}")
    for option, value in (
        ("local_files_only", local_files_only),
        # Truth is not enough here: these two let a checkpoint run code.
        ("trust_remote_code", trust_remote_code),
        ("allow_pickle_weights", allow_pickle_weights),
    ):
        check_flag(option, value)
    name = ALIASES.get(str(model), str(model))
    if name == BUNDLED_ENCODER:
        return _vector_scorer(engine, precision, max_length)
    profile = CATALOG.get(name)
    if profile is not None and profile.non_commercial:
        _warn_once(profile)
    return LocalScorer(
        ModelSettings(
            name=name,
            source=_source(name if isinstance(model, str) else model),
            device=device,
            engine=engine,
            precision=precision,
            revision=revision,
            cache_folder=None if cache_folder is None else str(cache_folder),
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            allow_pickle_weights=allow_pickle_weights,
            form=form,
            known_form=None if profile is None else profile.form,
            make_int8=_int8_engine,
        ),
        max_length=max_length,
        instruction=instruction,
    )


def _int8_engine(settings: ModelSettings, checkpoint: Checkpoint, engine: str) -> Any:
    from rerank_plugins.scoring.quantization import int8_engine

    return int8_engine(settings, checkpoint, engine)


def load_reranker(
    model: str | Path = BUNDLED,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    revision: str | None = None,
    max_length: int | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle_weights: bool = False,
    instruction: str | None = None,
    form: str | Lightweight | None = None,
    calibration: Calibration | str | Path | None = None,
    **options: Unpack[RerankerOptions],
) -> Reranker:
    """A reranker by name. Returns at once: the model is fetched and read at first use.

    Rerankers of one model and the same settings share one set of weights.

    Args:
        model: ``bundled`` (also by its earlier name, ``embedded``), ``bundled-encoder``,
            another name of the catalog, any Hugging Face sequence-classification model, or a
            local folder.
        device: ``auto`` (CUDA, then MPS, then CPU) or a torch device name.
        engine: ``auto``, ``torch``, ``openvino`` (extra ``openvino``; CPU only), or
            ``sentence-transformers``, which runs whatever its ``CrossEncoder`` loads. ``auto``
            takes that one where a checkpoint asks for more than the others do. Else it
            takes OpenVINO on an x86 CPU, where it is installed, for BERT and RoBERTa models;
            such a model is converted at its first use, which takes from seconds to a minute
            or two, and kept beside its weights, or in the user's cache.
        precision: ``fp32`` (exact on every engine), ``bf16``, ``fp16`` (torch), ``int8`` (on a
            CPU: OpenVINO where the processor has VNNI or AMX, else torch; see
            `rerank_plugins.scoring.quantization`), or ``auto``: fp16 on CUDA, bf16 on a CPU
            that has instructions for it, else fp32. ``describe()`` tells what was chosen.
        revision: Commit, tag or branch on the Hub; pin a commit in production.
        max_length: Tokens per pair, special tokens included; None for all that the model takes.
        cache_folder: Where downloads are kept; None for the Hub client's own place.
        local_files_only: Never ask the network.
        trust_remote_code: Let code in the checkpoint run. None of the catalog needs it.
        allow_pickle_weights: Read ``.bin`` weights when there are no safetensors.
        instruction: What a model that takes instructions is told to look for, or the name of
            one of its saved prompts; None for its own default.
        form: How pairs are put to a causal language model that does not say it itself:
            ``qwen3-reranker``, ``bge-reranker-gemma`` or ``mxbai-rerank-v2``; or how much of
            bge-reranker-v2.5-gemma2-lightweight is computed
            (`rerank_plugins.scoring.lightweight.Lightweight`; all of it, unless told). The
            catalog knows the form of its models.
        calibration: What `rerank_plugins.models.calibration` or ``rerank-plugins calibrate``
            fitted for this model, or its file; None for the model's own probabilities.
        **options: Those of `Reranker`.

    Raises:
        UnknownModelError: If it is not a local folder, a catalog name or a Hub ID.
        InvalidInputError: If an option is invalid.
    """
    check_options("load_reranker", options, _OPTIONS)
    scorer = load_scorer(
        model,
        device=device,
        engine=engine,
        precision=precision,
        revision=revision,
        max_length=max_length,
        cache_folder=cache_folder,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        allow_pickle_weights=allow_pickle_weights,
        instruction=instruction,
        form=form,
    )
    return Reranker(calibrated(scorer, calibration), **options)


_OPTIONS = {"model", *ModelOptions.__annotations__, *RerankerOptions.__annotations__}


@cache
def _warn_once(profile: ModelProfile) -> None:
    logger.warning("%s may not be used commercially (%s)", profile.name, profile.licence)


def as_reranker(
    model: Reranker | Scorer | str | Path | Any, **options: Unpack[ModelOptions]
) -> Reranker:
    """A reranker from whatever a user has: one place for all doors.

    Args:
        model: A `Reranker`, which comes back as it is; a scorer; a ``CrossEncoder`` of
            sentence-transformers or a ``BaseCrossEncoder`` of LangChain; or a name or folder
            that `load_reranker` takes.
        **options: Those of `load_reranker` for a name, those of `Reranker` for a ready model.

    Raises:
        InvalidInputError: If it is something else; or options come beside a ready `Reranker`, which
            has its own.
        UnknownModelError: If no model has that name.
    """
    if isinstance(model, (str, Path)):
        return load_reranker(model, **options)
    if isinstance(model, Reranker):
        if options:
            raise InvalidInputError(
                "options belong to a model's name; a ready Reranker has its own, but got "
                f"{sorted(options)}"
            )
        return model
    if isinstance(model, type) or not isinstance(model, Scorer):
        if isinstance(model, type) or not is_cross_encoder(model):
            raise InvalidInputError(
                "reranker must be a Reranker, a scorer, a CrossEncoder, a BaseCrossEncoder or a "
                f"model's name, but got {kind_of(model)}"
            )
        model = CrossEncoderScorer(model)
    if late := sorted(options.keys() - RerankerOptions.__annotations__.keys()):
        raise InvalidInputError(f"{late} belong to a model's name; this model is loaded already")
    return Reranker(model, **cast("RerankerOptions", options))


def _vector_scorer(engine: str, precision: str, max_length: int | None) -> VectorScorer:
    if max_length is not None:
        raise InvalidInputError(
            f"{BUNDLED_ENCODER} is a text encoder and takes no max_length, but got {max_length!r}"
        )
    if engine == precision == "auto":
        return VectorScorer(load_encoder(BUNDLED_ENCODER))
    return VectorScorer(BundledEncoder(engine=engine, precision=precision))  # type: ignore[arg-type]


def _source(model: str | Path) -> str:
    """Local folder or Hub name behind what the user gave."""
    if not isinstance(model, (str, Path)):
        raise InvalidInputError(
            f"a model must be a name or a folder, but got {type(model).__name__}"
        )
    name = str(model)
    if name == BUNDLED:
        return str(bundled_folder())
    try:
        folder = Path(name).expanduser().resolve()
        found = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with NUL, nobody's home
        raise UnknownModelError(f"{name!r} cannot be a folder or a name: {error}") from error
    if isinstance(model, Path) or (name and found):
        if not found:
            raise UnknownModelError(f"Model folder not found: {str(folder)!r}")
        return str(folder)
    if name in CATALOG or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        return name
    if name.startswith(("http://", "https://")) and "huggingface.co/" not in name:
        raise UnknownModelError(
            f"a model must be a local folder, a catalog name or a Hub ID, but got the address "
            f"{name!r}: to score on a server, use Reranker(RemoteScorer(url))"
        )
    raise UnknownModelError(
        f"Model not found: {name!r} is not a local folder, a catalog name or a Hub ID "
        f"(owner/model).{near_names(name)}"
    )
