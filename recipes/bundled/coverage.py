"""How many pieces it takes for texts that were kept aside to be cut as the whole e5 cuts them.

    python -m recipes.bundled.coverage --data DIR --work DIR

Prints, by the number of pieces kept, the share of texts of the evaluation sets and of SaudiNewsNet
that have no other piece, and the megabytes that those pieces take.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np

from recipes.bundled import data, e5, pieces
from recipes.bundled.evaluate import SETS

NEWS = ("saudinewsnet-ar/train/corpus.jsonl.gz", 6_000)
STEPS = (0, 4_000, 8_000, 16_000, 28_000, 48_000)
# A row of 384 numbers in 4-bit blocks of 32 with a scale, and its line in tokenizer.json.
BYTES = 384 * 4.5 / 8 + 33
TOKENS = 510


def texts(folder: Path) -> list[str]:
    """Passages and questions of the evaluation sets, and news."""
    found = [
        record["text"]
        for name, _ in SETS
        for kind in ("corpus", "queries")
        for record in data.read_lines(folder / name / f"{kind}.jsonl.gz")
    ]
    path, number = NEWS
    return found + [record["text"] for record in islice(data.read_lines(folder / path), number)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Share of texts cut as the whole e5 cuts them.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    _, teacher = e5.load(e5.fetch(given.work))
    teacher.no_padding()
    teacher.no_truncation()
    vocabulary = json.loads(teacher.to_str())["model"]["vocab"]
    kept = json.loads((given.work / "pieces.json").read_text(encoding="utf-8"))
    left = sorted(set(range(len(vocabulary))) - set(kept))
    # As `pieces.choose` would continue: our scripts' pieces in order of probability, then others'.
    left.sort(key=lambda piece: not pieces.is_ours(vocabulary[piece][0]))
    place = np.zeros(len(vocabulary) + len(teacher.get_added_tokens_decoder()), dtype=np.intp)
    place[left] = np.arange(1, len(left) + 1)
    normal = pieces.normalizer()
    cuts = teacher.encode_batch_fast(
        [normal.normalize_str(text) for text in texts(given.data)], add_special_tokens=False
    )
    last = np.array([place[cut.ids[:TOKENS]].max(initial=0) for cut in cuts])
    print(f"{len(last)} texts\n\n| pieces | texts cut alike | MB more |\n|---|---|---|")
    for more in STEPS:
        share = (last <= more).mean()
        print(f"| {len(kept) + more:,} | {100 * share:.2f}% | {more * BYTES / 1e6:.1f} |")


if __name__ == "__main__":
    main()
