"""int8 models: made, their agreement with fp32 measured and kept.

    from rerank_plugins.models.loading import load_reranker, load_scorer
    from rerank_plugins.scoring.quantization import quantize

    report = quantize(load_scorer("owner/model"), pairs=my_pairs, labelled=my_labelled_lists)
    reranker = load_reranker("owner/model", precision="int8")

OpenVINO's int8 model is calibrated on real pairs and kept. Torch's needs no calibration: it
quantizes weights while it loads them and activations token by token; only the report is kept.
Without the first step, ``precision="int8"`` does the same at its first use, with the samples in
four languages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring import converted, nncf_quantization
from rerank_plugins.scoring.agreement import (
    LabelledList,
    advice,
    agreement,
    by_query,
    measurable,
    pairs_per_second,
)
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.engines import choose, native_bf16
from rerank_plugins.scoring.linear import activation_steps
from rerank_plugins.scoring.loaded import ModelSettings, checkpoint_of
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.openvino_compiled import openvino_library
from rerank_plugins.scoring.openvino_engine import OpenVINOEngine, fp32_model, inputs_of
from rerank_plugins.scoring.quantization_data import sample_lists, sample_pairs, split, spread
from rerank_plugins.scoring.torch_engine import TorchEngine

if TYPE_CHECKING:
    import openvino

__all__ = ["LabelledList", "advice", "agreement", "int8_engine", "quantize"]

logger = logging.getLogger(__name__)

_TIMED_QUERIES: Final = 8
# Of the samples, where torch's int8 is measured while a model loads.
_QUERIES_AT_LOAD: Final = 8
_PASSAGES_AT_LOAD: Final = 10


def quantize(
    scorer: LocalScorer,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    labelled: Sequence[LabelledList] | None = None,
) -> dict[str, Any]:
    """Measures a checkpoint's int8 model for ``precision="int8"`` and keeps what it took.

    The engine is the one that ``precision="int8"`` chooses with the scorer's settings, or the
    one that they name.

    For OpenVINO the model is made by nncf's post-training quantization for transformers, with
    activations' ranges from the pairs. It replaces the int8 model that was kept before. Unlike
    the fp32 conversion it is kept through updates of the libraries, since it may stem from
    pairs that only you have; which versions made it is in the report. It is kept before it is
    measured, so that an interrupt loses the figures alone. For torch nothing is made: the
    report alone is kept.

    Args:
        scorer: Of the checkpoint, from `rerank_plugins.models.loading.load_scorer`; its
            precision does not matter.
        pairs: (query, passage) texts to calibrate with; at most 300 of them are used, taken
            evenly. Any number works; some dozens are the least that make sense. Torch needs no
            calibration and measures on them. None for the samples in Arabic, French, Polish
            and English.
        labelled: To measure with, beside the agreement, what nDCG@10 is kept. None for the
            samples when ``pairs`` is None too, else every third query's pairs, which are then
            not calibrated with; with too few for that, the calibration pairs.

    Returns:
        The report, of JSON types, which is kept and shown in ``describe()``: ``engine``,
        ``kendall_tau`` (mean over queries of tau-b between the fp32 and the int8 scores),
        ``largest_difference`` (of two logits), ``logit_deviation`` (standard deviation of the
        fp32 logits, to read that by), ``ndcg_at_10`` (``fp32`` and ``int8``; None without
        labels), ``queries``, ``pairs``, ``measured_on``, ``calibrated_on`` (None for torch),
        ``calibration_pairs``, ``pairs_per_second`` (``default``: what ``load_reranker``
        chooses here, and ``int8``; missing where torch's int8 was measured at its first use),
        ``advice``, ``activations``, ``versions``.

    Raises:
        InvalidInputError: If there are no pairs, or no labelled list has two passages.
        MissingDependencyError: If OpenVINO is the engine, and nncf is not installed.
        UnsupportedModelError: If the model has no int8 version, or no place can keep it.
    """
    if not isinstance(scorer, LocalScorer):
        raise InvalidInputError(
            f"only a cross-encoder can be quantized, but got {type(scorer).__name__}; load one "
            "with rerank_plugins.models.loading.load_scorer"
        )
    if pairs is not None and not pairs:
        raise InvalidInputError("pairs must hold at least one (query, passage), but it is empty")
    if labelled is not None:
        measurable(labelled)
    settings = scorer.settings
    if settings.engine not in ("torch", "openvino"):
        settings = replace(settings, engine="auto", precision="auto")
    checkpoint = checkpoint_of(settings)
    choice = choose(
        settings.engine, "int8", "cpu", checkpoint, remote_code=settings.trust_remote_code
    )
    start = time.perf_counter()
    if choice.engine == "openvino":
        report = _quantize_openvino(settings, checkpoint, pairs, labelled)
    else:
        report = _quantize_torch(settings, checkpoint, pairs, labelled)
    seconds = time.perf_counter() - start
    logger.info("int8 of %s measured in %.1f s: %s", settings.name, seconds, report["advice"])
    return report


def int8_engine(
    settings: ModelSettings, checkpoint: Checkpoint, engine: str
) -> OpenVINOEngine | TorchEngine:
    """The int8 engine of a checkpoint, with its agreement; both are made if none is kept.

    Raises:
        As `quantize`.
    """
    if engine == "torch":
        return _torch_engine(settings, checkpoint)
    places, key = converted.places(checkpoint.folder), _key(checkpoint)
    found = converted.find(places, key)
    if found is None:
        logger.warning(
            "no int8 model of %s is kept: calibrating on the samples, once; this takes from half "
            "a minute for a small model to many minutes for a large one",
            settings.name,
        )
        _quantize_openvino(settings, checkpoint, None, None)
        found = converted.find(places, key)
    if found is None:
        raise UnsupportedModelError(f"the int8 model in {places} was damaged while it was read")
    model = openvino_library().Core().read_model(found.model)
    return OpenVINOEngine(model, precision="int8", facts=found.facts)


def _quantize_openvino(
    settings: ModelSettings,
    checkpoint: Checkpoint,
    pairs: Sequence[tuple[str, str]] | None,
    labelled: Sequence[LabelledList] | None,
) -> dict[str, Any]:
    nncf_quantization.check_installed()
    fp32 = _fp32(settings, "openvino")
    if pairs is not None:
        calibration, lists, measured_on = split(pairs)
    else:
        calibration, lists, measured_on = spread(sample_pairs()), [], ""
    if labelled is not None:
        calibration = calibration if pairs is None else spread(pairs)
        lists, measured_on = measurable(labelled), "labelled lists"
    elif pairs is None:
        lists, measured_on = sample_lists(odd=True), "samples"
    model, facts = fp32_model(
        checkpoint,
        trust_remote_code=settings.trust_remote_code,
        allow_pickle_weights=settings.allow_pickle_weights,
    )
    logger.info("calibrating int8 of %s with %d pairs", settings.name, len(calibration))
    result = nncf_quantization.quantized(
        model, [inputs_of(batch) for batch in fp32.encode(calibration)]
    )
    kept = _kept(checkpoint, result, facts)
    logger.info("kept in %s; measuring on %d queries", kept.folder, len(lists))
    int8 = LocalScorer(fp32.settings, engine=OpenVINOEngine(result, precision="int8", facts=facts))
    report: dict[str, Any] = {
        "engine": "openvino",
        **agreement(fp32, int8, lists),
        "measured_on": measured_on,
        "calibrated_on": "samples" if pairs is None else "own pairs",
        "calibration_pairs": len(calibration),
        "pairs_per_second": _speeds(settings, int8, lists),
        "activations": "int8, else bf16" if native_bf16() else "int8, else fp32",
        "versions": {name: version(name) for name in ("openvino", "nncf")},
    }
    report["advice"] = advice(report)
    _kept(checkpoint, result, {**facts, "agreement": report})
    return report


def _quantize_torch(
    settings: ModelSettings,
    checkpoint: Checkpoint,
    pairs: Sequence[tuple[str, str]] | None,
    labelled: Sequence[LabelledList] | None,
) -> dict[str, Any]:
    measured_on = "samples"
    if labelled is not None:
        lists, measured_on = measurable(labelled), "labelled lists"
    elif own := [some for some in by_query(pairs or ()) if len(some.passages) > 1]:
        lists, measured_on = own, "own pairs"
    else:
        lists = sample_lists(odd=True)
    engine = _unmeasured(settings, checkpoint)
    report = _torch_report(settings, engine, lists, measured_on, with_speeds=True)
    _kept_report(checkpoint, engine, report)
    return report


def _torch_engine(settings: ModelSettings, checkpoint: Checkpoint) -> TorchEngine:
    engine = _unmeasured(settings, checkpoint)
    found = converted.find(
        converted.places(checkpoint.folder, model=False), _report_key(checkpoint), model=False
    )
    if found is not None:
        engine.facts = found.facts
        return engine
    logger.warning(
        "measuring once how far int8 of %s keeps the order of fp32, on a part of the samples",
        settings.name,
    )
    every = sample_lists(odd=True)
    lists = [
        LabelledList(some.query, some.passages[:_PASSAGES_AT_LOAD], some.grades[:_PASSAGES_AT_LOAD])
        for some in (every[n * len(every) // _QUERIES_AT_LOAD] for n in range(_QUERIES_AT_LOAD))
    ]
    report = _torch_report(settings, engine, lists, "a part of the samples", with_speeds=False)
    _kept_report(checkpoint, engine, report)
    return engine


def _unmeasured(settings: ModelSettings, checkpoint: Checkpoint) -> TorchEngine:
    return TorchEngine(
        checkpoint.folder,
        device="cpu",
        precision="int8",
        trust_remote_code=settings.trust_remote_code,
        allow_pickle_weights=settings.allow_pickle_weights,
    )


def _torch_report(
    settings: ModelSettings,
    engine: TorchEngine,
    lists: Sequence[LabelledList],
    measured_on: str,
    *,
    with_speeds: bool,
) -> dict[str, Any]:
    fp32 = _fp32(settings, "torch")
    int8 = LocalScorer(fp32.settings, engine=engine)
    report: dict[str, Any] = {
        "engine": "torch",
        **agreement(fp32, int8, lists),
        "measured_on": measured_on,
        "calibrated_on": None,
        "calibration_pairs": 0,
        **({"pairs_per_second": _speeds(settings, int8, lists)} if with_speeds else {}),
        "activations": _activations(),
        "versions": {"torch": version("torch")},
    }
    report["advice"] = advice(report)
    return report


def _activations() -> str:
    return f"{activation_steps()} steps in linear layers, each token with its range; else fp32"


def _fp32(settings: ModelSettings, engine: Any) -> LocalScorer:
    return LocalScorer(replace(settings, engine=engine, precision="fp32", device="cpu"))


def _speeds(
    settings: ModelSettings, int8: LocalScorer, lists: Sequence[LabelledList]
) -> dict[str, float]:
    default = LocalScorer(replace(settings, engine="auto", precision="auto"))
    speeds = pairs_per_second([default, int8], lists[:_TIMED_QUERIES])
    return dict(zip(("default", "int8"), speeds, strict=True))


def _key(checkpoint: Checkpoint) -> str:
    return converted.key_of(checkpoint.fingerprint(), precision="int8")


def _report_key(checkpoint: Checkpoint) -> str:
    # What was measured of another way to round says nothing of this one.
    told = checkpoint.fingerprint()
    return converted.key_of(told, precision="int8", activations=_activations())


def _kept(
    checkpoint: Checkpoint, model: openvino.Model, facts: dict[str, Any]
) -> converted.Converted:
    """The model on disk, for the next ``precision="int8"``."""
    places = converted.places(checkpoint.folder)
    kept = converted.keep(
        places,
        _key(checkpoint),
        lambda file: openvino_library().save_model(model, file, compress_to_fp16=False),
        facts,
    )
    if kept is None:
        raise UnsupportedModelError(
            f"the int8 model must be kept, but none of {[str(place) for place in places]} can be "
            "written to; set XDG_CACHE_HOME to a folder that can, or use engine='torch', whose "
            "int8 keeps nothing"
        )
    return kept


def _kept_report(checkpoint: Checkpoint, engine: TorchEngine, report: dict[str, Any]) -> None:
    """On disk where that is possible, and in the engine."""
    engine.facts = {"parameters": engine.parameters, "agreement": report}
    places = converted.places(checkpoint.folder, model=False)
    if converted.keep(places, _report_key(checkpoint), None, engine.facts) is None:
        logger.info("the report on int8 cannot be kept in %s: measured anew next time", places)
