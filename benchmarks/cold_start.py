"""From a new process to its first ranking: wall and processor seconds, modules imported.

    python benchmarks/cold_start.py [--model NAME] [--engine auto] [--rounds 5]

Each round starts a process that imports the package, loads the model by name and ranks three
passages. Put another checkout first on PYTHONPATH to measure it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CODE = """
import json, sys, time
start, cpu = time.perf_counter(), time.process_time()
from rerank_plugins import load_reranker
reranker = load_reranker(sys.argv[1], engine=sys.argv[2])
reranker.rerank("Who chairs the board?", ["Ms Nowak chairs it.", "Bread.", "Trains."])
taken = [time.perf_counter() - start, time.process_time() - cpu]
print(json.dumps([*taken, len(sys.modules), "transformers" in sys.modules]))
"""


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rows = []
    for _ in range(asked.rounds + 1):
        command = [sys.executable, "-c", CODE, asked.model, asked.engine]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    wall, cpu, modules, transformers = zip(*rows[1:], strict=True)  # the first warms the disk
    print(
        f"{asked.model}, engine {asked.engine}: {statistics.median(wall):.2f} s, processor "
        f"{statistics.median(cpu):.2f} s, {modules[0]} modules, transformers "
        f"{'imported' if transformers[0] else 'not imported'}"
    )


if __name__ == "__main__":
    main()
