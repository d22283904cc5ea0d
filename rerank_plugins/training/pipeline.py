"""From folders of questions to a trained checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.training.config import HeldBack, TrainingConfig, TrainingResult
from rerank_plugins.training.data import (
    QuestionSet,
    hold_back,
    qrels_splits,
    read_question_set,
)
from rerank_plugins.training.loop import check_out, fit
from rerank_plugins.training.mining import Group, mine_hard_negatives

logger = logging.getLogger(__name__)

# At most this share of a set is held back, so that a small one keeps something to learn.
_HELD_BACK_SHARE = 10


def train(config: TrainingConfig) -> TrainingResult:
    """Reads the sets, holds a part back, mines negatives, and trains.

    Run the same configuration again to resume from its last checkpoint. Ctrl-C and SIGTERM
    write one first, so that no step is repeated.

    Raises:
        InvalidInputError: ``out`` exists, data or options are invalid, the time budget is too
            small, or checkpoints of another configuration lie beside ``out``.
        ModelError: If the base or the teacher cannot be used.
        KeyboardInterrupt: The run was interrupted.
    """
    if not config.datasets:
        raise InvalidInputError("datasets must name at least one folder, but got none")
    check_out(config.out)
    for model in (config.base, config.teacher):
        if isinstance(model, str | Path):
            load_scorer(model)  # refuses a wrong name; loads nothing
    sets = [
        read_question_set(folder, split=_split(Path(folder), config.split))
        for folder in config.datasets
    ]
    if config.recipe == "ranknet" and config.teacher is None:
        _check_taught(sets)
    groups: list[Group] = []
    held: list[HeldBack] = []
    facts: list[dict[str, Any]] = []
    for place, (folder, found) in enumerate(zip(config.datasets, sets, strict=True)):
        data = found
        if any(fact["name"] == data.name for fact in facts):
            data = replace(data, name=str(folder))
        queries = min(config.held_back, len(data.queries) // _HELD_BACK_SHARE)
        part, back = hold_back(data, queries, seed=config.seed)
        mined = mine_hard_negatives(
            part.corpus,
            part.queries,
            part.qrels,
            _first_stage(config, list(part.corpus.values())),
            ranks=config.ranks,
            negatives=config.negatives,
            margin=config.margin,
            answers=part.answers,
            teacher_scores=part.teacher_scores,
            seed=config.seed,
        )
        groups.extend(mined)
        if back is not None:
            held.append(held_back_samples(config, back))
        licences = config.licences
        facts.append(
            {
                "name": data.name,
                "licence": licences[place % len(licences)] if licences else None,
                "questions": len(part.queries),
                "groups": len(mined),
                "held_back": 0 if back is None else len(back.queries),
            }
        )
    return fit(config, groups, held, facts)


def held_back_samples(config: TrainingConfig, data: QuestionSet) -> HeldBack:
    """The questions of a set with the first stage's candidates for them.

    Questions for which it finds fewer than two passages are left out: they cannot be ordered.
    """
    texts = list(data.corpus.values())
    stage = _first_stage(config, texts)
    samples: list[dict[str, Any]] = []
    for query, text in data.queries.items():
        finds = stage.search(text, config.candidates)
        sample: dict[str, Any] = {
            "query": text,
            "positive": [data.corpus[doc] for doc in data.positives(query)],
            "documents": [texts[find.key] for find in finds],
        }
        if all(find.score is not None for find in finds):
            sample["scores"] = [find.score for find in finds]
        samples.append(sample)
    kept = [sample for sample in samples if len(sample["documents"]) > 1]
    if len(kept) < len(samples):
        logger.info(
            "%s: left out %d of %d held-back questions: the first stage finds fewer than two "
            "passages for them",
            data.name,
            len(samples) - len(kept),
            len(samples),
        )
    return HeldBack(data.name, kept)


def _split(folder: Path, split: str | None) -> str | None:
    """The judgements to learn from: never silently those of a test."""
    found = qrels_splits(folder)
    if split is not None or not found or (folder / "qrels.tsv").is_file():
        return split
    if "train" in found:
        return "train"
    raise InvalidInputError(
        f"{folder} has no qrels/train.tsv; to train on one of {', '.join(found)}, give split"
    )


def _check_taught(sets: Sequence[QuestionSet]) -> None:
    """Refuses ``ranknet`` where neither a teacher nor the data give scores."""
    without = [data.name for data in sets if not data.teacher_scores]
    if without:
        raise InvalidInputError(
            f"the recipe ranknet needs a teacher's scores, but {', '.join(without)} has none: name "
            "a teacher, or give the qrels a column teacher-score"
        )


def _first_stage(config: TrainingConfig, texts: Sequence[str]) -> FirstStage:
    if config.first_stage is not None:
        return config.first_stage(texts)
    from rerank_plugins.first_stage.bm25 import BM25

    stage: FirstStage = BM25(texts, engine="bm25s")
    return stage
