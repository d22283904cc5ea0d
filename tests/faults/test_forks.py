"""A forked child answers, whatever its parent does at that moment: with the real engines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from local_engines import ENGINES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
TRIALS = Path(__file__).with_name("fork_trials.py")
QUICK = {"fp32", "loading", "scores", "vectors", "index"}
TRIES = int(os.environ.get("RERANK_FAULT_TRIES", "2"))

CODE = """
import os, signal, sys, threading, time
from rerank_plugins import load_reranker
folder, engine, busy, tries = sys.argv[1], sys.argv[2], sys.argv[3] == "busy", int(sys.argv[4])
reranker = load_reranker(
    folder, device="cpu", engine=engine, precision="fp32", scale="logit", cache=100
)
passages = [f"the museum is open on day {number} " * 8 for number in range(40)]
expected = reranker.rerank("museum", passages)
stop = threading.Event()
def load():
    number = 0
    while not stop.is_set():
        number += 1
        reranker.rerank(f"museum {number}", passages)
for _ in range(3 * busy):
    threading.Thread(target=load, daemon=True).start()
failed = 0
for turn in range(tries):
    time.sleep(0.02 + 0.05 * (turn % 4))
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        ranking = reranker.rerank("museum again", passages)
        again = reranker.rerank("museum", passages)
        same = max(abs(a - b) for a, b in zip(again.scores, expected.scores)) < 1e-4
        sys.exit(0 if same and ranking.scored == len(passages) else 1)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
print(failed, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("when", ["idle", "busy"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_child_answers(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, engine: str, when: str
) -> None:
    """Whether the parent's threads compute at that moment or not; the scores are the parent's."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "2"}
    folder = str(tiny_checkpoints["rstar"])
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, folder, engine, when, str(TRIES)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240 + 4 * TRIES,
        env=environment,
    )
    assert told.stdout.split()[-1:] == ["0"], f"{told.stdout} {told.stderr}"


@pytest.mark.parametrize(
    ("work", "needs"),
    [
        ("fp32", None),
        ("bf16", None),
        ("int8", None),
        ("openvino", "openvino"),
        ("sentence-transformers", None),
        ("causal", None),
        ("loading", None),
        ("converting", "openvino"),
        ("scores", None),
        ("vectors", None),
        ("index", "faiss"),
        ("tokenizers", None),
    ],
)
def test_a_child_answers_whatever_library_the_other_threads_are_in(
    tiny_checkpoints: Mapping[str, Path],
    tiny_cross_encoders: Mapping[str, Path],
    tmp_path: Path,
    work: str,
    needs: str | None,
) -> None:
    """Torch, sentence-transformers, OpenVINO, FAISS, SQLite, tokenizers; a pool's workers too."""
    if needs is not None:
        pytest.importorskip(needs)
    if work not in QUICK and "RERANK_FAULT_TRIES" not in os.environ:
        pytest.skip("takes some ten seconds: RERANK_FAULT_TRIES=2 and more runs it")
    folder = tiny_cross_encoders["bare_causal"] if work == "causal" else tiny_checkpoints["rstar"]
    told = subprocess.run(
        [sys.executable, "-W", "ignore", str(TRIALS), work, str(folder), str(TRIES)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240 + 35 * TRIES,  # a fork waits for a conversion, up to 30 s
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "2"},
    )
    assert told.stdout.split()[-1:] == [str(TRIES)], f"{told.stdout} {told.stderr}"
