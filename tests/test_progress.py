"""Progress bars are for terminals; elsewhere nothing of tqdm is touched."""

from __future__ import annotations

import sys
import threading
from io import StringIO

import pytest
from tqdm import tqdm

from rerank_plugins._progress import progress
from rerank_plugins.first_stage import Dense


class Terminal(StringIO):
    """A stream that people look at."""

    def isatty(self) -> bool:
        """As a terminal says."""
        return True


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, where results do not go."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2], desc="Embedding")) == [1, 2]
    assert "Embedding" in terminal.getvalue()


@pytest.mark.parametrize("stream", [StringIO(), None])
def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch, stream: StringIO | None) -> None:
    """A log file, or a process without standard error."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress([1, 2], desc="Embedding")) == [1, 2]
    assert not (stream and stream.getvalue())


def test_an_index_changes_while_tqdm_s_lock_is_taken() -> None:
    """An interrupt inside tqdm can leave the lock taken for good."""
    dense = Dense(embed=lambda texts: [[1.0, 0.0]] * len(texts))
    done = threading.Thread(target=dense.add, args=(["a", "b"],), daemon=True)
    with tqdm.get_lock():
        done.start()
        done.join(20)
        assert not done.is_alive()
    assert len(dense) == 2
