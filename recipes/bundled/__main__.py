"""From data to the weights that ship: `python -m recipes.bundled --data DIR --work DIR --out DIR`.

Every stage leaves files in the work folder and is passed over when they are there; the long ones
resume from their last state. On two AVX2 cores: teacher 6 minutes, vocabulary 6, body 10, groups 4,
encoder 2, reranker as long as `--minutes` says, evaluation 20.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from recipes.bundled import (
    calibrate,
    card,
    corpus,
    encoder,
    evaluate,
    export,
    pairs,
    rerank,
    vocabulary,
)


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description="Make the embedded model from its data.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for what stages leave")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=45, help="of reranker training")
    parser.add_argument("--questions", type=int, default=100, help="evaluated a set; 0 for all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder, work, out = arguments.data, arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)

    corpus.run(folder, work)
    vocabulary.run(folder, work)
    pairs.run(folder, work)
    encoder.run(folder, work)
    trained = rerank.run(work)
    choice = calibrate.choose(folder, trained, work / "runs")
    (work / "choice.json").write_text(json.dumps(asdict(choice), indent=1) + "\n", encoding="utf-8")

    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    model = BertForSequenceClassification.from_pretrained(trained, dtype=torch.float32)
    settings = export.SETTINGS | {"first_stage_weight": choice.weight}
    export.reranker(
        model, tokenizer, out / "reranker", settings, scale=choice.scale, shift=choice.shift
    )
    export.encoder(np.load(work / "encoder" / "table.npy"), tokenizer, out / "encoder")
    evaluate.run(folder, out, work, arguments.questions or None)
    card.fill(out)


if __name__ == "__main__":
    main()
