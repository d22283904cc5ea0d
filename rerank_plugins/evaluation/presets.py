"""The model cards' protocols, by name, with the figures that each card reports.

The reported figures are the cards' own; they were not measured here, since the weights were
not available. They are here for users who have the weights and the data, to compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rerank_plugins.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Preset:
    """How one card was measured.

    Attributes:
        name: What `rerank-plugins evaluate --preset` takes.
        model: Whose card it is.
        measures: For `compare`.
        candidates: Passages scored per query; None for all given ones.
        reported: By measure, what the card reports, between 0 and 1.
        data: What to evaluate on, and in which form.
        note: What the figures are, and what the card leaves open.
        others: What the card reports of other models, by name and measure.
    """

    name: str
    model: str
    measures: tuple[str, ...]
    candidates: int | None
    reported: Mapping[str, float]
    data: str
    note: str
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            name="ara-pairs",
            model="Omartificial-Intelligence-Space/ARA-Reranker-V1",
            measures=("MRR", "MAP", "nDCG@10"),
            candidates=None,
            reported={"MRR": 0.934, "MAP": 0.9335, "nDCG@10": 0.951},
            data="--pairs FILE: query, passage, 0 or 1",
            note="3,000 labelled pairs, grouped by query, scored and ranked",
            others={
                "BAAI/bge-reranker-v2-m3": {"MRR": 0.902, "MAP": 0.902, "nDCG@10": 0.927},
                "cross-encoder/ms-marco-MiniLM-L-12-v2": {
                    "MRR": 0.664,
                    "MAP": 0.664,
                    "nDCG@10": 0.750,
                },
                "cross-encoder/ms-marco-MiniLM-L-6-v2": {
                    "MRR": 0.631,
                    "MAP": 0.631,
                    "nDCG@10": 0.725,
                },
            },
        ),
        Preset(
            name="mmarco-fr",
            model="antoinelouis/crossencoder-camembert-L2-mmarcoFR",
            measures=("MRR@10", "Recall@10", "Recall@100", "Recall@500"),
            candidates=1000,
            reported={
                "MRR@10": 0.2126,
                "Recall@10": 0.4111,
                "Recall@100": 0.7274,
                "Recall@500": 0.9310,
            },
            data="--dataset DIR --first-stage run:FILE: mMARCO French small dev and its candidates",
            note="1,000 given candidates a query, reranked",
        ),
        Preset(
            name="cmteb-reranking",
            model="BAAI/bge-reranker-large",
            measures=("MAP",),
            candidates=None,
            reported={"MAP": 0.6610},
            data="--pairs FILE: JSON lines of query, positive and negative, one file per task",
            note="the figure is the average over the tasks of C-MTEB reranking, not one task's",
        ),
        Preset(
            name="pirb",
            model="sdadas/polish-reranker-bge-v2",
            measures=("nDCG@10",),
            candidates=100,
            reported={"nDCG@10": 0.6421},
            data="--dataset DIR, one folder per task, and a first stage",
            note=(
                "the figure is the average over PIRB's tasks; first stage and number of "
                "candidates are not restated here: take those of the benchmark"
            ),
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InvalidInputError: If there is no such preset; the message lists them.
    """
    if name not in PRESETS:
        raise InvalidInputError(f"preset must be one of {', '.join(PRESETS)}, but got {name!r}")
    return PRESETS[name]
