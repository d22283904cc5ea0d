"""From data to the weights that ship: `python -m recipes.bundled --data DIR --work DIR --out DIR`.

Every stage leaves files in the work folder and is skipped when they are there; training resumes
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from recipes.bundled import calibrate, card, evaluate, export, groups, pieces, rerank


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description="Make the bundled models from their data.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for what stages leave")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over the groups")
    parser.add_argument("--device", default="auto", help="of the training: auto, cpu, cuda, mps")
    parser.add_argument("--questions", type=int, default=0, help="evaluated per set; 0 for all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder, work, out = arguments.data, arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)

    pieces.run(folder, work)
    groups.run(folder, work)
    trained = rerank.run(work, epochs=arguments.epochs, device=arguments.device)
    choice = calibrate.choose(folder, trained, work / "runs")
    (work / "choice.json").write_text(json.dumps(asdict(choice), indent=1) + "\n", encoding="utf-8")

    export.text_encoder(work, out / "encoder")
    export.cross_encoder(
        BertForSequenceClassification.from_pretrained(trained, dtype=torch.float32),
        Tokenizer.from_file(str(work / "tokenizer.json")),
        out / "reranker",
        export.SETTINGS | {"first_stage_weight": choice.weight},
        scale=choice.scale,
        shift=choice.shift,
    )
    evaluate.run(folder, out, work, arguments.questions or None, cross_encoder=True)
    card.fill(out)


if __name__ == "__main__":
    main()
