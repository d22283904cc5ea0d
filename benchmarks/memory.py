"""Peak memory of a process that loads a cross-encoder and scores, beside ``CrossEncoder``.

    python benchmarks/memory.py [--shapes bundled 12x768] [--candidates 8] [--stages]

Each way runs in a new process: it imports its library, loads the model, and scores one query
with passages of 20 to 500 words. Printed are of the whole process, imports included:

- peak: the most that was resident at one time (``VmHWM``);
- private: what no other process shares, at its most (``RssAnon``). Weights that are mapped from a
  file are resident but not private: processes with the same model share them, and the system can
  drop them when memory is short;
- then: resident and private memory after the answer, with the model still loaded.

``bundled`` is read as it ships, from blocks of 4 and 8 bits, and as fp32 safetensors by what
cannot read those. ``--stages`` prints where it goes. Memory is read from /proc, so Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WAYS = ("CrossEncoder", "torch-fp32", "torch-bf16", "torch-int8", "auto-auto")


def memory() -> dict[str, float]:
    """Of this process in MiB: resident, its peak, and private."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    names = {"resident": "VmRSS", "peak": "VmHWM", "private": "RssAnon"}
    return {name: int(fields[key].split()[0]) / 1024 for name, key in names.items()}


class Watch:
    """Notes the peak of private memory, by two hundred looks per second."""

    def __init__(self) -> None:
        self.private = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.private = max(self.private, memory()["private"])
            time.sleep(0.005)


def one(way: str, folder: str, candidates: int) -> None:
    """Prints as JSON the memory of this process after each stage, and the private peak."""
    from rerank_plugins.samples import load_passages, load_questions

    query = load_questions()[0].text
    words = [passage.text.split() for passage in load_passages()]
    # 20 to 500 words each, evenly by logarithm, in four languages.
    texts = [
        " ".join((words[n * 7 % len(words)] * 20)[: int(20 * 25 ** (n / max(1, candidates - 1)))])
        for n in range(candidates)
    ]
    watch, stages = Watch(), {"python": memory()}
    scored: Any
    if way == "CrossEncoder":
        from sentence_transformers import CrossEncoder

        stages["imports"] = memory()
        theirs = CrossEncoder(folder, device="cpu", local_files_only=True)
        stages["loaded"] = memory()
        scored = theirs.predict([(query, text) for text in texts])
    else:
        from rerank_plugins import load_reranker

        stages["imports"] = memory()
        engine, precision = way.split("-")
        reranker = load_reranker(folder, device="cpu", engine=engine, precision=precision)
        reranker.rerank(query, texts[:1])
        stages["loaded"] = memory()
        scored = reranker.rerank(query, texts)
    stages["scored"] = memory()
    time.sleep(0.05)
    print(json.dumps({"stages": stages, "private": watch.private, "scored": len(scored)}))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["bundled", "12x768"])
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one, options.candidates)
        return
    from _common import checkpoint

    print("| shape | way | peak MiB | private, peak | then resident | private |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            folder = checkpoint(Path(temporary) / shape, shape)
            for way in options.ways:
                own = shape == "bundled" and way != "CrossEncoder"
                command = [sys.executable, __file__, "--one", way, shape if own else str(folder),
                           "--candidates", str(options.candidates)]  # fmt: skip
                # Of int8 and OpenVINO, the second finds what the first converted or measured.
                for _ in range(2 if way.endswith(("int8", "auto")) else 1):
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                last = found["stages"]["scored"]
                print(f"| {shape} | {way} | {last['peak']:.0f} | {found['private']:.0f} | "
                      f"{last['resident']:.0f} | {last['private']:.0f} |", flush=True)  # fmt: skip
                if options.stages:
                    for stage, some in found["stages"].items():
                        told = ", ".join(f"{name} {value:.0f}" for name, value in some.items())
                        print(f"    {stage}: {told}", flush=True)


if __name__ == "__main__":
    main()
