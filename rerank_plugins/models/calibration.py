"""Probabilities that mean what they say: scale and offset of a model's logit, fitted on judgements.

Platt scaling (Platt, Probabilistic outputs for support vector machines, 1999): the order of
passages stays what it is, the probability becomes the share of passages with such a score that
are relevant, and a threshold can be chosen for a wanted precision.

::

    report = calibrate(load_reranker("bundled").scorer, lists, precision=0.95)
    report.calibration.save("calibration.json")
    load_reranker("bundled", calibration="calibration.json", score_threshold=report.threshold)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._validation import check_number
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.reranking.blending import sigmoid
from rerank_plugins.scoring.agreement import LabelledList
from rerank_plugins.scoring.base import PairScores, ScoreOptions, Scorer, checked

logger = logging.getLogger(__name__)

FILE = "calibration.json"
_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logit becomes ``scale * logit + offset``.

    Attributes:
        model: Name of the model that it was fitted for.
        scale: Above 0, so that the order stays.
        offset: On the logit's scale.
    """

    model: str
    scale: float
    offset: float

    def __post_init__(self) -> None:
        check_number("scale", self.scale)
        check_number("offset", self.offset)
        if self.scale <= 0:
            raise InvalidInputError(f"scale must be above 0, but got {self.scale}")

    def logits(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated logits, of the same shape."""
        return self.scale * logits + self.offset

    def save(self, path: str | Path) -> Path:
        """Writes a JSON file; into a folder, such as the model's own, as calibration.json."""
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return file

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads what `save` wrote.

        Raises:
            InvalidInputError: If there is no such file, or it holds something else.
        """
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(str(content["model"]), content["scale"], content["offset"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"calibration must be a file that `rerank-plugins calibrate` wrote, but {file} "
                f"cannot be read as one: {error}"
            ) from error


class CalibratedScorer:
    """A scorer whose logits are calibrated; everything else is the scorer's own.

    Args:
        scorer: What scores.
        calibration: Fitted for that model.
    """

    def __init__(self, scorer: Scorer, calibration: Calibration) -> None:
        self.scorer = scorer
        self.calibration = calibration
        if scorer.name != calibration.model:
            logger.warning("the calibration of %s is used for %s", calibration.model, scorer.name)

    def __getattr__(self, name: str) -> Any:
        if "scorer" not in self.__dict__ or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.scorer, name)

    @property
    def name(self) -> str:
        """The scorer's."""
        return self.scorer.name

    @property
    def first_stage_weight(self) -> float:
        """The scorer's."""
        return self.scorer.first_stage_weight

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Calibrated logits."""
        return self._calibrated(self.scorer.score(pairs, options))

    def _calibrated(self, scores: PairScores) -> PairScores:
        from dataclasses import replace

        return replace(scores, logits=self.calibration.logits(np.asarray(scores.logits)))

    def describe(self) -> dict[str, Any]:
        """The scorer's own, and the calibration."""
        return {**self.scorer.describe(), "calibration": asdict(self.calibration)}


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities agree with what happened; all better when lower.

    Attributes:
        log_loss: Mean negative log-likelihood, nats.
        brier: Mean squared difference between probability and outcome.
        calibration_error: Mean difference between probability and share of relevant passages
            over ten bins of equal size, weighted by size.
    """

    log_loss: float
    brier: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What calibration changed, on queries that it was not fitted on.

    Attributes:
        calibration: Fitted on one half of the queries.
        before: Reliability of the uncalibrated probabilities on the other half.
        after: Of the calibrated ones.
        wanted: The precision asked for.
        threshold: Lowest probability at which the best passages of the first half are right in
            that share of cases; None where no threshold reaches it.
        precision: Share of right answers among those given on the other half, at the threshold;
            None where nothing is answered.
        interval: 95% Wilson interval of that share.
        answered: Share of queries with a relevant passage that get an answer.
        refused: Share of queries without one (the same queries, their relevant passages taken
            away) that rightly get none.
        queries: Number of queries in the other half.
    """

    calibration: Calibration
    before: Reliability
    after: Reliability
    wanted: float
    threshold: float | None
    precision: float | None
    interval: tuple[float, float] | None
    answered: float
    refused: float
    queries: int


def calibrate(
    scorer: Scorer, lists: Sequence[LabelledList], *, precision: float = 0.95
) -> CalibrationReport:
    """Fits scale and offset on every other query and measures on those between.

    The threshold is for one answer per query, the best passage or none. Each query counts
    twice: with its relevant passages, and without them, where any answer is wrong.

    Args:
        scorer: The model.
        lists: Queries with their candidates; grades above 0 are relevant.
        precision: Wanted share of right answers, in (0, 1).

    Raises:
        InvalidInputError: Fewer than four queries have both relevant and other passages; or
            relevant passages do not score higher than others, so that no scale fits.
    """
    check_number("precision", precision)
    if not 0 < precision < 1:
        raise InvalidInputError(f"precision must be between 0 and 1, but got {precision}")
    usable = [some for some in lists if 0 < sum(g > 0 for g in some.grades) < len(some.grades)]
    if len(usable) < 4:
        raise InvalidInputError(
            "calibration needs at least 4 queries with both relevant and other passages, but got "
            f"{len(usable)}"
        )
    pairs = [(some.query, passage) for some in usable for passage in some.passages]
    logits = checked(scorer.score(pairs, ScoreOptions()), len(pairs)).logits
    ends = np.cumsum([len(some.passages) for some in usable])[:-1]
    by_query = np.split(logits, ends)
    relevant = [np.asarray(some.grades, dtype=float) > 0 for some in usable]
    found = _fitted(scorer.name, np.concatenate(by_query[::2]), np.concatenate(relevant[::2]))
    held = np.concatenate(by_query[1::2]), np.concatenate(relevant[1::2])
    best = [sigmoid(found.logits(some)) for some in by_query]
    threshold = _threshold(*_answers(best[::2], relevant[::2]), precision)
    scores, right = _answers(best[1::2], relevant[1::2])
    given = scores >= (np.inf if threshold is None else threshold)
    here = np.arange(len(scores)) % 2 == 0  # every second answer is to a query without relevant
    share, interval = _share(int(right[given].sum()), int(given.sum()))
    return CalibrationReport(
        calibration=found,
        before=_reliability(sigmoid(held[0]), held[1]),
        after=_reliability(sigmoid(found.logits(held[0])), held[1]),
        wanted=precision,
        threshold=threshold,
        precision=share,
        interval=interval,
        answered=float(given[here].mean()),
        refused=float(1 - given[~here].mean()),
        queries=int(here.sum()),
    )


def _fitted(model: str, logits: NDArray[np.float64], relevant: NDArray[np.bool_]) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    # So weak a penalty has no effect: plain maximum likelihood of two parameters.
    fit = LogisticRegression(C=1e8).fit(logits[:, None], relevant)
    scale, offset = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if scale <= 0:
        raise InvalidInputError(
            f"{model} does not score relevant passages higher than others on these judgements "
            f"(the fitted scale is {scale:.2g}): check labels and model"
        )
    return Calibration(model, scale, offset)


def _answers(
    probabilities: Sequence[NDArray[np.float64]], relevant: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The best passage of each query, with all its passages and without the relevant ones."""
    scores, right = [], []
    for some, judged in zip(probabilities, relevant, strict=True):
        place = int(np.argmax(some))
        scores += [float(some[place]), float(some[~judged].max())]
        right += [bool(judged[place]), False]
    return np.asarray(scores), np.asarray(right)


def _threshold(
    scores: NDArray[np.float64], right: NDArray[np.bool_], wanted: float
) -> float | None:
    """The lowest score from which on the share of right answers is as wanted."""
    order = np.argsort(-scores, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Equal scores are answered together: only the last of them counts.
    last = np.append(np.diff(scores[order]) != 0, True)
    reached = np.flatnonzero((shares >= wanted) & last)
    return float(scores[order][reached[-1]]) if reached.size else None


def _share(right: int, given: int) -> tuple[float | None, tuple[float, float] | None]:
    from scipy.stats import binomtest

    if not given:
        return None, None
    interval = binomtest(right, given).proportion_ci(method="wilson")
    return right / given, (float(interval.low), float(interval.high))


def _reliability(probabilities: NDArray[np.float64], relevant: NDArray[np.bool_]) -> Reliability:
    from sklearn.metrics import brier_score_loss, log_loss

    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, _BINS)
    gaps = [
        abs(float(probabilities[some].mean() - relevant[some].mean())) * len(some)
        for some in bins
        if len(some)
    ]
    return Reliability(
        log_loss=float(log_loss(relevant, probabilities, labels=[False, True])),
        brier=float(brier_score_loss(relevant, probabilities)),
        calibration_error=sum(gaps) / len(order),
    )


def calibrated(scorer: Any, calibration: Calibration | str | Path | None) -> Any:
    """The scorer with a calibration, or as it is for None.

    Raises:
        InvalidInputError: If it is something else, or the file cannot be read.
    """
    if calibration is None:
        return scorer
    if isinstance(calibration, (str, Path)):
        calibration = Calibration.load(calibration)
    if not isinstance(calibration, Calibration):
        raise InvalidInputError(
            f"calibration must be a Calibration or a file, but got {type(calibration).__name__}"
        )
    return CalibratedScorer(scorer, calibration)
