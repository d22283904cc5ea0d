"""Reranker: check, deduplicate, score, order, cut."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import in_thread
from rerank_plugins.candidates import Candidate, Ranked, Ranking, as_candidates, check_query
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.ordering import check_count, descending
from rerank_plugins.scoring.base import (
    DEFAULT_BATCH_TOKENS,
    LONG_PASSAGES,
    LongPassages,
    PairScores,
    ScoreOptions,
    Scorer,
    checked,
)

logger = logging.getLogger(__name__)

ScoreScale = Literal["probability", "logit"]
OnError = Literal["raise", "first_stage"]


class RerankerOptions(TypedDict, total=False):
    """The keyword options of `Reranker`, for functions that pass them on."""

    top_n: int | None
    score_threshold: float | None
    scale: ScoreScale
    deduplicate: bool
    long_passages: LongPassages | None
    batch_tokens: int
    first_stage_weight: float | None
    on_error: OnError


class Reranker:
    """Orders the passages of a first stage by a cross-encoder's relevance scores.

    Safe to share between threads and coroutines; give a server one and keep it.

    Args:
        scorer: What scores (query, passage) pairs.
        top_n: How many passages to keep; None for all, 0 for none.
        score_threshold: Drop passages that score lower, on the scale below; None for none.
        scale: ``probability`` (the logit's sigmoid, in [0, 1]) or the raw ``logit``.
        deduplicate: Keep one of several passages with the same text, the one that comes first.
        long_passages: What to do with passages that are longer than the model:
            ``truncate``, or score windows and take ``max``, ``mean`` or the ``first``.
            None for the model's own default.
        batch_tokens: Padded tokens in one forward pass, at most; lower it to save memory.
        first_stage_weight: Between 0 (the model alone) and 1 (the first stage alone): both
            scores are standardised over the query's passages and averaged with this weight.
            Needs first-stage scores: a list in which one is missing is ordered by the model
            alone.
            None for the model's own default, which is 0 but for the embedded model.
        on_error: ``raise``, or keep the first-stage order when scoring fails; such a ranking
            has ``scale == "first_stage"`` and tells why in ``error``.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        scale: ScoreScale = "probability",
        deduplicate: bool = True,
        long_passages: LongPassages | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        first_stage_weight: float | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if not isinstance(scorer, Scorer):
            raise InvalidInputError(
                f"scorer must follow the Scorer protocol, but got {type(scorer).__name__}; "
                "load_reranker() makes a Reranker from a model's name"
            )
        _check_choice("scale", scale, get_args(ScoreScale))
        _check_choice("on_error", on_error, get_args(OnError))
        if long_passages is not None:
            _check_choice("long_passages", long_passages, LONG_PASSAGES)
        if first_stage_weight is not None:
            weight = _check_number("first_stage_weight", first_stage_weight)
            if not 0.0 <= weight <= 1.0:
                raise InvalidInputError(
                    f"first_stage_weight must be between 0 and 1, but got {first_stage_weight!r}"
                )
        self.scorer = scorer
        self.top_n = _check_top_n(top_n)
        self.score_threshold = _check_threshold(score_threshold)
        self.scale: ScoreScale = scale
        self.deduplicate = deduplicate
        self.first_stage_weight = first_stage_weight
        self.on_error: OnError = on_error
        self._options = ScoreOptions(
            batch_tokens=check_count("batch_tokens", batch_tokens, minimum=1),
            long_passages=long_passages,
        )
        self._warned = False

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.scorer.name

    def describe(self) -> dict[str, Any]:
        """What scores, on what, with which settings; native Python types."""
        return {
            **self.scorer.describe(),
            "scale": self.scale,
            "batch_tokens": self._options.batch_tokens,
        }

    def rerank(
        self,
        query: str,
        passages: Iterable[Candidate | str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
    ) -> Ranking:
        """The passages in order of relevance to the query.

        Args:
            query: Non-blank text.
            passages: Candidates of a first stage, or plain texts; none gives an empty ranking.
            top_n: For this call, in place of the reranker's own.
            score_threshold: For this call, in place of the reranker's own.
            first_stage_seconds: How long the first stage took; kept in the ranking.

        Raises:
            InvalidInputError: Query, passages or an option break their rule.
            RerankPluginsError: Loading or scoring failed and ``on_error`` is ``raise``.
        """
        return self.rerank_many(
            [query],
            [passages],
            top_n=top_n,
            score_threshold=score_threshold,
            first_stage_seconds=first_stage_seconds,
        )[0]

    async def arerank(
        self,
        query: str,
        passages: Iterable[Candidate | str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
    ) -> Ranking:
        """`rerank` in a thread of its own: the event loop goes on meanwhile."""
        if isinstance(passages, Iterable) and not isinstance(passages, str):
            # The caller may go on changing his list, or reading his iterator, meanwhile.
            passages = list(passages)
        return await in_thread(
            self.rerank,
            query,
            passages,
            top_n=top_n,
            score_threshold=score_threshold,
            first_stage_seconds=first_stage_seconds,
        )

    def rerank_many(
        self,
        queries: Sequence[str],
        passages: Sequence[Iterable[Candidate | str]],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
    ) -> list[Ranking]:
        """One ranking a query; pairs of all queries share batches.

        Scoring time is shared out by the number of pairs.

        Raises:
            InvalidInputError: As `rerank`; or the numbers of queries and lists differ.
            RerankPluginsError: Loading or scoring failed and ``on_error`` is ``raise``.
        """
        if isinstance(queries, str):
            raise InvalidInputError(
                "queries must be a list of texts, but got one string; rerank() takes one query"
            )
        queries, passages = list(queries), list(passages)
        if len(queries) != len(passages):
            raise InvalidInputError(
                f"rerank_many needs one list of passages a query, but got {len(queries)} queries "
                f"and {len(passages)} lists"
            )
        for query in queries:
            check_query(query)
        keep = self.top_n if top_n is None else _check_top_n(top_n)
        threshold = (
            self.score_threshold if score_threshold is None else _check_threshold(score_threshold)
        )
        given = [as_candidates(some) for some in passages]
        kept = [_without_duplicates(some) if self.deduplicate else some for some in given]
        pairs = [
            (query, candidate.text)
            for query, some in zip(queries, kept, strict=True)
            for candidate in some
        ]
        start = time.perf_counter()
        scores, weight, error = self._score(pairs)
        seconds = time.perf_counter() - start
        rankings = []
        first = 0
        for query, all_of_them, some in zip(queries, given, kept, strict=True):
            part = slice(first, first + len(some))
            first += len(some)
            if scores is None:
                items, truncated = _in_first_stage_order(some), 0
            else:
                items = self._ordered(some, scores, part, weight)
                truncated = int(scores.truncated[part].sum())
                if threshold is not None:
                    items = [item for item in items if item.score >= threshold]
            rankings.append(
                Ranking(
                    query=query,
                    items=tuple(items if keep is None else items[:keep]),
                    model=self.model,
                    scale=self.scale if scores is not None else "first_stage",
                    candidates=len(all_of_them),
                    truncated=truncated,
                    deduplicated=len(all_of_them) - len(some),
                    first_stage_seconds=first_stage_seconds,
                    scoring_seconds=seconds * len(some) / len(pairs) if pairs else 0.0,
                    error=error,
                )
            )
        return rankings

    def _score(self, pairs: list[tuple[str, str]]) -> tuple[PairScores | None, float, str | None]:
        """Scores and blend weight, or None and why, when the first stage is to stand in."""
        if not pairs:
            return PairScores(np.empty(0), np.empty(0, dtype=np.bool_)), 0.0, None
        try:
            scores = checked(self.scorer.score(pairs, self._options), len(pairs))
            weight = self.first_stage_weight
            return scores, self.scorer.first_stage_weight if weight is None else weight, None
        except Exception as error:
            if self.on_error == "raise":
                raise
            if not self._warned:
                self._warned = True
                logger.warning(
                    "scoring with %s failed (%s: %s); the first-stage order is kept, here and "
                    "on any later failure",
                    self.model,
                    type(error).__name__,
                    error,
                )
            return None, 0.0, f"{type(error).__name__}: {error}"

    def _ordered(
        self, candidates: list[Candidate], scores: PairScores, part: slice, weight: float
    ) -> list[Ranked]:
        logits = scores.logits[part]
        truncated = scores.truncated[part]
        values = _blended(logits, candidates, weight)
        shown = _sigmoid(values) if self.scale == "probability" else values
        return [
            Ranked(
                candidate=candidates[position],
                score=float(shown[position]),
                logit=float(logits[position]),
                rank=rank,
                truncated=bool(truncated[position]),
            )
            for rank, position in enumerate(descending(values), start=1)
        ]


def _check_top_n(top_n: object) -> int | None:
    return None if top_n is None else check_count("top_n", top_n)


def _check_number(name: str, value: object) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or isinstance(value, bool) or not math.isfinite(value):  # type: ignore[arg-type]
        raise InvalidInputError(f"{name} must be a finite number, but got {value!r}")
    return float(value)  # type: ignore[arg-type]


def _check_threshold(threshold: object) -> float | None:
    return None if threshold is None else _check_number("score_threshold", threshold)


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidInputError(f"{name} must be one of {list(choices)}, but got {value!r}")


def _without_duplicates(candidates: list[Candidate]) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return list(first.values())


def _in_first_stage_order(candidates: list[Candidate]) -> list[Ranked]:
    return [
        Ranked(candidate, score=1.0 / rank, logit=None, rank=rank, source="first_stage")
        for rank, candidate in enumerate(candidates, start=1)
    ]


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def _blended(
    logits: NDArray[np.float64], candidates: list[Candidate], weight: float
) -> NDArray[np.float64]:
    """Logits moved towards the first stage's opinion, on the logits' own scale.

    Both scores are standardised over the list (mean 0, deviation 1) and averaged; the
    average is put back on the scale of the logits, so that probabilities keep their meaning.
    """
    given = [candidate.score for candidate in candidates]
    if weight == 0.0 or not candidates or any(score is None for score in given):
        return logits
    first = np.asarray(given, dtype=np.float64)
    if not np.isfinite(first).all():
        bad = int(np.flatnonzero(~np.isfinite(first))[0])
        raise InvalidInputError(
            f"first-stage scores must be finite to be blended, but number {bad} is {first[bad]}"
        )
    blend = (1.0 - weight) * _standardised(logits) + weight * _standardised(first)
    return np.asarray(logits.mean() + logits.std() * blend)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = values.std()
    if deviation == 0.0:
        return np.zeros_like(values)
    return np.asarray((values - values.mean()) / deviation)
