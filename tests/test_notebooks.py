"""The notebooks run from nothing, offline, and are kept with their outputs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks are not beside the tests"),
]

# Read by every interpreter that starts with this folder on its path.
OFFLINE = """
import socket
connect = socket.socket.connect
def refuse(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        raise OSError(f"a notebook may not reach {address}")
    return connect(self, address)
socket.socket.connect = refuse
"""


def code_cells(notebook):
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows, in order: a stream's name once for all its pieces, a result's MIME types.

    A kernel flushes by the clock: one print may arrive in one piece or in several.
    """
    shown: list[str | list[str]] = []
    for output in cell.outputs:
        if output.output_type != "stream":
            shown.append(sorted(output.data))
        elif output.name not in shown[-1:]:
            shown.append(output.name)
    return shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_outputs_are_kept(path, tmp_path, monkeypatch):
    """In an empty folder, with no network: no cell fails, and each shows what is kept of it."""
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    root = str(FOLDER.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    for cell in code_cells(run):
        cell.outputs = []
    nbclient.NotebookClient(
        run,
        timeout=600,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    # A library's warning at the first conversion of a model is not output of the notebook.
    shown = [[one for one in kinds(cell) if one != "stderr"] for cell in code_cells(run)]
    assert shown == [kinds(cell) for cell in code_cells(kept)]
    assert any(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_nothing_of_the_machine_it_ran_on(path):
    """No errors, warnings, paths or times; cells were run once, from the top."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert "execution" not in cell.metadata
        assert "stderr" not in kinds(cell)
        assert all(output.output_type != "error" for output in cell.outputs)
        said = "".join(str(output.get("text", output.get("data", ""))) for output in cell.outputs)
        assert not re.search(r"/(home|root|work|tmp|usr)/|[A-Z]:\\Users", said)


def test_arabic_prose_says_its_direction():
    """Every Arabic text cell of the Arabic page stands in right-to-left elements."""
    path = FOLDER / "03_arabic_rag_chatbot.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    arabic = [text for text in prose if re.search(r"[\u0621-\u064A]", text)]
    assert len(arabic) > 8
    assert all(text.startswith('<div dir="rtl"') for text in arabic)
