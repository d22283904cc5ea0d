"""Things that the training tests share: a task that can be learned, a plain first stage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.candidates import Candidate
from rerank_plugins.training import Group, HeldBack

TOPICS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ako", "ilu", "eno", "uri")]
FILLER = ["the", "of", "a", "near", "old", "big", "red", "then", "also"]
# Passages that answer say this word, others do not: all that there is to learn.
CUE = "is"


def passage(chance: random.Random, *, right: bool) -> str:
    """Six words, the cue among them when the passage is to be right."""
    words = [chance.choice(TOPICS if chance.random() < 0.5 else FILLER) for _ in range(6)]
    if right:
        words[chance.randrange(6)] = CUE
    return " ".join(words)


def toy_groups(count: int, *, seed: int = 0, negatives: int = 3) -> list[Group]:
    """Groups whose positives hold the cue."""
    chance = random.Random(seed)
    return [
        Group(
            f"what {chance.choice(TOPICS)}?",
            passage(chance, right=True),
            tuple(passage(chance, right=False) for _ in range(negatives)),
        )
        for _ in range(count)
    ]


def toy_held_back(count: int = 20, *, seed: int = 99) -> list[HeldBack]:
    """The same task, other questions; the first stage puts the right passage last."""
    return [
        HeldBack(
            "toy",
            [
                {
                    "query": group.query,
                    "positive": [group.positive],
                    "documents": [*group.negatives, group.positive],
                }
                for group in toy_groups(count, seed=seed)
            ],
        )
    ]


class Overlap:
    """A first stage that counts shared words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = [set(text.lower().split()) for text in texts]

    def __len__(self) -> int:
        return len(self._words)

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """Passages that share a word, most shared first, then by key."""
        wanted = set(query.lower().split())
        scored = [
            (len(wanted & words), key)
            for key, words in enumerate(self._words)
            if wanted & words and (mask is None or mask[key])
        ]
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        return [
            Candidate(key=key, text="", score=float(score), rank=rank)
            for rank, (score, key) in enumerate(scored[:k], start=1)
        ]


def write_set(
    folder: Path,
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Iterable[tuple[str, str, float]],
) -> Path:
    """A question set on disk."""
    folder.mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
