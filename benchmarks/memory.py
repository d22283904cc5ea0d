"""Peak memory while a cross-encoder is loaded and scores, beside ``CrossEncoder``.

    python benchmarks/memory.py [--shapes bundled 12x768] [--candidates 100]

Each way runs in a separate process: it imports its library, notes its memory, loads the
model, scores one query with passages of 20 to 500 words, and notes the peak: of all resident
memory, and of what is not backed by a file (anonymous), which is what other processes have to
do without. Weights that are mapped from a file belong to the first alone, and processes with
the same model share them. Memory is read from /proc, so Linux only.
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

WAYS = ("CrossEncoder", "torch-fp32", "torch-int8", "openvino-fp32", "auto-auto")


def memory() -> tuple[int, int]:
    """Resident and anonymous memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    resident, anonymous = (int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon"))
    return resident, anonymous


class Watch:
    """Notes the peaks of a thousand looks per second."""

    def __init__(self) -> None:
        self.resident = self.anonymous = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            resident, anonymous = memory()
            self.resident = max(self.resident, resident)
            self.anonymous = max(self.anonymous, anonymous)
            time.sleep(0.001)


def one(way: str, folder: str, candidates: int) -> None:
    """Prints as JSON what this process took, MiB: peak beyond what it had after the imports."""
    from engines import mixed_passages

    from rerank_plugins.samples import load_questions

    query, texts = load_questions()[0].text, mixed_passages(candidates)
    if way == "CrossEncoder":
        from sentence_transformers import CrossEncoder
    else:
        from rerank_plugins import load_reranker
    before = memory()
    watch = Watch()
    if way == "CrossEncoder":
        theirs = CrossEncoder(folder, device="cpu", local_files_only=True)
        theirs.predict([(query, text) for text in texts])
    else:
        engine, precision = way.split("-")
        reranker = load_reranker(folder, device="cpu", engine=engine, precision=precision)
        reranker.rerank(query, texts)
    time.sleep(0.01)
    print(json.dumps([(watch.resident - before[0]) / 1024, (watch.anonymous - before[1]) / 1024]))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["bundled", "12x768"])
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one, options.candidates)
        return
    from _common import checkpoint

    print("| shape | weights MiB | way | peak MiB | of it anonymous |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            folder = checkpoint(Path(temporary) / shape, shape)
            weights = (folder / "model.safetensors").stat().st_size >> 20
            for way in options.ways:
                command = [sys.executable, __file__, "--one", way, str(folder),
                           "--candidates", str(options.candidates)]  # fmt: skip
                for _ in range(2):  # the second finds what the first converted and kept
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                resident, anonymous = json.loads(done.stdout.splitlines()[-1])
                print(f"| {shape} | {weights} | {way} | {resident:.0f} | {anonymous:.0f} |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
