"""What sharing a query's prefix saves a causal reranker: tokens and processor seconds.

``python benchmarks/prefix_reuse.py`` makes Qwen3-0.6B's shape, cut to some layers, with random
weights: 50 passages of 150 tokens behind an instruction of 60, with and without reuse, beside
sentence-transformers' ``CrossEncoder.predict``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }} {% endif %}{% endfor %}"
    "{{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }} sep "
    "{{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }} sep"
)


def checkpoint(folder: Path, layers: int) -> None:
    """Random weights at the model's shape; every word of the vocabulary is one token."""
    words = {f"w{n}": n + 5 for n in range(2000)}
    vocabulary = {"<pad>": 0, "<eos>": 1, "yes": 2, "no": 3, "sep": 4, **words}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="sep"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", model_max_length=4096
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def main() -> None:
    """Prints a row per way."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--passages", type=int, default=50)
    options.add_argument("--repeats", type=int, default=2)
    given = options.parse_args()
    random = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(f"w{n}" for n in random.integers(0, 2000, words))

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkpoint(folder, given.layers)
        instruction, query = text(60), text(12)
        pairs = [(query, text(150)) for _ in range(given.passages)]
        scorer = load_scorer(folder, precision="fp32", device="cpu", instruction=instruction)
        engine = scorer._load()[0].engine  # noqa: SLF001
        from sentence_transformers import CrossEncoder

        peer = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})

        def ours(*, reuse: bool) -> tuple[np.ndarray, int]:
            engine.reuse, engine.computed_tokens = reuse, 0
            engine._kept.clear()  # noqa: SLF001
            return scorer.score(pairs, ScoreOptions()).logits, engine.computed_tokens

        def theirs() -> tuple[np.ndarray, int]:
            found = peer.predict(pairs, prompt=instruction, activation_fn=torch.nn.Identity())
            return found, given.passages * (60 + 12 + 150 + 2)

        ways = {
            "prefix reused": lambda: ours(reuse=True),
            "prefix computed anew": lambda: ours(reuse=False),
            "CrossEncoder.predict": theirs,
        }
        expected = theirs()[0]
        times: dict[str, list[float]] = {name: [] for name in ways}
        counts, far = {}, {}
        for _ in range(given.repeats):
            for name, way in ways.items():
                start = time.process_time()
                found, counts[name] = way()
                times[name].append(time.process_time() - start)
                far[name] = float(np.abs(found - expected).max())
        print(f"{given.passages} passages, {given.layers} layers, torch {torch.__version__}")
        for name in ways:
            seconds = float(np.median(times[name]))
            print(f"{name:22} {counts[name]:6} tokens {seconds:7.2f} s of processor time, ", end="")
            print(f"logits within {far[name]:.1e}")


if __name__ == "__main__":
    main()
