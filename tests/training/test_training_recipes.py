"""Each recipe's loss against its formula, computed independently."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import write_base
from toys import toy_groups

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.training import Group
from rerank_plugins.training.config import RECIPES, Recipe, TrainingConfig
from rerank_plugins.training.model import TrainedCrossEncoder, load_for_training
from rerank_plugins.training.recipes import UNANSWERED, examples, loss_for

GROUPS = [
    *toy_groups(3),
    Group("what bako?", "is", ("the of a", "bako"), None),  # lists may differ in length
]
SCORED = [
    Group(group.query, group.positive, group.negatives, scores)
    for group, scores in zip(
        GROUPS,
        [(2.0, 0.5, 0.5, -1.0), (0.1, 0.9, 0.3, 0.2), (1.0, 0.0, 3.0, 2.0), (5.0, 6.0, 4.0)],
        strict=True,
    )
]


@pytest.fixture(scope="module")
def model(base: Path) -> TrainedCrossEncoder:
    """The toy cross-encoder, as it is trained, without dropout."""
    model = load_for_training(base, device="cpu")
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return model


def scores_of(base: Path) -> list[torch.Tensor]:
    """Logits of each group by the library's own scorer, which shares no code with a loss."""
    scorer = load_scorer(base, device="cpu")
    return [
        torch.from_numpy(
            scorer.score([(g.query, p) for p in g.passages], ScoreOptions()).logits
        ).float()
        for g in GROUPS
    ]


def loss_of(recipe: Recipe, model: TrainedCrossEncoder, groups: list[Group]) -> float:
    """The recipe's loss over all groups in one batch."""
    chosen = examples(recipe, groups)
    rows = [chosen.row(*entry) for entry in chosen.index]
    columns = [[row[name] for row in rows] for name in rows[0] if name != "label"]
    labels = [row["label"] for row in rows]
    tensors = (
        [torch.tensor(label) for label in labels]
        if isinstance(labels[0], list)
        else torch.tensor(labels)
    )
    value: torch.Tensor = loss_for(recipe, model, groups)(columns, tensors)
    return value.item()


def test_listwise_is_the_cross_entropy_of_the_positive(
    base: Path, model: TrainedCrossEncoder
) -> None:
    """All of the target's mass lies on the positive, whatever the length of the list."""
    expected = [
        torch.nn.functional.cross_entropy(scores[None], torch.tensor([0])).item()
        for scores in scores_of(base)
    ]
    assert loss_of("listwise", model, GROUPS) == pytest.approx(sum(expected) / 4, rel=1e-4)


def test_unanswered_lists_are_right_when_all_of_it_is_below_0(
    base: Path, model: TrainedCrossEncoder
) -> None:
    """One more choice, "none of these", has logit 0 and is right where the positive is gone."""
    chosen = examples("listwise", GROUPS, unanswered=0.5, seed=3)
    without = {place for place, member in chosen.index if member == UNANSWERED}
    assert len(without) == 2
    expected = []
    for place, scores in enumerate(scores_of(base)):
        kept = torch.cat([scores[1:] if place in without else scores, torch.zeros(1)])
        right = len(kept) - 1 if place in without else 0
        expected.append(torch.nn.functional.cross_entropy(kept[None], torch.tensor([right])).item())
    rows = [chosen.row(*entry) for entry in chosen.index]
    loss = loss_for("listwise", model, GROUPS, unanswered=True)(
        [[row["query"] for row in rows], [row["passages"] for row in rows]],
        [torch.tensor(row["label"]) for row in rows],
    )
    assert loss.item() == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_unanswered_is_for_lists_alone(tmp_path: Path) -> None:
    """A pair recipe has no list from which the positive could be missing."""
    with pytest.raises(InvalidInputError, match="unanswered needs the recipe listwise"):
        TrainingConfig(out=tmp_path / "out", recipe="binary", unanswered=0.1)


def test_ranknet_is_the_mean_over_pairs_that_the_teacher_orders(
    base: Path, model: TrainedCrossEncoder
) -> None:
    """log2(1 + exp(s_low - s_high)) for each pair that the teacher orders; ties count not."""
    terms = [
        math.log2(1 + math.exp(scores[low].item() - scores[high].item()))
        for scores, group in zip(scores_of(base), SCORED, strict=True)
        for high, better in enumerate(group.teacher_scores or ())
        for low, worse in enumerate(group.teacher_scores or ())
        if better > worse
    ]
    assert loss_of("ranknet", model, SCORED) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_binary_takes_as_many_positives_as_negatives(
    base: Path, model: TrainedCrossEncoder
) -> None:
    """One positive and one negative pair a group, plain cross-entropy over them."""
    terms = []
    for scores in scores_of(base):
        terms += [math.log1p(math.exp(-scores[0])), math.log1p(math.exp(scores[1]))]
    assert loss_of("binary", model, GROUPS) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_hard_negatives_weigh_the_positive_as_much_as_its_negatives(
    base: Path, model: TrainedCrossEncoder
) -> None:
    """All negatives are used; a positive counts as often as a group has negatives."""
    weight = sum(len(group.negatives) for group in GROUPS) / len(GROUPS)
    terms = []
    for scores in scores_of(base):
        terms.append(weight * math.log1p(math.exp(-scores[0])))
        terms += [math.log1p(math.exp(score)) for score in scores[1:]]
    expected = sum(terms) / len(terms)
    assert loss_of("hard-negatives", model, GROUPS) == pytest.approx(expected, rel=1e-4)


def test_binary_trains_two_label_heads(tmp_path: Path) -> None:
    """A checkpoint with a class each for irrelevant and relevant is trained on its own head."""
    model = load_for_training(write_base(tmp_path / "two", num_labels=2), device="cpu")
    model.eval()
    loss = loss_of("binary", model, GROUPS)
    margin = [
        load_scorer(tmp_path / "two").score([(g.query, p) for p in g.passages[:2]], ScoreOptions())
        for g in GROUPS
    ]
    terms = [math.log1p(math.exp(-m.logits[0])) for m in margin]
    terms += [math.log1p(math.exp(m.logits[1])) for m in margin]
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    with pytest.raises(UnsupportedModelError, match="this one has 2"):
        loss_for("listwise", model, GROUPS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_to_train_on_is_refused(recipe: Recipe) -> None:
    """No groups is an error and no endless run."""
    with pytest.raises(InvalidInputError, match="no groups"):
        examples(recipe, [])


def test_ranknet_without_scores_is_refused() -> None:
    """The message says how many groups lack them and what to do."""
    with pytest.raises(InvalidInputError, match="1 of 4 groups lack them: name a teacher"):
        examples("ranknet", [*SCORED[:3], GROUPS[3]])
