"""int8 for the OpenVINO engine: calibrated on real pairs, its agreement with fp32 on record.

    from rerank_plugins.models.loading import load_reranker, load_scorer
    from rerank_plugins.scoring.quantization import quantize

    report = quantize(load_scorer("owner/model"), pairs=my_pairs, labelled=my_labelled_lists)
    reranker = load_reranker("owner/model", precision="int8")

Without the first step, ``precision="int8"`` calibrates on the samples in four languages.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from rerank_plugins.samples import LANGUAGES, load_passages, load_questions
from rerank_plugins.scoring import converted
from rerank_plugins.scoring.agreement import (
    LabelledList,
    advice,
    agreement,
    by_query,
    measurable,
    pairs_per_second,
)
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.engines import native_bf16
from rerank_plugins.scoring.loaded import ModelSettings
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.openvino_engine import (
    OpenVINOEngine,
    fp32_model,
    inputs_of,
    openvino_library,
    without_telemetry,
)

if TYPE_CHECKING:
    import openvino

__all__ = ["LabelledList", "advice", "agreement", "quantize", "quantized_engine"]

logger = logging.getLogger(__name__)

# nncf's own default: more rows barely move the ranges that it notes.
_CALIBRATION_PAIRS = 300
_PASSAGES_A_QUESTION = 20
# Of a user's queries, one in so many is kept for measuring.
_EVERY = 3
_TIMED_QUERIES = 8


def quantize(
    scorer: LocalScorer,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    labelled: Sequence[LabelledList] | None = None,
) -> dict[str, Any]:
    """Makes the int8 model of a checkpoint, keeps it for ``precision="int8"`` and measures it.

    It replaces the int8 model that was kept before. Weights and activations become int8 by
    nncf's post-training quantization for transformers; activations' ranges come from the
    pairs. Unlike the fp32 conversion it is kept through updates of the libraries, since it
    may stem from pairs that only you have; which versions made it is in the report. It is kept
    before it is measured, so that an interrupt loses the figures alone.

    Args:
        scorer: Of the checkpoint, from `rerank_plugins.models.loading.load_scorer`; its engine and
            precision do not matter.
        pairs: (query, passage) texts to calibrate with; at most 300 of them are used, taken
            evenly. Any number works; some dozens are the least that make sense. None for the
            samples in Arabic, French, Polish and English.
        labelled: To measure with, beside the agreement, what nDCG@10 is kept. None for the
            samples when ``pairs`` is None too, else every third query's pairs, which are then
            not calibrated with; with too few for that, the calibration pairs.

    Returns:
        The report, of JSON types, which is kept beside the model and in ``describe()``:
        ``kendall_tau`` (mean over queries of tau-b between the fp32 and the int8 scores),
        ``largest_difference`` (of two logits), ``logit_deviation`` (standard deviation of the
        fp32 logits, to read that by), ``ndcg_at_10`` (``fp32`` and ``int8``; None without
        labels), ``queries``, ``pairs``, ``measured_on``, ``calibrated_on``,
        ``calibration_pairs``, ``pairs_per_second`` (``default``: what ``load_reranker``
        chooses here, and ``int8``), ``advice``, ``activations``, ``versions``.

    Raises:
        InvalidInputError: If there are no pairs, or no labelled list has two passages.
        MissingDependencyError: openvino or nncf is not installed.
        UnsupportedModelError: If the model cannot be converted, or no place can keep it.
    """
    if not isinstance(scorer, LocalScorer):
        raise InvalidInputError(
            f"only a cross-encoder can be quantized, but got {type(scorer).__name__}; load one "
            "with rerank_plugins.models.loading.load_scorer"
        )
    _check(pairs, labelled)
    start = time.perf_counter()
    settings: ModelSettings = replace(scorer.settings, engine="openvino", precision="fp32")
    fp32 = LocalScorer(settings)
    if pairs is not None:
        calibration, lists, measured_on = _split(pairs)
    else:
        calibration, lists, measured_on = _spread(_sample_pairs()), [], ""
    if labelled is not None:
        calibration = calibration if pairs is None else _spread(pairs)
        lists, measured_on = measurable(labelled), "labelled lists"
    elif pairs is None:
        lists, measured_on = _sample_lists(odd=True), "samples"

    checkpoint = fp32.checkpoint
    model, facts = fp32_model(
        checkpoint,
        trust_remote_code=settings.trust_remote_code,
        allow_pickle_weights=settings.allow_pickle_weights,
    )
    logger.info("calibrating int8 of %s with %d pairs", settings.name, len(calibration))
    result = _nncf(model, [inputs_of(batch) for batch in fp32.encode(calibration)])
    kept = _kept(checkpoint, result, facts)
    logger.info("kept in %s; measuring on %d queries", kept.folder, len(lists))
    int8 = LocalScorer(settings, engine=OpenVINOEngine(result, precision="int8", facts=facts))
    report = agreement(fp32, int8, lists)
    default = LocalScorer(replace(scorer.settings, engine="auto", precision="auto"))
    speeds = pairs_per_second([default, int8], lists[:_TIMED_QUERIES])
    report |= {
        "measured_on": measured_on,
        "calibrated_on": "samples" if pairs is None else "own pairs",
        "calibration_pairs": len(calibration),
        "pairs_per_second": dict(zip(("default", "int8"), speeds, strict=True)),
        "activations": "int8, else bf16" if native_bf16() else "int8, else fp32",
        "versions": {name: version(name) for name in ("openvino", "nncf")},
    }
    report["advice"] = advice(report)
    _kept(checkpoint, result, {**facts, "agreement": report})
    seconds = time.perf_counter() - start
    logger.info("int8 model of %s made in %.1f s: %s", settings.name, seconds, report["advice"])
    return report


def _check(
    pairs: Sequence[tuple[str, str]] | None, labelled: Sequence[LabelledList] | None
) -> None:
    """Refuses before the work what would fail after minutes of it."""
    if pairs is not None and not pairs:
        raise InvalidInputError("pairs must hold at least one (query, passage), but it is empty")
    if labelled is not None:
        measurable(labelled)
    check_installed()


def check_installed() -> None:
    """Refuses where an int8 model cannot be made.

    Raises:
        MissingDependencyError: openvino or nncf is not installed.
    """
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            raise MissingDependencyError(
                f"making an int8 model needs {name}, of the extra 'openvino': "
                "pip install 'rerank-plugins[openvino]'"
            )


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
            "written to; set XDG_CACHE_HOME to a folder that can"
        )
    return kept


def quantized_engine(settings: ModelSettings, checkpoint: Checkpoint) -> OpenVINOEngine:
    """The engine of the kept int8 model; calibrated on the samples if it does not exist.

    Raises:
        As `quantize`.
    """
    places, key = converted.places(checkpoint.folder), _key(checkpoint)
    found = converted.find(places, key)
    if found is None:
        logger.warning(
            "no int8 model of %s is kept: calibrating on the samples, once; this takes from half "
            "a minute for a small model to many minutes for a large one",
            settings.name,
        )
        quantize(LocalScorer(settings))
        found = converted.find(places, key)
    if found is None:
        raise UnsupportedModelError(f"the int8 model in {places} was damaged while it was read")
    model = openvino_library().Core().read_model(found.model)
    return OpenVINOEngine(model, precision="int8", facts=found.facts)


def _key(checkpoint: Checkpoint) -> str:
    return converted.key_of(checkpoint.fingerprint(), precision="int8")


def _nncf(model: openvino.Model, inputs: list[dict[str, NDArray[np.int64]]]) -> openvino.Model:
    """The quantized model."""
    plain = logging.getLoggerClass()
    try:
        with without_telemetry():
            import nncf
    except ImportError as error:
        raise MissingDependencyError(
            "making an int8 model needs nncf, of the extra 'openvino': "
            "pip install 'rerank-plugins[openvino]'"
        ) from error
    finally:
        logging.setLoggerClass(plain)  # nncf puts its own in place of everybody's
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps nncf's log and bars off stdout, where results go; no bars without a terminal."""
    import nncf

    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        if sys.stderr.isatty():
            with redirect_stdout(sys.stderr):
                yield
        else:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        nncf.set_log_level(level)


def _spread(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most 300 of the pairs, taken evenly."""
    count = min(_CALIBRATION_PAIRS, len(pairs))
    return [pairs[number * len(pairs) // count] for number in range(count)]


def _split(
    pairs: Sequence[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[LabelledList], str]:
    """Pairs to calibrate with, lists to measure with, and what these are.

    Every third query that has two passages is kept apart for measuring, whole. Where that
    leaves nothing on one side, the calibration pairs serve both; where no query has two
    passages, the samples measure.
    """
    lists = [some for some in by_query(pairs) if len(some.passages) > 1]
    if not lists:
        return _spread(pairs), _sample_lists(odd=True), "samples"
    apart = lists[::_EVERY] if len(lists) > 1 else []
    queries = {some.query for some in apart}
    rest = [pair for pair in pairs if pair[0] not in queries]
    if not apart or not rest:
        calibration = _spread(pairs)
        kept = [some for some in by_query(calibration) if len(some.passages) > 1]
        return calibration, kept or lists[:1], "the calibration pairs"
    measured: list[LabelledList] = []
    for some in apart:
        if measured and sum(len(one.passages) for one in measured) >= _CALIBRATION_PAIRS:
            break
        measured.append(some)
    return _spread(rest), measured, "other pairs"


def _sample_pairs() -> list[tuple[str, str]]:
    return [(some.query, passage) for some in _sample_lists(odd=False) for passage in some.passages]


def _sample_lists(*, odd: bool) -> list[LabelledList]:
    """Every other sample question of each language, with 20 passages: its own ones first."""
    lists = []
    for language in LANGUAGES:
        passages = {passage.id: passage.text for passage in load_passages(language)}
        for number, question in enumerate(load_questions(language)):
            if number % 2 != odd:
                continue
            ids = dict.fromkeys([*question.relevant, *question.distractors, *passages])
            chosen = list(ids)[:_PASSAGES_A_QUESTION]
            lists.append(
                LabelledList(
                    question.text,
                    [passages[name] for name in chosen],
                    [float(name in question.relevant) for name in chosen],
                )
            )
    return lists
