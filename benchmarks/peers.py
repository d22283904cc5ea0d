"""Rerankers side by side: this library and its peers, same weights, same pairs, in turn.

    python benchmarks/peers.py --data DIR [--environments DIR] [--shapes 2x768 12x768 ...]
        [--parts shapes latency overhead] [--candidates 100] [--rounds 5] [--peers NAME ...]

DIR of the data holds one folder a set and split with corpus.jsonl.gz and queries.jsonl.gz.
Peers that clash with this environment get a separate one under `--environments`, made when
it is not there; without that option they are left out. What does not install or run is in the
table, with the reason.

`shapes`: a query and its candidates, another query each round; everyone's time from texts to
scores, one after the other in each round. Times are medians, ratios medians of the rounds'
ratios, so that a busy machine harms them little. "Peak" is the fp32 matrix product, measured
in the same rounds; the work is the whole model's, without padding. "Apart" is the largest
difference of a probability to our fp32. On a machine that is busy with other work, run under
`taskset -c 0` with `--clock cpu`: processor seconds on one core, which others hardly change.
`latency`: one query, 50 candidates, the bundled cross-encoder in everyone's hands, and ours beside
it as they ship: `bundled-encoder` with passages new and known, `bundled`, and both in a `Cascade`;
`overhead`: our adapters and cache. `bundled_models.py` has passages a second and megabytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import Job, checkpoint, jobs, load, machine, ratio, work_of
from engines import products
from numpy.typing import NDArray
from peers_worker import CLOCKS
from tabulate import tabulate

from rerank_plugins import Cascade, Reranker, load_reranker
from rerank_plugins.bundled import BundledEncoder
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import quantization
from rerank_plugins.scoring.engines import native_bf16
from rerank_plugins.scoring.vectors import VectorScorer

# A peer is called with a job; it gives seconds, and probabilities in the passages' order.
Peer = Callable[[Job], "tuple[float, NDArray[np.float64]]"]
ON_ONNX = ["flashrank", "fastembed", "transformers>=5", "onnx", "onnxscript"]
OPTIMUM = ["sentence-transformers[openvino]", "datasets"]
ENGINES = ("openvino fp32", "openvino bf16", "openvino int8", "torch fp32")
ENVIRONMENTS = {
    "FlagReranker": ("flag", ["FlagEmbedding"]),
    "rerankers": ("rerankers", ["rerankers[transformers]"]),
    "CrossEncoder openvino fp32": ("optimum", OPTIMUM),
    "CrossEncoder openvino int8": ("optimum", OPTIMUM),
    "FlashRank": ("onnx", ON_ONNX),
    "fastembed": ("onnx", ON_ONNX),
}
ONNX = ("FlashRank", "fastembed")
# Megabytes of a process that has answered one query of a file.
OURS = """
import json, sys
sys.path.insert(0, sys.argv[3])
from peers_worker import megabytes
from rerank_plugins import load_reranker
asked = json.load(open(sys.argv[2], encoding="utf-8"))
reranker = load_reranker(sys.argv[1])
reranker.rerank(asked["query"], asked["passages"])
print(megabytes())
"""
_clock = "wall"


class PeerError(Exception):
    """A peer cannot be measured; the message says why."""


def probability(logits: Any) -> NDArray[np.float64]:
    """Their sigmoid."""
    return 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))


def here(call: Callable[[Job], Any], read: Callable[[Any], Any] = np.asarray) -> Peer:
    """A peer of this process; what it answers is read outside the time."""

    def run(job: Job) -> tuple[float, NDArray[np.float64]]:
        start = CLOCKS[_clock]()
        answer = call(job)
        seconds = CLOCKS[_clock]() - start
        return seconds, np.asarray(read(answer), dtype=np.float64)

    return run


def own(folder: Path, sample: Job, ways: list[str]) -> Iterator[tuple[str, Peer]]:
    """This library, engine by engine."""
    for engine, precision in (way.split() for way in ways):
        if precision == "bf16" and not native_bf16():
            continue
        if precision == "int8":
            # How near it is to fp32 is int8_agreement.py's question: two pairs, so that it is over.
            with patch.multiple(quantization, _QUERIES_AT_LOAD=1, _PASSAGES_AT_LOAD=2):
                quantization.quantize(load_scorer(folder, max_length=512), pairs=sample.pairs)
        reranker = load_reranker(
            folder, engine=engine, precision=precision, device="cpu", max_length=512,
            long_passages="truncate", first_stage_weight=0.0, deduplicate=False,
        )  # fmt: skip
        reranker.describe()  # loads it now
        yield (
            f"ours, {engine} {precision}",
            here(
                lambda job, reranker=reranker: reranker.rerank(job.query, job.passages),
                lambda ranking: [
                    item.score for item in sorted(ranking, key=lambda item: item.candidate.key)
                ],
            ),
        )


def users(folder: Path) -> Iterator[tuple[str, Peer]]:
    """What runs in this environment: sentence-transformers, and both frameworks' classes."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document
    from llama_index.core.postprocessor import SentenceTransformerRerank
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from sentence_transformers import CrossEncoder

    model = HuggingFaceCrossEncoder(model_name=str(folder), model_kwargs={"device": "cpu"})
    compressor = CrossEncoderReranker(model=model, top_n=10**6)
    kept: dict[str, Any] = {}
    score = model.client.predict

    def predict(pairs: Any) -> Any:  # its answer has no scores
        kept["scores"] = score(pairs)
        return kept["scores"]

    object.__setattr__(model.client, "predict", predict)
    yield (
        "LangChain CrossEncoderReranker",
        here(
            lambda job: compressor.compress_documents(
                [Document(text) for text in job.passages], job.query
            ),
            lambda _: kept["scores"],
        ),
    )
    postprocessor = SentenceTransformerRerank(model=str(folder), top_n=10**6, device="cpu")

    def by_place(nodes: list[NodeWithScore]) -> list[float]:
        return [node.score for node in sorted(nodes, key=lambda node: int(node.node.node_id))]

    yield "LlamaIndex SentenceTransformerRerank", here(
        lambda job: postprocessor.postprocess_nodes(
            [NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.0)
             for place, text in enumerate(job.passages)],
            QueryBundle(job.query),
        ), by_place,
    )  # fmt: skip
    import torch

    for precision in ("fp32", "bf16") if native_bf16() else ("fp32",):
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        cross = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        yield (
            f"CrossEncoder torch {precision}",
            here(lambda job, cross=cross: cross.predict(job.pairs)),
        )


class Elsewhere:
    """A peer in a separate environment, kept running between the rounds."""

    def __init__(self, name: str, folder: Path, environments: Path | None) -> None:
        if environments is None:
            raise PeerError("left out: no --environments")
        self._file = folder / f"{name.replace(' ', '-')}.json"
        python = environment(environments, *ENVIRONMENTS[name])
        log = self._file.with_suffix(".log").open("w")
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peers_worker.py")), name, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        self.versions = self._answer()["versions"]
        self.megabytes = 0.0

    def __call__(self, job: Job) -> tuple[float, NDArray[np.float64]]:
        """Seconds that it took in its own process, and probabilities."""
        self._file.write_text(json.dumps({"query": job.query, "passages": job.passages}))
        print(
            json.dumps({"file": str(self._file), "clock": _clock}),
            file=self._process.stdin,
            flush=True,
        )
        answer = self._answer()
        self.megabytes = max(self.megabytes, answer["megabytes"])
        scores = np.asarray(answer["scores"])
        return answer["seconds"], scores if answer["scale"] != "logit" else probability(scores)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        answer = json.loads(line) if line.strip() else {"error": "its process ended"}
        if "error" in answer:
            self.close()
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends its process."""
        self._process.stdin.close()
        self._process.wait()


def environment(root: Path, name: str, packages: list[str]) -> Path:
    """The interpreter of an environment with these packages; made when there is none."""
    python, log = root / name / "bin" / "python", root / f"{name}.log"
    if not python.exists():
        root.mkdir(parents=True, exist_ok=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        torch = "torch==2.13.0"
        with log.open("w") as out:
            # Their torchvision is made for another torch; nothing here needs one.
            for command in ([sys.executable, "-m", "venv", str(root / name)],
                            [*pip, torch], [*pip, torch, *packages],
                            [*pip[:3], "uninstall", "-q", "-y", "torchvision"]):  # fmt: skip
                if subprocess.run(command, stdout=out, stderr=out, check=False).returncode:
                    raise PeerError(f"not installed: {log.read_text().splitlines()[-1]}")
    return python


def elsewhere(
    names: list[str], folder: Path, options: argparse.Namespace, failed: dict[str, str]
) -> dict[str, Elsewhere]:
    """Those of the named peers that start; the others' reasons go to ``failed``."""
    found = {}
    # A copy: what they write beside the weights would make another checkpoint of ours.
    theirs = Path(
        shutil.copytree(folder, folder / "theirs", ignore=shutil.ignore_patterns("*.xml", "*.bin"))
    )
    for name in names:
        try:
            found[name] = Elsewhere(name, theirs, options.environments)
        except Exception as error:  # noqa: BLE001, PERF203 - whatever it is, it is reported
            failed[name] = str(error).splitlines()[0][:300]
            print(f"{name}: {failed[name]}", file=sys.stderr, flush=True)
    return found


def some_jobs(
    options: argparse.Namespace, candidates: int, *, rounds: int | None = None, **more: int
) -> list[Job]:
    """A shorter one that warms up, then one a round."""
    warm = next(jobs(options.data, max(4, candidates // 4), seed=99))
    count = options.rounds if rounds is None else rounds
    return [warm, *islice(jobs(options.data, candidates, **more), count)]


Runs = dict[str, list[float]]


def in_turn(
    peers: dict[str, Peer], asked: list[Job], failed: dict[str, str]
) -> tuple[Runs, dict[str, list[NDArray[np.float64]]]]:
    """Seconds and scores of each peer for each job but the first, which warms up."""
    took: Runs = {}
    scores: dict[str, list[NDArray[np.float64]]] = {}
    for turn, job in enumerate(asked):
        for name, peer in peers.items():
            if name in failed:
                continue
            try:
                seconds, answer = peer(job)
            except PeerError as error:
                failed[name] = str(error)
                took.pop(name, None)
                continue
            scores.setdefault(name, []).append(answer)
            if turn:
                took.setdefault(name, []).append(seconds)
    return took, scores


def apart(scores: dict[str, list[NDArray[np.float64]]], name: str, base: str) -> float:
    """The largest difference of two peers' scores."""
    return max(float(np.abs(one - other).max())
               for one, other in zip(scores[name], scores[base], strict=True))  # fmt: skip


def measure(shape: str, folder: Path, options: argparse.Namespace) -> None:
    """Both tables of one shape: mixed lengths, and pairs of 256 tokens."""
    candidates = options.candidates if shape != "24x1024" else min(options.candidates, 16)
    mixed = some_jobs(options, candidates)
    fixed = some_jobs(options, min(candidates, 32), tokens=256)
    (folder / "texts").mkdir()
    with (folder / "texts" / "train.csv").open("w", newline="", encoding="utf-8") as file:
        texts = next(jobs(options.data, 230, seed=98)).passages  # as many as the smallest set has
        csv.writer(file).writerows([["text"], *[[text] for text in texts]])
    failed: dict[str, str] = {}
    peers: dict[str, Peer] = dict(own(folder, mixed[0], options.engines))
    peers |= users(folder)
    names = [name for name in ENVIRONMENTS if shape == "bundled" or name not in ONNX]
    others = elsewhere([n for n in names if n in options.peers], folder, options, failed)
    peers |= others
    product, product_work = products()["fp32"]
    peers["product"] = here(lambda _: product(), lambda _: [0.0])
    for title, asked in (("mixed lengths", mixed), ("256 tokens each", fixed)):
        before = load()
        took, scores = in_turn(peers, asked, failed)
        peak = product_work / median(took.pop("product"))
        done = [work_of(folder, job.lengths) for job in asked[1:]]
        langchain = took["LangChain CrossEncoderReranker"]
        rows = []
        for name in took:
            precision = name.split()[-1] if name.split()[-1] in ("bf16", "int8") else "fp32"
            speed = ratio(done, took[name])
            rows.append([
                name, median(took[name]), ratio(langchain, took[name]),
                ratio(took[name], took[f"ours, openvino {precision}"]),
                speed, f"{speed / peak:.0%}", apart(scores, name, "ours, openvino fp32"),
            ])  # fmt: skip
        tokens = sorted(length for job in asked[1:] for length in job.lengths)
        part = [tokens[len(tokens) * tenth // 10] for tenth in (1, 5, 9)]
        print(f"\n### {shape}, {len(asked[1].passages)} candidates, {title}\n\n{options.rounds} "
              f"rounds; tokens per pair at the 10th, 50th, 90th percentile: {part}; fp32 product "
              f"peak {peak:.0f} GFLOP/s; {before} to {load()}\n")  # fmt: skip
        print(tabulate(rows, [
            "what", "seconds", "x LangChain's", "ours, same precision, is x it",
            "GFLOP/s", "of fp32 peak", "apart",
        ], tablefmt="github", floatfmt=("", ".3f", ".2f", ".2f", ".0f", "", ".1e")))  # fmt: skip
        for name, reason in failed.items():
            print(f"\n{name}: {reason}")
        sys.stdout.flush()
    print("\n" + "; ".join(f"{name}: {peer.versions}" for name, peer in others.items()))
    for name, peer in others.items():
        if name not in failed:
            peer.close()


def as_shipped() -> Iterator[tuple[str, Peer]]:
    """The bundled models with their defaults; how they score is for the card to say."""
    encoder = BundledEncoder.default()
    encoder.encode_query(["warm up"])
    scorer = VectorScorer(encoder)
    known = Reranker(scorer, deduplicate=False)
    crossed = load_reranker("bundled", deduplicate=False)
    crossed.warm_up()
    cascade = Cascade(known, crossed, head=10)

    def scores(_: Any) -> NDArray[np.float64]:
        return np.zeros(0)

    def with_known(call: Callable[[Job], Any]) -> Peer:
        def run(job: Job) -> tuple[float, NDArray[np.float64]]:
            scorer.vectors_of(job.passages)
            # Every time another question: its vector is not known.
            asked = Job(f"{job.query} {random.random():.6f}", job.passages, job.lengths)
            return here(call, scores)(asked)

        return run

    def new(job: Job) -> Any:
        return Reranker(VectorScorer(encoder), deduplicate=False).rerank(job.query, job.passages)

    yield "bundled-encoder, passages new", here(new, scores)
    yield "bundled-encoder, passages known", with_known(lambda j: known.rerank(j.query, j.passages))
    yield (
        "the same, then bundled over ten (Cascade)",
        with_known(lambda job: cascade.rerank(job.query, job.passages)),
    )
    yield "bundled", here(lambda job: crossed.rerank(job.query, job.passages), scores)


def latency(folder: Path, options: argparse.Namespace) -> None:
    """One query with 50 candidates at a time: p50 and p95."""
    asked = some_jobs(options, 50, seed=1, rounds=options.queries)
    failed: dict[str, str] = {}
    peers = dict(own(folder, asked[0], options.engines))
    peers |= {n: p for n, p in users(folder) if n == "CrossEncoder torch fp32"}
    others = elsewhere([name for name in ONNX if name in options.peers], folder, options, failed)
    peers |= others
    shipped = dict(as_shipped())
    peers |= shipped
    before = load()
    took, scores = in_turn(peers, asked, failed)
    rows = [
        [name, *(np.percentile(times, (50, 95)) * 1000),
         ratio(times, took["ours, openvino fp32"]),
         None if name in shipped else apart(scores, name, "ours, openvino fp32")]
        for name, times in took.items()
    ]  # fmt: skip
    print(f"\n### One query, 50 candidates of mixed lengths, bundled models\n\n{options.queries} "
          f"queries, in turn; {before} to {load()}\n")  # fmt: skip
    print(tabulate(rows, ["what", "p50 ms", "p95 ms", "ours fp32 is x it", "apart"],
                   tablefmt="github", floatfmt=("", ".0f", ".0f", ".2f", ".1e")))  # fmt: skip
    print("\nMB of a process that has answered:")
    file = folder / "query.json"
    file.write_text(json.dumps({"query": asked[-1].query, "passages": asked[-1].passages}))
    for name in ("bundled", "bundled-encoder"):
        command = [sys.executable, "-c", OURS, name, str(file), str(Path(__file__).parent)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{name}: {float(told):.0f}")
    for name, reason in failed.items():
        print(f"\n{name}: {reason}")
    for name, peer in others.items():
        if name not in failed:
            print(f"{name} ({peer.versions}): {peer.megabytes:.0f}")
            peer.close()


def overhead(folder: Path, options: argparse.Namespace) -> None:
    """What the adapters add at 100 candidates, and how long 1,000 kept scores take."""
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    from rerank_plugins.langchain import CrossEncoderCompressor
    from rerank_plugins.llama_index import CrossEncoderPostprocessor

    before = load()
    # A kept score costs next to nothing, so that what is left is the library's own time.
    kept = load_reranker(folder, max_length=512, long_passages="truncate", cache=100_000)
    compressor = CrossEncoderCompressor(reranker=kept)
    postprocessor = CrossEncoderPostprocessor(reranker=kept)
    plain = load_reranker(folder, max_length=512, long_passages="truncate")
    peers: dict[str, Callable[[Job], Any]] = {
        "core, scores computed": lambda job: plain.rerank(job.query, job.passages),
        "core, scores kept": lambda job: kept.rerank(job.query, job.passages),
        "LangChain adapter, scores kept": lambda job: compressor.compress_documents(
            documents[job.query], job.query
        ),
        "LlamaIndex adapter, scores kept": lambda job: postprocessor.postprocess_nodes(
            nodes[job.query], QueryBundle(job.query)
        ),
    }
    asked = list(islice(jobs(options.data, 100, seed=2), options.rounds + 1))
    documents = {job.query: [Document(text) for text in job.passages] for job in asked}
    nodes = {
        job.query: [NodeWithScore(node=TextNode(text=text), score=0.0) for text in job.passages]
        for job in asked
    }
    for job in asked:
        kept.rerank(job.query, job.passages)

    def several(call: Callable[[Job], Any]) -> Peer:
        def run(job: Job) -> tuple[float, NDArray[np.float64]]:
            again = 20 if call is not peers["core, scores computed"] else 1
            return median(here(call, lambda _: [0])(job)[0] for _ in range(again)), np.zeros(1)

        return run

    took, _ = in_turn({name: several(call) for name, call in peers.items()}, asked, {})
    core = median(took["core, scores computed"])
    base = took["core, scores kept"]
    rows = []
    for name, times in took.items():
        added = median(one - other for one, other in zip(times, base, strict=True))
        share = f"{added / core:.2%}" if "adapter" in name else ""
        rows.append([name, median(times) * 1000, added * 1000 if share else None, share])
    print(f"\n### Adapters, 100 candidates, embedded model\n\n{options.rounds} rounds; "
          f"{before} to {load()}\n")  # fmt: skip
    print(tabulate(rows, ["what", "ms", "added ms", "of the core's time"],
                   tablefmt="github", floatfmt=".2f"))  # fmt: skip
    many = [text for job in islice(jobs(options.data, 200, seed=3), 5) for text in job.passages]
    kept.rerank(asked[0].query, many)
    times = [here(lambda _: kept.rerank(asked[0].query, many), lambda _: [0])(asked[0])[0]
             for _ in range(50)]  # fmt: skip
    distinct = len(set(many))
    print(f"\n{len(many)} pairs ({distinct} distinct) whose scores are kept: median "
          f"{median(times) * 1000:.2f} ms, best {min(times) * 1000:.2f} ms")  # fmt: skip


def main() -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--peers", nargs="*", default=list(ENVIRONMENTS), choices=ENVIRONMENTS)
    parser.add_argument("--shapes", nargs="+",
                        default=["2x768", "12x768", "6x384", "24x1024", "bundled"])  # fmt: skip
    parser.add_argument("--parts", nargs="+", default=["shapes", "latency", "overhead"],
                        choices=["shapes", "latency", "overhead"])  # fmt: skip
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=40, help="of the part latency")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    options = parser.parse_args()
    global _clock  # noqa: PLW0603 - one clock for a run
    _clock = options.clock
    print(machine())
    if _clock == "cpu":
        print(f"CPU seconds, on {len(os.sched_getaffinity(0))} core(s).")
    if not native_bf16():
        print("No bf16 here: this processor has no instructions for it.")
    for part in options.parts:
        for shape in options.shapes if part == "shapes" else ["bundled"]:
            with tempfile.TemporaryDirectory() as temporary:
                folder = checkpoint(Path(temporary), shape)
                if part == "shapes":
                    measure(shape, folder, options)
                else:
                    {"latency": latency, "overhead": overhead}[part](folder, options)


if __name__ == "__main__":
    main()
