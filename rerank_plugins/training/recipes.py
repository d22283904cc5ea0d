"""The training recipes of the five published cards, by name.

==================  ================================  ==============================  ======================
name                data                              loss                            card
==================  ================================  ==============================  ======================
``binary``          as many positive as negative      cross-entropy                   R-star, camembert-L2
                    pairs
``hard-negatives``  a positive and all of its hard    cross-entropy, the positive     ARA-Reranker-V1
                    negatives                         weighted as much as its
                                                      negatives together
``listwise``        a positive and its negatives as   cross-entropy of the softmax    BGE
                    one list                          over the list
``ranknet``         the same lists, ordered by a      RankNet over all pairs that     polish-reranker-bge-v2
                    teacher                           the teacher orders
==================  ================================  ==============================  ======================

``listwise`` may learn from questions without an answer too (``unanswered``): it then has one more
choice, "none of these", at logit 0, so that the right passage rises above 0 and lists without one
sink below it, as the no-answer choice of SQuAD 2.0's readers does (Devlin and others, 2019).

The Polish card then merges original and fine-tuned weights: `rerank_plugins.training.merge`.
"""  # noqa: E501

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    ListNetLoss,
    RankNetLoss,
)

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.training.config import Recipe
from rerank_plugins.training.mining import Group

Row = dict[str, Any]

# ListNetLoss takes the softmax of the labels as its target: with labels 1 and 0 the positive
# of a list of eight would get 28% of the mass. This label gives it all, in float32 exactly.
_ONE_HOT = 1000.0
UNANSWERED = -1


@dataclass(frozen=True, slots=True)
class Examples:
    """What a recipe trains on; rows are made when needed, so that texts are not held twice.

    Attributes:
        index: One entry per row: the group's position, and which of its passages (0 for all
            of them, in a recipe that takes lists, and `UNANSWERED` for its negatives alone).
        row: Makes the row from such an entry.
        pairs_per_row: How many (query, passage) pairs a row has, on average.
    """

    index: list[tuple[int, int]]
    row: Callable[[int, int], Row]
    pairs_per_row: float


def examples(
    recipe: Recipe, groups: Sequence[Group], *, unanswered: float = 0.0, seed: int = 0
) -> Examples:
    """The rows that the recipe makes of the groups.

    Args:
        recipe: Its name.
        groups: What to learn from.
        unanswered: Share of the groups that lose their positive, drawn at random; ``listwise``
            alone.
        seed: Of that draw.

    Raises:
        InvalidInputError: If there are no groups, or ``ranknet`` lacks teacher scores.
    """
    if not groups:
        raise InvalidInputError("there are no groups to train on: no question kept a negative")
    if recipe == "ranknet":
        without = sum(group.teacher_scores is None for group in groups)
        if without:
            raise InvalidInputError(
                f"the recipe ranknet needs a teacher's score for every passage, but "
                f"{without} of {len(groups)} groups lack them: name a teacher, or give the "
                "qrels a column teacher-score for all passages"
            )
    if recipe in ("binary", "hard-negatives"):
        whole = recipe == "hard-negatives"
        index = [
            (place, member)
            for place, group in enumerate(groups)
            for member in range(1 + (len(group.negatives) if whole else 1))
        ]

        def pair(place: int, member: int) -> Row:
            group = groups[place]
            return {
                "query": group.query,
                "passage": group.passages[member],
                "label": float(member == 0),
            }

        return Examples(index, pair, 1.0)

    def listed(place: int, member: int) -> Row:
        group = groups[place]
        if member == UNANSWERED:
            negatives = list(group.negatives)
            return {"query": group.query, "passages": negatives, "label": [0.0] * len(negatives)}
        if recipe == "ranknet":
            label = list(group.teacher_scores or ())
        else:
            label = [_ONE_HOT] + [0.0] * len(group.negatives)
        return {"query": group.query, "passages": list(group.passages), "label": label}

    passages = sum(len(group.passages) for group in groups)
    chance = random.Random(f"unanswered {seed}")  # noqa: S311
    bare = set(chance.sample(range(len(groups)), round(unanswered * len(groups))))
    index = [(place, UNANSWERED if place in bare else 0) for place in range(len(groups))]
    return Examples(index, listed, (passages - len(bare)) / len(groups))


def loss_for(
    recipe: Recipe, model: CrossEncoder, groups: Sequence[Group], *, unanswered: bool = False
) -> torch.nn.Module:
    """The recipe's loss on the model.

    Args:
        recipe: Its name.
        model: What is trained.
        groups: What it learns from.
        unanswered: Whether some of the lists have no positive; ``listwise`` alone.

    Raises:
        UnsupportedModelError: If the model has a number of labels that the recipe cannot train.
    """
    loss: torch.nn.Module
    if recipe == "binary" and model.num_labels == 2:
        loss = _TwoLabelCrossEntropy(model)
    elif model.num_labels != 1:
        allowed = "1 or 2 labels" if recipe == "binary" else "1 label"
        raise UnsupportedModelError(
            f"the recipe {recipe} trains a model with {allowed}, but this one has "
            f"{model.num_labels}: take another base"
        )
    elif recipe == "binary":
        loss = BinaryCrossEntropyLoss(model)
    elif recipe == "hard-negatives":
        mean = sum(len(group.negatives) for group in groups) / len(groups)
        loss = BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(mean))
    # A mini-batch size below 1 means all pairs of a batch in one call; the default would
    # make as many calls as a list has passages.
    elif recipe == "listwise":
        loss = (_OrNone if unanswered else ListNetLoss)(model, mini_batch_size=-1)
    else:
        loss = RankNetLoss(model, mini_batch_size=-1)
    return loss


class _OrNone(ListNetLoss):  # type: ignore[misc]
    """The listwise loss with "none of these" as one more choice, its logit fixed at 0."""

    def forward(self, inputs: Any, labels: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        answered = torch.stack([label.max() > 0 for label in labels])
        self.cross_entropy_loss = _WithNone(answered.to(self.model.device))
        loss: torch.Tensor = super().forward(inputs, labels, **kwargs)
        return loss


class _WithNone(torch.nn.Module):
    """Cross-entropy over the lists' logits and a 0, which is right where nothing else is."""

    def __init__(self, answered: torch.Tensor) -> None:
        super().__init__()
        self._answered = answered.unsqueeze(1)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        none = torch.zeros_like(logits[:, :1])
        target = torch.cat([target * self._answered, (~self._answered).to(target.dtype)], dim=1)
        return torch.nn.functional.cross_entropy(torch.cat([logits, none], dim=1), target)


class _TwoLabelCrossEntropy(CrossEntropyLoss):  # type: ignore[misc]
    """Cross-entropy for a model with one label per class, from the same rows."""

    def forward(self, inputs: Any, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().forward(inputs, labels.long(), **kwargs)
        return loss
