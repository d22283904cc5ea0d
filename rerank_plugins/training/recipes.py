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

The Polish card then merges original and fine-tuned weights: `rerank_plugins.training.merge`.
"""  # noqa: E501

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Examples:
    """What a recipe trains on; rows are made when needed, so that texts are not held twice.

    Attributes:
        index: One entry per row: the group's position, and which of its passages (0 for all
            of them, in a recipe that takes lists).
        row: Makes the row from such an entry.
        pairs_per_row: How many (query, passage) pairs a row has, on average.
    """

    index: list[tuple[int, int]]
    row: Callable[[int, int], Row]
    pairs_per_row: float


def examples(recipe: Recipe, groups: Sequence[Group]) -> Examples:
    """The rows that the recipe makes of the groups.

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

    def listed(place: int, _: int) -> Row:
        group = groups[place]
        if recipe == "ranknet":
            label = list(group.teacher_scores or ())
        else:
            label = [_ONE_HOT] + [0.0] * len(group.negatives)
        return {"query": group.query, "passages": list(group.passages), "label": label}

    passages = sum(len(group.passages) for group in groups)
    return Examples([(place, 0) for place in range(len(groups))], listed, passages / len(groups))


def loss_for(recipe: Recipe, model: CrossEncoder, groups: Sequence[Group]) -> torch.nn.Module:
    """The recipe's loss on the model.

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
        loss = ListNetLoss(model, mini_batch_size=-1)
    else:
        loss = RankNetLoss(model, mini_batch_size=-1)
    return loss


class _TwoLabelCrossEntropy(CrossEntropyLoss):  # type: ignore[misc]
    """Cross-entropy for a model with one label per class, from the same rows."""

    def forward(self, inputs: Any, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().forward(inputs, labels.long(), **kwargs)
        return loss
