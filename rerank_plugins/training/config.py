"""Configuration and result of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.scoring.base import Scorer

Recipe = Literal["binary", "hard-negatives", "listwise", "ranknet"]
RECIPES: tuple[str, ...] = get_args(Recipe)

TeacherCall = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
Teacher = str | Path | Scorer | TeacherCall

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")

_COUNTS = {
    "negatives": 1,
    "queries_per_batch": 1,
    "accumulate": 1,
    "candidates": 1,
    "evaluations": 1,
    "patience": 1,
    "held_back": 0,
    "window_words": 2,
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What to train, on what, how.

    Attributes:
        out: Folder to write; must not exist. Until it is complete, checkpoints are kept beside
            it in ``<out>.training``.
        datasets: Folders as `read_question_set` takes them.
        split: Which judgements of ``qrels/`` to learn from; None for ``train``, or for
            ``qrels.tsv`` where a folder has no splits.
        base: What `load_reranker` takes, or an encoder without a scoring head.
        recipe: ``binary``, ``hard-negatives``, ``listwise`` or ``ranknet``.
        epochs: Passes over the groups; overridden by ``minutes``.
        minutes: About how long the run may take, planning and evaluations included; None for
            ``epochs``.
        negatives: Hard negatives per question, at most.
        ranks: First-stage ranks they are drawn from, first and last.
        margin: See `mine_hard_negatives`.
        teacher: For ``ranknet``: a model name, a scorer, or a callable from pairs to scores;
            None when the data carry teacher scores.
        merge: Share of the tuned weights in a merge with the base's; None for no merge.
        queries_per_batch: Questions per batch; pair recipes take as many pairs as these have.
        accumulate: Batches per step, to save memory.
        learning_rate: Peak of AdamW's linear schedule.
        embeddings_rate: Times the learning rate for embedding tables; 4 was found to matter
            for a new vocabulary. 0 freezes them, which spares memory and time where the
            vocabulary is large and already trained.
        warmup: Share of the steps in which the rate rises.
        max_length: Tokens per pair; None for what the model can take, 512 at most.
        window_words: Train on the window of this many words that shares most with the
            question; None for whole passages, or for the windows that the base's
            ``config.json`` states.
        unanswered: Share of the groups that lose their positive, so that the model learns to
            score a list without an answer below 0; ``listwise`` alone, 0 for none. A tenth is
            a good start.
        held_back: Questions of each set held back for evaluation, at most a tenth of it.
        candidates: First-stage candidates that evaluation reranks.
        evaluations: How many times to evaluate, at most.
        patience: Evaluations without improvement before stopping early.
        licences: One per data set, or one for all; for the card.
        languages: ISO 639-1 codes, for the card.
        seed: Of everything that is drawn.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; CUDA_VISIBLE_DEVICES picks among GPUs.
        precision: ``auto`` (bf16 autocast where the hardware has it), ``fp32`` or ``bf16``.
        first_stage: Builds a first stage over passages; None for this library's BM25.
    """

    out: Path
    datasets: tuple[Path, ...] = ()
    split: str | None = None
    base: str | Path = BUNDLED
    recipe: Recipe = "listwise"
    epochs: float = 1.0
    minutes: float | None = None
    negatives: int = 7
    ranks: tuple[int, int] = (1, 50)
    margin: float | None = None
    teacher: Teacher | None = None
    merge: float | None = None
    queries_per_batch: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-5
    embeddings_rate: float = 1.0
    warmup: float = 0.1
    max_length: int | None = None
    window_words: int | None = None
    unanswered: float = 0.0
    held_back: int = 200
    candidates: int = 30
    evaluations: int = 10
    patience: int = 3
    licences: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    first_stage: Callable[[Sequence[str]], FirstStage] | None = None

    def __post_init__(self) -> None:
        choices = {"recipe": RECIPES, "device": DEVICES, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidInputError(
                    f"{name} must be one of {', '.join(allowed)} in training, but got "
                    f"{getattr(self, name)!r}"
                )
        for name, least in _COUNTS.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), minimum=least)
        for name in ("epochs", "learning_rate", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InvalidInputError(f"{name} must be above 0, but got {value}")
        if not 0 <= self.embeddings_rate < math.inf:
            raise InvalidInputError(
                f"embeddings_rate must be 0 or above, but got {self.embeddings_rate}"
            )
        self._check_lists()

    def _check_lists(self) -> None:
        if self.unanswered and self.recipe != "listwise":
            raise InvalidInputError(
                f"unanswered needs the recipe listwise, but got {self.recipe}: set unanswered=0"
            )
        for name in ("warmup", "merge", "unanswered"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidInputError(f"{name} must be in [0, 1], but got {value}")
        if len(self.licences) > 1 and len(self.licences) != len(self.datasets):
            raise InvalidInputError(
                f"licences must be one for all data sets or one per data set "
                f"({len(self.datasets)}), "
                f"but got {len(self.licences)}"
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training run will cost, said before it starts.

    Attributes:
        queries: Groups of a question and its passages.
        pairs: (query, passage) pairs in all steps together.
        steps: Optimizer steps.
        epochs: Passes over the groups that the steps make.
        seconds_per_step: Measured over a few steps on this machine.
        minutes: Steps and evaluations together.
        state_mb: Weights, gradients and optimizer state.
        memory_mb: Memory in use after the measured steps, with the optimizer state to come.
    """

    queries: int
    pairs: int
    steps: int
    epochs: float
    seconds_per_step: float
    minutes: float
    state_mb: float
    memory_mb: float

    def __str__(self) -> str:
        return (
            f"{self.queries:,} queries, {self.pairs:,} pairs in {self.steps:,} steps "
            f"({self.epochs:.2g} epochs) of {self.seconds_per_step:.2f} s: about "
            f"{self.minutes:.1f} minutes; about "
            f"{self.memory_mb:,.0f} MB of memory, {self.state_mb:,.0f} MB of it weights, "
            "gradients and optimizer state"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is decided once for a run, and read again when it resumes.

    Attributes:
        estimate: Cost; its steps are the run's.
        evaluate_every: Steps between evaluations; 0 for none.
        metrics: What the evaluator measured of the base.
    """

    estimate: Estimate
    evaluate_every: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The outcome of a training run.

    Attributes:
        out: The checkpoint folder.
        steps: Steps done; fewer than estimated when stopped early.
        best_step: Step whose weights were kept; None without held-back questions.
        estimate: What was said before the start.
        first_stage: nDCG@10 of the first stage's own order, by held-back set.
        before: nDCG@10 of the base, by held-back set; the model alone, without any blend.
        after: nDCG@10 of the weights that were kept, likewise.
        first_stage_weight: The default blend of the checkpoint: the first stage's share in the
            scores that a `Reranker` gives; 0 for none.
        blended_before: nDCG@10 of the base with that blend, which is what users get; empty
            without a blend, or without first-stage scores.
        blended_after: Likewise, of the weights that were kept.
        history: (step, mean nDCG@10) of each evaluation, with the blend where there is one;
            this decides which weights are kept.
        losses: (step, training loss since the last one).
        resumed_from: Step of the checkpoint that training resumed from; None when it began
            anew.
        seconds: Wall time of this call.
    """

    out: Path
    steps: int
    best_step: int | None
    estimate: Estimate
    first_stage: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    first_stage_weight: float
    blended_before: dict[str, float]
    blended_after: dict[str, float]
    history: list[tuple[int, float]]
    losses: list[tuple[int, float]]
    resumed_from: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Questions that evaluation reranks.

    Attributes:
        name: What logs and card call the set.
        samples: What `CrossEncoderRerankingEvaluator` takes: ``query``, ``positive`` (texts)
            and ``documents`` (the first stage's candidates, best first); and, for the default
            blend, ``scores``: the first stage's, one per document.
    """

    name: str
    samples: list[dict[str, Any]] = field(repr=False)
