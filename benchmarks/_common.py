"""What several benchmarks need: checkpoints of real shapes, real pairs, turns, the machine."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from first_stage_scale import lines

from rerank_plugins.models.catalog import bundled_folder

SETS = ("arcd-ar/test", "fquad-fr/valid", "poquad-pl/dev", "tydiqa-en/dev")
LIBRARIES = ("torch", "transformers", "tokenizers", "openvino", "nncf", "sentence-transformers",
             "langchain-classic", "langchain-community", "llama-index-core")  # fmt: skip


@dataclass
class Job:
    """A query, its candidates, and how many tokens each pair has."""

    query: str
    passages: list[str]
    lengths: list[int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """As cross-encoders take them."""
        return [(self.query, passage) for passage in self.passages]


def checkpoint(folder: Path, shape: str) -> Path:
    """A BERT of ``layers x hidden`` with random weights, or ``bundled``; in fp32.

    The tokenizer is the embedded model's. The head's weights are large, so that scores differ.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig
    from transformers import BertForSequenceClassification as Bert

    from rerank_plugins.scoring.torch_engine import load_model

    if shape == "bundled":
        model: Any = load_model(
            bundled_folder(), torch.float32, trust_remote_code=False, allow_pickle_weights=False
        )
    else:
        layers, hidden = map(int, shape.split("x"))
        tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
        torch.manual_seed(0)
        model = Bert(
            BertConfig(
                vocab_size=tokenizer.get_vocab_size(),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=hidden // (32 if hidden == 384 else 64),
                intermediate_size=4 * hidden,
                num_labels=1,
            )
        )
        with torch.no_grad():
            model.classifier.weight *= 20
    model.save_pretrained(folder)
    # Windows, and a length below 512, are this library's own: here all read the same tokens.
    config = json.loads((folder / "config.json").read_text())
    config.pop("rerank_plugins", None)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(bundled_folder() / "tokenizer.json", folder)
    settings = json.loads((bundled_folder() / "tokenizer_config.json").read_text())
    # The name that transformers 4 knows too: some peers need that version.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def jobs(data: Path, candidates: int, tokens: int | None = None, seed: int = 0) -> Iterator[Job]:
    """Real queries with passages of the same set, the four languages in turn, without end.

    Passages are cut at 20 to 400 words (log-uniform), so that lengths are mixed as where
    splitters keep paragraphs whole; or every pair is brought to exactly ``tokens`` tokens.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    rng = random.Random(seed)
    corpora = {name: [row["text"] for row in lines(data / name / "corpus.jsonl.gz")]
               for name in SETS}  # fmt: skip
    asked = {name: [row["text"] for row in lines(data / name / "queries.jsonl.gz")]
             for name in SETS}  # fmt: skip
    while True:
        for name in SETS:
            query = rng.choice(asked[name])
            passages = []
            for text in rng.sample(corpora[name], candidates):
                words = text.split()
                if tokens is None:
                    words = words[: int(np.exp(rng.uniform(np.log(20), np.log(400))))]
                    passages.append(" ".join(words))
                else:
                    passages.append(exactly(tokenizer, query, words, tokens))
            lengths = [len(row.ids) for row in tokenizer.encode_batch(
                [(query, passage) for passage in passages])]  # fmt: skip
            yield Job(query, passages, lengths)


def exactly(tokenizer: Any, query: str, words: list[str], tokens: int) -> str:
    """As many of the words, again and again, as give the pair that many tokens; then commas."""
    chosen: list[str] = []
    room = tokens - len(tokenizer.encode(query, "").ids)
    for word in (word for _ in range(tokens) for word in words):
        room -= len(tokenizer.encode(word, add_special_tokens=False).ids)
        if room < 0:
            break
        chosen.append(word)
    text = " ".join(chosen)
    return text + " ," * (tokens - len(tokenizer.encode(query, text).ids))


def work_of(folder: Path, lengths: list[int]) -> float:
    """Operations, in 10^9, of the whole model without padding: products and attention."""
    config = json.loads((folder / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tokens = sum(2 * (4 * hidden**2 + 2 * hidden * inner) * n + 4 * hidden * n**2 for n in lengths)
    return config["num_hidden_layers"] * tokens / 1e9


def ratio(times: list[float], base: list[float]) -> float:
    """Median over the rounds of how many times longer the first took than the second."""
    return median(one / other for one, other in zip(times, base, strict=True))


def machine() -> str:
    """Processor, cores, versions, the moment and its load."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        named = {name.strip(): value.strip() for name, value in fields.items()}
        known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16")
        flags = [flag for flag in known if flag in named.get("flags", "").split()]
        model = f"{named.get('model name', model)} ({', '.join(flags)})"
    installed = {found.name: found.version for found in distributions()}
    versions = [f"{name} {installed[name]}" for name in LIBRARIES if name in installed]
    return (
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"{', '.join(versions)}; {load()}"
    )


def load() -> str:
    """The moment, and how many processes wanted a core in the last minute."""
    now = datetime.now(timezone.utc)
    return f"{now:%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.1f}"
