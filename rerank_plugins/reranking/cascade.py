"""Cascade: a small model prefilters, a large one reranks the top of the list."""

from __future__ import annotations

from typing import Any

from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.reranking.deadline import now
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.reranking.scored import ScoringPlan

# Of the time that is left: the small model's, at most. The rest is the big one's.
_SHARE = 0.5


class Cascade(Reranker):
    """Prefilters with a small model and reranks only the top ``head`` with a large one.

    ::

        small = load_reranker("bundled", long_passages="first")
        big = load_reranker("BAAI/bge-reranker-large", top_n=5)
        Cascade(small, big, head=20).rerank(query, passages)

    The small model orders the whole list; the big one scores and orders its first ``head``.
    What is left stays below them in the small model's order, with ``source`` "small_model" and
    no logit: scores of two models are never compared. Where the big model blends
    (``first_stage_weight``), it blends with the small one's scores, in which the first stage's
    are already blended by the small one's own weight. Lists that are no longer
    than ``head`` go to the big model alone. What a ``head`` costs in quality depends on both
    models: measure it on your own questions.

    Fits wherever a `Reranker` does, both adapters included.

    Args:
        small: Orders the whole list, by its own settings and blend.
        big: Scores the head. Its settings are the cascade's: ``top_n``, ``scale``,
            ``on_error`` ... A ``score_threshold`` holds against its scores, so what it did
            not score is dropped then. A ``deadline_ms`` counts the small model's time too,
            which may take half of it; then the head is scored in the small model's order.
        head: How many passages of a query the big model scores, at most.

    Raises:
        InvalidInputError: If one of the two is no `Reranker`; ``big`` is a cascade itself;
            ``small`` has a ``top_n``, ``score_threshold`` or ``deadline_ms``, and might lose
            passages; or ``head`` is not a whole number of at least 1.
    """

    def __init__(self, small: Reranker, big: Reranker, *, head: int = 20) -> None:
        for name, one in (("small", small), ("big", big)):
            if not isinstance(one, Reranker):
                raise InvalidInputError(
                    f"{name} must be a Reranker, as load_reranker() makes it, but got "
                    f"{type(one).__name__}"
                )
        if isinstance(big, Cascade):
            raise InvalidInputError(
                "big must not be a cascade; three models are "
                "Cascade(Cascade(smallest, middle), biggest)"
            )
        limits = ("top_n", "score_threshold", "deadline_ms")
        given = {name: getattr(small, name) for name in limits if getattr(small, name) is not None}
        if given:
            raise InvalidInputError(
                f"small must keep every passage, but got one with {given}; give these to big"
            )
        super().__init__(
            big.scorer,
            top_n=big.top_n,
            score_threshold=big.score_threshold,
            scale=big.scale,
            deduplicate=big.deduplicate,
            long_passages=big.options.long_passages,
            windows=big.options.windows,
            max_tokens=big.options.max_tokens,
            batch_tokens=big.options.batch_tokens,
            first_stage_weight=big.first_stage_weight,
            on_error=big.on_error,
            deadline_ms=big.deadline_ms,
        )
        self.small = small
        self.head = check_count("head", head, minimum=1)

    def warm_up(self) -> None:
        """Both models' own."""
        self.small.warm_up()
        super().warm_up()

    def describe(self) -> dict[str, Any]:
        """The large model's description, with ``head`` and the small model's."""
        return {**super().describe(), "head": self.head, "small": self.small.describe()}

    def _plans(
        self,
        queries: list[str],
        lists: list[list[Candidate]],
        stop_at: float | None = None,
    ) -> list[ScoringPlan]:
        plans = super()._plans(queries, lists)
        long = [number for number, some in enumerate(lists) if len(some) > self.head]
        orders = self.small._orders(  # noqa: SLF001  (a Reranker itself)
            [queries[number] for number in long],
            [lists[number] for number in long],
            None if stop_at is None else now() + _SHARE * (stop_at - now()),
        )
        for number, (order, opinions) in zip(long, orders, strict=True):
            plans[number] = ScoringPlan(order, self.head, "small_model", opinions)
        return plans
