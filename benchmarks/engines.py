"""Engines side by side: torch and OpenVINO, fp32, bf16 and int8, beside ``CrossEncoder.predict``.

    python benchmarks/engines.py [--shapes 2x768 12x768 bundled] [--candidates 40] [--rounds 3]
    taskset -c 1 python benchmarks/engines.py --processor-time --avx2

Each shape is a BERT with random weights (weights change no time), four times the hidden size
within; ``bundled`` is the model that ships. ``CrossEncoder.predict`` is what LangChain's and
LlamaIndex's own classes call. All take turns, round by round, with tokenization; medians are
printed for two loads: one query with passages of 20 to 500 words in four languages, and pairs
of 256 tokens each, which leave no padding to save. The last column is of the forward pass
alone, 4 rows of 256 tokens, torch's batch: operations of the whole model per second as a part of
this machine's matrix-product peak in the same precision (oneDNN, 2048 x 2048). It may be above
100%: the last layer is computed for first tokens alone.

With ``--processor-time`` seconds are those of the process, which other processes on a busy
machine do not change: use it with one core. ``--avx2`` hides everything beyond AVX2 (VNNI,
AVX-512, bf16) from oneDNN, torch, OpenVINO and the choice of engines: an emulation of an older
processor, whose caches and clock stay this one's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
if "--avx2" in sys.argv:  # read by the libraries when they are imported
    os.environ.update(AVX2)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _common import checkpoint, exactly, machine  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from rerank_plugins.models.catalog import bundled_folder  # noqa: E402
from rerank_plugins.models.loading import load_reranker, load_scorer  # noqa: E402
from rerank_plugins.samples import load_passages, load_questions  # noqa: E402
from rerank_plugins.scoring import quantization  # noqa: E402
from rerank_plugins.scoring.checkpoint import read_checkpoint  # noqa: E402
from rerank_plugins.scoring.encoding import Batch  # noqa: E402
from rerank_plugins.scoring.engines import native_bf16  # noqa: E402
from rerank_plugins.scoring.linear import Int8Linear, Linear  # noqa: E402
from rerank_plugins.scoring.token_cache import TokenCache  # noqa: E402

ROWS, WIDTH = 4, 256
WAYS = (
    "torch-fp32",
    "torch-bf16",
    "torch-int8",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
)
PREDICT = "CrossEncoder.predict"
Clock = Callable[[], float]


def mixed_passages(count: int) -> list[str]:
    """Texts of 20 to 500 words, each of one language, no two alike."""
    rng = random.Random(0)
    by_language: dict[str, list[str]] = {}
    for passage in load_passages():
        by_language.setdefault(passage.language, []).extend(passage.text.split())
    texts = []
    for number in range(count):
        words = by_language[sorted(by_language)[number % len(by_language)]]
        length = int(np.exp(rng.uniform(np.log(20), np.log(500))))
        start = rng.randrange(max(1, len(words) - length))
        texts.append(" ".join(words[start : start + length]))
    return texts


def even_passages(query: str, count: int) -> list[str]:
    """Texts that are of 256 tokens together with the query; their first words differ."""
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    texts = mixed_passages(count)
    return [
        exactly(tokenizer, query, [str(n), *text.split()], WIDTH) for n, text in enumerate(texts)
    ]


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int, clock: Clock) -> dict[str, float]:
    """Median seconds of each, after one call each to warm up."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            taken[name].append(clock() - start)
    return {name: median(some) for name, some in taken.items()}


def products() -> dict[str, tuple[Callable[[], Any], float]]:
    """Square matrix products by precision, and their operations in 10^9: the machine's best.

    In fp32 by oneDNN: torch's own product goes to MKL, which is at half of that on AMD.
    """
    size = 2048
    work = 2 * size**3 / 1e9
    one, two, none = torch.rand(size, size), torch.rand(size, size) - 0.5, torch.zeros(size)
    found: dict[str, tuple[Callable[[], Any], float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "fp32" or native_bf16():
            linear, rows = Linear(two.to(dtype), none.to(dtype)), one.to(dtype)
            found[name] = (lambda linear=linear, rows=rows: linear(rows), work)
    int8 = Int8Linear(two, none)
    found["int8"] = (lambda: int8(one), work)
    return found


def work_of(config: dict[str, Any]) -> float:
    """Operations, in 10^9, of the whole model on the fixed batch, what could be left out too."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    inner = config["intermediate_size"]
    a_token = layers * (2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * WIDTH * hidden)
    return ROWS * WIDTH * a_token / 1e9


def measure(shape: str, folder: Path, options: argparse.Namespace, clock: Clock) -> None:
    """Prints the table of one shape."""
    query = load_questions()[0].text
    mixed, even = mixed_passages(options.candidates), even_passages(query, options.candidates)
    ways = [way for way in options.ways if not way.endswith("bf16") or native_bf16()]
    if "openvino-int8" in ways:
        pairs = [(query, text[:400]) for text in mixed[:24]]
        quantization.quantize(load_scorer(folder, engine="openvino"), pairs=pairs)
    config = json.loads((folder / "config.json").read_text())
    ids = np.random.default_rng(0).integers(5, config["vocab_size"], (ROWS, WIDTH))
    types = np.zeros_like(ids) if read_checkpoint(folder).with_types else None
    batch = Batch(ids, np.ones_like(ids), types)

    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    calls: dict[str, dict[str, Callable[[], Any]]] = {"mixed": {}, "even": {}, "forward": {}}
    for load, texts in (("mixed", mixed), ("even", even)):
        pairs = [(query, text) for text in texts]
        calls[load][PREDICT] = lambda pairs=pairs: theirs.predict(pairs)
    for way in ways:
        engine, precision = way.split("-")
        reranker = load_reranker(folder, device="cpu", engine=engine, precision=precision)
        reranker.rerank(query, even[:1])
        model = reranker.scorer._load()[0]  # noqa: SLF001
        calls["forward"][way] = lambda model=model: model.engine.logits(batch)
        for load, texts in (("mixed", mixed), ("even", even)):
            calls[load][way] = lambda reranker=reranker, texts=texts: reranker.rerank(query, texts)
    peaks = products()
    took = {load: in_turn(some, options.rounds, clock) for load, some in calls.items()}
    product = in_turn({name: call for name, (call, _) in peaks.items()}, 5, clock)
    peak = {name: work / product[name] for name, (_, work) in peaks.items()}
    told = ", ".join(f"{name} {value:.0f}" for name, value in peak.items())
    print(f"\n{shape}, {options.candidates} passages; peak in 10^9 operations per second: {told}\n")
    print("| passages/s (x CrossEncoder.predict) | mixed | 256 tokens each | of the peak |")
    print("|---|---|---|---|")
    for name in (PREDICT, *ways):
        cells = [
            f"{options.candidates / took[load][name]:.1f} "
            f"({took[load][PREDICT] / took[load][name]:.1f})"
            for load in ("mixed", "even")
        ]
        part = "" if name == PREDICT else (
            f"{work_of(config) / took['forward'][name] / peak[name.split('-')[1]]:.0%}"
        )  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} | {part} |", flush=True)


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["2x768", "12x768", "bundled"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--avx2", action="store_true", help="emulate a processor without more")
    options = parser.parse_args()
    if options.avx2:
        torch.cpu.get_capabilities = lambda: {"avx2": True}
    print(machine(), f"emulated: {AVX2}" if options.avx2 else "")
    clock = time.process_time if options.processor_time else time.perf_counter
    # A text is tokenized once and remembered; here each time.
    forgetful = patch("rerank_plugins.scoring.loaded.TokenCache", lambda: TokenCache(0))
    # How near int8 is to fp32 says nothing with random weights: two pairs, so that it is over.
    hasty = patch.multiple(quantization, _QUERIES_AT_LOAD=1, _PASSAGES_AT_LOAD=2)
    with forgetful, hasty, tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            measure(shape, checkpoint(Path(temporary) / shape, shape), options, clock)


if __name__ == "__main__":
    main()
