"""Reranker: check, deduplicate, score, order, cut."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rerank_plugins._telemetry import span, traced
from rerank_plugins._threads import in_thread, in_waiting_thread
from rerank_plugins._validation import (
    check_choice,
    check_count,
    check_deadline,
    check_flag,
    check_iterable,
    check_threshold,
    check_top_n,
    check_weight,
    kind_of,
)
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.reranking.deadline import Pace, now, score_in_time
from rerank_plugins.reranking.inputs import checked_lists, either, ranking_facts, without_duplicates
from rerank_plugins.reranking.options import Call, OnError, ScoreScale
from rerank_plugins.reranking.scored import Cut, ScoredList, ScoringPlan, by_query, planned_pairs
from rerank_plugins.scoring.base import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_MAX_TOKENS,
    DEFAULT_WINDOWS,
    LONG_PASSAGES,
    LongPassages,
    PairScores,
    ScoreOptions,
    Scorer,
    checked,
)
from rerank_plugins.scoring.cache import CachedScorer, ScoreCache

logger = logging.getLogger(__name__)

_NO_PAIRS = np.empty(0, np.intp)
_NO_SCORES = PairScores(np.empty(0), np.empty(0, np.bool_))
_NO_WEIGHT = 0.0


class Reranker:
    """Orders the passages of a first stage by a cross-encoder's relevance scores.

    Safe to share between threads and coroutines; give a server one and keep it.

    Args:
        scorer: What scores (query, passage) pairs.
        top_n: How many passages to keep; None for all, 0 for none.
        score_threshold: Drop passages that score lower, on the scale below; None for none.
        scale: ``probability`` (the logit's sigmoid, in [0, 1]) or the raw ``logit``.
        deduplicate: Keep only the first of several passages with the same text. Off by default:
            the same text may come from two sources, and both may have to be cited.
        long_passages: What to do with passages that are longer than the model:
            ``truncate``, or score windows and take ``max``, ``mean`` or the ``first``; or
            ``best``: the highest score of the few windows that share most with the query.
            None for the model's own default.
        windows: How many windows of a passage ``best`` reads.
        max_tokens: Tokens that the model reads for a query, at most. Each passage has one
            window read whatever the cap; a passage that lost others to it is ``truncated``.
        batch_tokens: Padded tokens in one forward pass, at most; lower it to save memory.
        first_stage_weight: Between 0 (the model alone) and 1 (the first stage alone): both
            scores are standardized over the query's passages and averaged with this weight.
            Needs first-stage scores: a list in which one is missing is ordered by the model
            alone.
            None for the model's own default, which is 0 but for the embedded model.
        on_error: ``raise``, or keep the first-stage order when loading or scoring fails; such
            a ranking has ``scale == "first_stage"`` and tells why in ``error``. What the caller
            got wrong (`InvalidInputError`) is raised all the same.
        deadline_ms: The best ranking within so many milliseconds, counted from the call; None
            for no limit. Passages are scored in first-stage order, in batches. What was not
            scored in time stays below in that order, marked by its ``source``, whatever
            ``score_threshold`` says. A batch that has begun is finished. Loading the model at
            first use does not count: call ``warm_up()`` at start-up.
        cache: Keeps scores for pairs that come again: a number of pairs in memory, a file, or
            a `ScoreCache`. None for no cache.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        scale: ScoreScale = "probability",
        deduplicate: bool = False,
        long_passages: LongPassages | None = None,
        windows: int = DEFAULT_WINDOWS,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        first_stage_weight: float | None = None,
        on_error: OnError = "raise",
        deadline_ms: float | None = None,
        cache: ScoreCache | int | str | Path | None = None,
    ) -> None:
        if isinstance(scorer, type) or not isinstance(scorer, Scorer):
            raise InvalidInputError(
                f"scorer must follow the Scorer protocol, but got {kind_of(scorer)}; "
                "load_reranker() makes a Reranker from a model's name"
            )
        check_choice("scale", scale, get_args(ScoreScale))
        check_choice("on_error", on_error, get_args(OnError))
        if long_passages is not None:
            check_choice("long_passages", long_passages, LONG_PASSAGES)
        self.scorer = scorer if cache is None else CachedScorer(scorer, cache)
        self.top_n = check_top_n(top_n)
        self.score_threshold = check_threshold(score_threshold)
        self.scale: ScoreScale = scale
        self.deduplicate = check_flag("deduplicate", deduplicate)
        self.first_stage_weight = check_weight(first_stage_weight)
        self.on_error: OnError = on_error
        self.options = ScoreOptions(
            batch_tokens=check_count("batch_tokens", batch_tokens, minimum=1),
            long_passages=long_passages,
            windows=check_count("windows", windows, minimum=1),
            max_tokens=check_count("max_tokens", max_tokens, minimum=1),
        )
        self.deadline_ms = check_deadline(deadline_ms)
        # A scorer that can be awaited computes nothing here: someone else does.
        self._waits = hasattr(getattr(scorer, "scorer", scorer), "ascore")
        self._pace = Pace()
        self._warned = False

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(model={self.model!r}, engine={self.engine!r}, "
            f"top_n={self.top_n})"
        )

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.scorer.name

    @property
    def engine(self) -> str:
        """What runs the model: an engine's name, or the scorer's class."""
        scorer = getattr(self.scorer, "scorer", self.scorer)
        return str(getattr(scorer, "engine", type(scorer).__name__))

    def warm_up(self) -> None:
        """Loads the model and scores one pair, so that the first query waits for neither.

        Raises:
            RerankPluginsError: If the model cannot be loaded.
        """
        warm_up = getattr(self.scorer, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def describe(self) -> dict[str, Any]:
        """What scores, on what, with which settings; native Python types."""
        return {
            **self.scorer.describe(),
            "scale": self.scale,
            "batch_tokens": self.options.batch_tokens,
            "deadline_ms": self.deadline_ms,
        }

    def rerank(
        self,
        query: str,
        passages: Iterable[Candidate | str] | None = None,
        *,
        documents: Iterable[Candidate | str] | None = None,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
        deadline_ms: float | None = None,
    ) -> Ranking:
        """The passages in order of relevance to the query.

        Args:
            query: Non-blank text.
            passages: Candidates of a first stage, or plain texts; an empty list gives an empty
                ranking.
            documents: Another name for ``passages``.
            top_n: For this call, in place of the reranker's own.
            score_threshold: For this call, in place of the reranker's own.
            first_stage_seconds: How long the first stage took; kept in the ranking.
            deadline_ms: For this call, in place of the reranker's own; ``math.inf`` for none.

        Raises:
            InvalidInputError: If the query, a passage or an option is invalid.
            RerankPluginsError: If loading or scoring failed and ``on_error`` is ``raise``.
        """
        call = Call(now(), top_n, score_threshold, first_stage_seconds, deadline_ms)
        return self._rerank_many([query], [either(passages, documents)], call)[0]

    async def arerank(
        self,
        query: str,
        passages: Iterable[Candidate | str] | None = None,
        *,
        documents: Iterable[Candidate | str] | None = None,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
        deadline_ms: float | None = None,
    ) -> Ranking:
        """`rerank` in a thread, so that the event loop stays free."""
        # The caller may change the list, or advance the iterator, meanwhile.
        passages = list(check_iterable("passages", either(passages, documents)))
        # The deadline counts from here: the wait for a thread is part of it.
        call = Call(now(), top_n, score_threshold, first_stage_seconds, deadline_ms)
        thread = in_waiting_thread if self._waits else in_thread
        return (await thread(self._rerank_many, [query], [passages], call))[0]

    def rerank_many(
        self,
        queries: Sequence[str],
        passages: Sequence[Iterable[Candidate | str]],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        first_stage_seconds: float | None = None,
        deadline_ms: float | None = None,
    ) -> list[Ranking]:
        """One ranking per query; pairs of all queries share batches.

        Scoring time is shared out by the number of passages. A deadline holds for all queries
        together: their first passages are scored first.

        Raises:
            InvalidInputError: As in `rerank`; or if the numbers of queries and lists differ.
            RerankPluginsError: If loading or scoring failed and ``on_error`` is ``raise``.
        """
        call = Call(now(), top_n, score_threshold, first_stage_seconds, deadline_ms)
        return self._rerank_many(queries, passages, call)

    @traced("rerank", ranking_facts)
    def _rerank_many(
        self,
        queries: Sequence[str],
        passages: Sequence[Iterable[Candidate | str]],
        call: Call,
    ) -> list[Ranking]:
        queries, given = checked_lists(queries, passages)
        kept = [without_duplicates(some) if self.deduplicate else some for some in given]
        cut = self._cut(call)
        start = now()
        scored, weight, error = self._scored_or_not(queries, kept, cut.stop_at(call.start))
        seconds = (now() - start) / max(1, sum(map(len, kept)))  # per passage
        return [
            Ranking(
                query=query,
                items=tuple(found.ranked(some, weight, cut)),
                model=self.model,
                scale=self.scale if failure is None else "first_stage",
                candidates=len(all_of_them),
                truncated=int(found.truncated.sum()),
                deduplicated=len(all_of_them) - len(some),
                scored=len(found.positions),
                first_stage_seconds=call.first_stage_seconds,
                scoring_seconds=seconds * len(some),
                error=failure,
            )
            for query, all_of_them, some, found in zip(queries, given, kept, scored, strict=True)
            for failure in (error or cut.too_late(some, found),)
        ]

    def _cut(self, call: Call) -> Cut:
        """What to keep and how long to take: the call's own choice before the reranker's."""
        limit = self.deadline_ms if call.deadline_ms is None else check_deadline(call.deadline_ms)
        least = call.score_threshold
        return Cut(
            probability=self.scale == "probability",
            threshold=self.score_threshold if least is None else check_threshold(least),
            keep=self.top_n if call.top_n is None else check_top_n(call.top_n),
            deadline_ms=limit,
        )

    def _scored_or_not(
        self, queries: list[str], lists: list[list[Candidate]], stop_at: float | None
    ) -> tuple[list[ScoredList], float, str | None]:
        """As `_score_lists`; or nothing scored and the reason, if the first stage may stand in."""
        try:
            return *self._score_lists(queries, lists, stop_at), None
        except InvalidInputError:
            # An option that this model or machine cannot have (a max_length beyond the model's):
            # it would fail for every query, and nobody would notice that nothing is reranked.
            raise
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
            plans = Reranker._plans(self, queries, lists)
            reason = f"{type(error).__name__}: {error}"
            return by_query(plans, _NO_PAIRS, _NO_SCORES), _NO_WEIGHT, reason

    def _score_lists(
        self, queries: list[str], lists: list[list[Candidate]], stop_at: float | None = None
    ) -> tuple[list[ScoredList], float]:
        """What the model says of each list, and the weight that the first stage has."""
        if not any(lists):
            plans = Reranker._plans(self, queries, lists)
            return by_query(plans, _NO_PAIRS, _NO_SCORES), _NO_WEIGHT
        begin = now()
        if stop_at is not None:
            self.warm_up()
        weight = self.first_stage_weight
        weight = self.scorer.first_stage_weight if weight is None else weight
        if stop_at is not None:
            # Loading happens once, and would leave the first query without any score.
            stop_at += now() - begin
        plans = self._plans(queries, lists, stop_at)
        pairs, numbers = planned_pairs(queries, lists, plans, interleaved=stop_at is not None)
        with span("score", model=self.model, pairs=len(pairs)):
            if stop_at is None:
                scores = checked(self.scorer.score(pairs, self.options), len(pairs))
            else:
                scores = score_in_time(
                    self.scorer, pairs, self.options, stop_at=stop_at, pace=self._pace
                )
        return by_query(plans, numbers, scores), weight

    def _plans(
        self,
        queries: list[str],  # noqa: ARG002
        lists: list[list[Candidate]],
        stop_at: float | None = None,  # noqa: ARG002
    ) -> list[ScoringPlan]:
        """Everything is scored, the first stage's first choice first."""
        return [ScoringPlan(list(range(len(some))), len(some), "first_stage") for some in lists]

    def _orders(
        self, queries: list[str], lists: list[list[Candidate]], stop_at: float | None
    ) -> list[tuple[list[int], list[float] | None]]:
        """Positions of each list's candidates, best first, none dropped; and their scores."""
        scored_lists, weight = self._score_lists(queries, lists, stop_at)
        return [
            (found.order(some, weight), found.opinion(some, weight))
            for some, found in zip(lists, scored_lists, strict=True)
        ]
