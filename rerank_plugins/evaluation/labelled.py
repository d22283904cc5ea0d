"""Judged questions as lists to calibrate or measure a model with."""

from __future__ import annotations

from rerank_plugins.first_stage.base import FirstStage
from rerank_plugins.scoring.agreement import LabelledList
from rerank_plugins.training.data import QuestionSet


def labelled_lists(
    data: QuestionSet, first_stage: FirstStage, candidates: int
) -> list[LabelledList]:
    """Each question with what a first stage finds, and the relevant passages that it misses.

    Args:
        data: Questions, passages and judgements.
        first_stage: Over the passages, in their order.
        candidates: How many it brings, at most.
    """
    ids = list(data.corpus)
    lists = []
    for query, text in data.queries.items():
        judged = data.qrels[query]
        found = [ids[hit.key] for hit in first_stage.search(text, candidates)]
        found += [one for one, grade in judged.items() if grade > 0 and one not in found]
        lists.append(
            LabelledList(
                text,
                [data.corpus[one] for one in found],
                [max(0.0, judged.get(one, 0.0)) for one in found],
            )
        )
    return lists
