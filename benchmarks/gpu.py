"""The torch engine beside sentence-transformers: same weights, same pairs, same device.

    python benchmarks/gpu.py                                     # bge-reranker-large's shape, CUDA
    python benchmarks/gpu.py --device cpu --precision fp32 --shape 2x768 --rounds 3

One query and 100 passages of mixed length (log-normal, median 130 words), random weights of
the shape: weights change no time. Four arms in turn, round after round, tokenization included:

- ``sentence-transformers``: ``CrossEncoder.predict`` in the same precision, its default batch;
- ``padded``: this library's batches through transformers' own forward;
- ``packed``: rows without padding, last layer for the first token alone;
- ``packed again``: the same passages for another query, so that their tokens are kept.

Prints median seconds, the process's CPU seconds (on a busy machine the fairer figure for a
CPU), ratios to the first arm, and how far the scores are apart.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.samples import load_passages, load_questions
from rerank_plugins.scoring import torch_engine
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.local import LocalScorer


def random_model(folder: Path, layers: int, hidden: int, dtype: torch.dtype) -> Path:
    """An XLM-R of that shape with a WordPiece vocabulary of the samples."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification

    trained = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    texts = [passage.text for passage in load_passages()]
    trained.train_from_iterator(texts, vocab_size=8000, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = BertTokenizer(
        vocab=str(folder / "vocab.txt"), do_lower_case=False, model_max_length=512
    )
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // (32 if hidden == 384 else 64),
        intermediate_size=4 * hidden,
        max_position_embeddings=514,
        pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=2,
        num_labels=1,
    )
    XLMRobertaForSequenceClassification(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def mixed_passages(count: int, seed: int) -> list[str]:
    """Passages of 20 to 400 words, no two rounds' alike."""
    rng = random.Random(seed)
    words = " ".join(passage.text for passage in load_passages()).split()
    passages = []
    for number in range(count):
        length = min(400, max(20, round(rng.lognormvariate(np.log(130), 0.6))))
        start = rng.randrange(len(words))
        text = (words[start:] + words)[:length]
        passages.append(f"{' '.join(text)} {seed} {number}")
    return passages


def timed(call: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds, answer."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="fp16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--shape", default="24x1024", help="layers x hidden size")
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--batch-tokens", type=int, default=None, help="padded tokens per batch")
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: give --device cpu, or run this where there is one")
    from sentence_transformers import CrossEncoder

    layers, hidden = map(int, asked.shape.split("x"))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    options = ScoreOptions()
    if asked.batch_tokens is not None:
        options = ScoreOptions(batch_tokens=asked.batch_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = random_model(Path(name), layers, hidden, dtypes[asked.precision])

        def scorer(*, packed: bool) -> LocalScorer:
            # Another revision is another set of weights: the two do not share an engine.
            made = load_scorer(
                folder,
                device=asked.device,
                precision=asked.precision,
                revision="packed" if packed else "padded",
                engine="torch",
            )
            objection = None if packed else "this arm is to run padded"
            with patch.object(torch_engine, "_against", return_value=objection):
                made.describe()
            if packed and not made._load()[0].engine.packed:  # noqa: SLF001
                raise SystemExit("the packed pass failed its trial here; see the warning above")
            return made

        padded, packed = scorer(packed=False), scorer(packed=True)
        peer = CrossEncoder(
            str(folder), device=asked.device, model_kwargs={"dtype": dtypes[asked.precision]}
        )
        questions = [question.text for question in load_questions()]
        times: dict[str, list[tuple[float, float]]] = {}
        apart = 0.0
        for turn in range(asked.rounds + 1):
            query, other = questions[turn % len(questions)], questions[(turn + 1) % len(questions)]
            passages = mixed_passages(asked.passages, turn)
            pairs = [(query, passage) for passage in passages]
            again = [(other, passage) for passage in passages]
            arms: dict[str, Callable[[], Any]] = {
                "sentence-transformers": lambda pairs=pairs: peer.predict(
                    pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
                ),
                "padded": lambda pairs=pairs: padded.score(pairs, options).logits,
                "packed": lambda pairs=pairs: packed.score(pairs, options).logits,
                "packed again": lambda pairs=again: packed.score(pairs, options).logits,
            }
            logits = {}
            for arm, call in arms.items():
                wall, cpu, logits[arm] = timed(call, asked.device)
                if turn:  # the first round warms up
                    times.setdefault(arm, []).append((wall, cpu))
            apart = max(apart, float(np.abs(logits["packed"] - logits["padded"]).max()))
    where = torch.cuda.get_device_name() if asked.device.startswith("cuda") else platform.machine()
    print(
        f"{asked.shape} {asked.precision} on {where}, {asked.passages} passages, "
        f"{asked.rounds} rounds; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {torch.get_num_threads()} threads"
    )
    base = [statistics.median(part) for part in zip(*times["sentence-transformers"], strict=True)]
    for arm, found in times.items():
        wall, cpu = (statistics.median(part) for part in zip(*found, strict=True))
        print(
            f"{arm:<22} {wall:9.4f} s   CPU {cpu:9.4f} s   "
            f"x{base[0] / wall:5.2f} (CPU x{base[1] / cpu:5.2f})"
        )
    print(f"packed and padded logits are at most {apart:.2g} apart")


if __name__ == "__main__":
    main()
