"""int8 for the OpenVINO engine: calibrated on real pairs, its agreement with fp32 on record.

    from rerank_plugins.models.loading import load_reranker, load_scorer
    from rerank_plugins.scoring.quantization import quantize

    report = quantize(load_scorer("owner/model"), pairs=my_pairs, labelled=my_labelled_lists)
    reranker = load_reranker("owner/model", precision="int8")

Without the first step, ``precision="int8"`` calibrates on the samples in four languages.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from rerank_plugins.samples import LANGUAGES, load_passages, load_questions
from rerank_plugins.scoring import converted
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.engines import native_bf16
from rerank_plugins.scoring.local import LocalScorer, ModelSettings
from rerank_plugins.scoring.openvino_engine import (
    OpenVINOEngine,
    fp32_model,
    inputs_of,
    openvino_library,
    without_telemetry,
)

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

# nncf's own default: more rows barely move the ranges that it notes.
_CALIBRATION_PAIRS = 300
_PASSAGES_A_QUESTION = 20


@dataclass(frozen=True, slots=True)
class LabelledList:
    """A query, passages, and how relevant each is: 0 for not, higher for more.

    Attributes:
        query: Text.
        passages: Texts.
        grades: One a passage, at least 0.
    """

    query: str
    passages: Sequence[str]
    grades: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.grades) != len(self.passages) or any(grade < 0 for grade in self.grades):
            raise InvalidInputError(
                "a labelled list must have one grade of at least 0 a passage, but got "
                f"{len(self.passages)} passages and the grades {list(self.grades)[:5]}"
            )


def quantize(
    scorer: LocalScorer,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    labelled: Sequence[LabelledList] | None = None,
) -> dict[str, Any]:
    """Makes the int8 model of a checkpoint, measures it and keeps it for ``precision="int8"``.

    It replaces the int8 model that was kept before. Weights and activations become int8 by
    nncf's post-training quantization for transformers; activations' ranges come from the
    pairs. Unlike the fp32 conversion it is kept through updates of the libraries, since it
    may stem from pairs that only you have; which versions made it is in the report.

    Args:
        scorer: Of the checkpoint, from `rerank_plugins.models.loading.load_scorer`; its engine and
            precision do not matter.
        pairs: (query, passage) texts to calibrate with; 300 of them are used, taken evenly.
            None for the samples in Arabic, French, Polish and English.
        labelled: To measure with, beside the agreement, what nDCG@10 is kept. None for the
            samples when ``pairs`` is None too, else the pairs that were not calibrated with.

    Returns:
        The report, of JSON types, which is kept beside the model and in ``describe()``:
        ``kendall_tau`` (mean over queries of tau-b between the fp32 and the int8 scores),
        ``largest_difference`` (of two logits), ``logit_deviation`` (standard deviation of the
        fp32 logits, to read that by), ``ndcg_at_10`` (``fp32`` and ``int8``; None without
        labels), ``queries``, ``pairs``, ``measured_on``, ``calibrated_on``,
        ``calibration_pairs``, ``activations``, ``versions``.

    Raises:
        InvalidInputError: There are no pairs.
        MissingDependencyError: openvino or nncf is not installed.
        UnsupportedModelError: The model cannot be converted, or no place can keep it.
    """
    if pairs is not None and not pairs:
        raise InvalidInputError("pairs must hold at least one (query, passage), but it is empty")
    start = time.perf_counter()
    settings: ModelSettings = replace(scorer.settings, engine="openvino", precision="fp32")
    fp32 = LocalScorer(settings)
    calibration, rest = _spread(_sample_pairs() if pairs is None else pairs)
    if labelled is not None:
        lists, measured_on = list(labelled), "labelled lists"
    elif pairs is None:
        lists, measured_on = _sample_lists(odd=True), "samples"
    elif rest:
        lists, measured_on = _by_query(rest), "other pairs"
    else:
        lists, measured_on = _by_query(calibration), "the calibration pairs"

    checkpoint = fp32.checkpoint
    model, facts = fp32_model(
        checkpoint,
        trust_remote_code=settings.trust_remote_code,
        allow_pickle_weights=settings.allow_pickle_weights,
    )
    result = _nncf(model, [inputs_of(batch) for batch in fp32.encode(calibration)])
    engine = OpenVINOEngine(result, precision="int8", facts=facts)
    report = agreement(fp32, LocalScorer(settings, engine=engine), lists)
    report |= {
        "measured_on": measured_on,
        "calibrated_on": "samples" if pairs is None else "own pairs",
        "calibration_pairs": len(calibration),
        "activations": "int8, else bf16" if native_bf16() else "int8, else fp32",
        "versions": {name: version(name) for name in ("openvino", "nncf")},
    }
    places = converted.places(checkpoint.folder)
    kept = converted.keep(
        places,
        _key(checkpoint),
        lambda file: openvino_library().save_model(result, file, compress_to_fp16=False),
        {**facts, "agreement": report},
    )
    if kept is None:
        raise UnsupportedModelError(
            f"the int8 model must be kept, but none of {[str(place) for place in places]} can be "
            "written to; set XDG_CACHE_HOME to a folder that can"
        )
    logger.info(
        "int8 model of %s made in %.1f s, kept in %s: %s",
        settings.name,
        time.perf_counter() - start,
        kept.folder,
        report,
    )
    return report


def quantized_engine(settings: ModelSettings, checkpoint: Checkpoint) -> OpenVINOEngine:
    """The engine of the kept int8 model; calibrated on the samples when there is none.

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


def agreement(
    one: LocalScorer, other: LocalScorer, lists: Sequence[LabelledList]
) -> dict[str, Any]:
    """How alike two scorers order the same lists; see `quantize` for the keys.

    nDCG is scikit-learn's, with the grades as gains; lists without a relevant passage do not
    count for it. Lists of one passage count for neither.
    """
    from scipy.stats import kendalltau
    from sklearn.metrics import ndcg_score

    lists = [some for some in lists if len(some.passages) > 1]
    pairs = [(some.query, passage) for some in lists for passage in some.passages]
    if not pairs:
        raise InvalidInputError("to measure, one query at least must have two passages")
    logits = [scorer.score(pairs, ScoreOptions()).logits for scorer in (one, other)]
    taus: list[float] = []
    gains: list[list[float]] = [[], []]
    start = 0
    for some in lists:
        part = slice(start, start + len(some.passages))
        start = part.stop
        tau = float(kendalltau(logits[0][part], logits[1][part]).statistic)
        if np.isfinite(tau):  # all scores equal: no order to agree on
            taus.append(tau)
        if any(some.grades):
            for gain, values in zip(gains, logits, strict=True):
                gain.append(float(ndcg_score([list(some.grades)], [values[part]], k=10)))
    return {
        "kendall_tau": float(np.mean(taus)) if taus else None,
        "largest_difference": float(np.abs(logits[0] - logits[1]).max()),
        "logit_deviation": float(logits[0].std()),
        "ndcg_at_10": _means(gains),
        "queries": len(lists),
        "pairs": len(pairs),
    }


def _means(gains: list[list[float]]) -> dict[str, float] | None:
    if not gains[0]:
        return None
    return {"fp32": float(np.mean(gains[0])), "int8": float(np.mean(gains[1]))}


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
    """Keeps nncf's log and its bars off standard output, where a command's results go."""
    import nncf

    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        nncf.set_log_level(level)


def _spread(
    pairs: Sequence[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """300 pairs taken evenly, and as many of the others at most, in neighbouring places."""
    count = min(_CALIBRATION_PAIRS, len(pairs))
    chosen = {number * len(pairs) // count for number in range(count)}
    rest = [pair for number, pair in enumerate(pairs) if number not in chosen]
    return [pairs[number] for number in sorted(chosen)], rest[:_CALIBRATION_PAIRS]


def _by_query(pairs: Sequence[tuple[str, str]]) -> list[LabelledList]:
    """Pairs of one query as a list, without labels."""
    found: dict[str, list[str]] = {}
    for query, passage in pairs:
        found.setdefault(query, []).append(passage)
    return [LabelledList(query, some, [0.0] * len(some)) for query, some in found.items()]


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
