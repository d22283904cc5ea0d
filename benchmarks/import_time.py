"""How long ``import rerank_plugins`` takes, alone and with what it imports.

python benchmarks/import_time.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys

RUNS = 7


def imported() -> tuple[float, float]:
    """Milliseconds of our own modules, and of everything behind the import."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import rerank_plugins"],
        capture_output=True,
        text=True,
        check=True,
    )
    own, whole = 0, 0
    for line in result.stderr.splitlines():
        match = re.match(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)$", line)
        if match and match[3].split(".")[0] == "rerank_plugins":
            own += int(match[1])
            whole = max(whole, int(match[2]))
    return own / 1000, whole / 1000


def main() -> None:
    """Prints the medians."""
    runs = [imported() for _ in range(RUNS)]
    own = statistics.median(run[0] for run in runs)
    whole = statistics.median(run[1] for run in runs)
    print(f"import rerank_plugins: {own:.2f} ms alone, {whole:.2f} ms in all")
    print(f"(medians of {RUNS} runs; slowest {max(run[1] for run in runs):.2f} ms in all)")


if __name__ == "__main__":
    main()
