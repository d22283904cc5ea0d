"""What evaluation measures: the model alone, and the default blend that users get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from rerank_plugins.candidates import Candidate
from rerank_plugins.reranking.blending import blended
from rerank_plugins.training.config import HeldBack

METRIC = "ndcg@10"
MEAN_METRIC = "eval_sequential_score"
BLENDED = "blended_"
FIRST_STAGE = "base_"


class HeldBackEvaluator(CrossEncoderRerankingEvaluator):  # type: ignore[misc]
    """Reranks the first stage's candidates; measures the model alone and its default blend.

    Args:
        held: The questions.
        weight: The blend: the first stage's share, as in `Reranker`; 0 for none. A set whose
            samples lack first-stage scores is measured without it.
    """

    def __init__(self, held: HeldBack, weight: float) -> None:
        super().__init__(
            held.samples, always_rerank_positives=False, name=held.name, write_csv=False
        )
        scored = all("scores" in sample for sample in held.samples)
        self.weight = weight if scored else 0.0

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """The metrics; the blend's nDCG@10 is the primary one where there is a blend."""
        asked = _Answers(model)
        metrics: dict[str, float] = super().__call__(asked, output_path, epoch, steps)
        if self.weight == 0.0 or asked.logits is None or asked.logits.ndim > 1:
            return metrics
        told = _Answers(model, self._blended(asked.logits))
        both = super().__call__(told, output_path, epoch, steps)
        self.primary_metric = f"{self.name}_{BLENDED}{METRIC}"
        return {**metrics, self.primary_metric: both[f"{self.name}_{METRIC}"]}

    def _blended(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same as a `Reranker` would order by, list by list."""
        parts = []
        start = 0
        for sample in self.samples:
            documents = sample["documents"]
            if not any(text in sample["positive"] for text in documents):
                continue  # the evaluator does not ask for these
            candidates = [
                Candidate(key=place, text=text, score=score, rank=place + 1)
                for place, (text, score) in enumerate(zip(documents, sample["scores"], strict=True))
            ]
            own = logits[start : start + len(documents)]
            start += len(documents)
            parts.append(blended(own, candidates, self.weight))
        return np.concatenate(parts)

    def store_metrics_in_model_card_data(self, *_: Any, **__: Any) -> None:
        """`write_card` has the figures."""


class _Answers:
    """Stands in for a model: gives logits and remembers them, or gives what it was told."""

    def __init__(self, model: Any, given: NDArray[np.float64] | None = None) -> None:
        self._model = model
        self._given = given
        self.logits: NDArray[np.float64] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, pairs: Sequence[Any], **options: Any) -> NDArray[np.float64]:
        """One logit per pair."""
        if self._given is not None:
            return self._given
        logits = self._model.predict(pairs, activation_fn=torch.nn.Identity(), **options)
        self.logits = np.asarray(logits, dtype=np.float64)
        return self.logits


def make_evaluator(held_back: Sequence[HeldBack], weight: float) -> SequentialEvaluator | None:
    """Evaluates set after set; None when nothing is held back."""
    evaluators = [HeldBackEvaluator(held, weight) for held in held_back if held.samples]
    if not evaluators:
        return None
    return SequentialEvaluator(
        evaluators, main_score_function=lambda scores: sum(scores) / len(scores)
    )


def figures(
    held_back: Sequence[HeldBack],
    metrics: Mapping[str, Any],
    *,
    prefix: str = "",
    kind: str = "",
) -> dict[str, float]:
    """nDCG@10 by set, out of an evaluator's metrics; a set that lacks it is left out.

    Args:
        held_back: Whose figures.
        metrics: As the evaluator, or the trainer's log, names them.
        prefix: ``eval_`` for the trainer's log.
        kind: `FIRST_STAGE` or `BLENDED` for theirs; empty for the model alone.
    """
    names = {held.name: f"{prefix}{held.name}_{kind}{METRIC}" for held in held_back}
    return {name: float(metrics[key]) for name, key in names.items() if key in metrics}
