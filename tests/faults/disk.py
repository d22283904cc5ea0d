"""A model of a disk that loses what was not flushed when the power goes.

`recorded` notes what a piece of code does to a folder; `Disk.states` replays each prefix of it
with the unflushed part lost in several ways: an entry of a folder (a new name, a rename, a
removal) may be lost until that folder is flushed, each for itself; the content of a file is
empty until the file is flushed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Step:
    """One call: make a file or folder, rename, remove, or flush."""

    kind: str
    path: str
    target: str = ""
    content: bytes | None = None


@dataclass
class Node:
    """A file or a folder.

    ``entries`` are those of a folder as programs see them, ``sure`` those that are flushed;
    ``pending`` are the changes between. ``flushed`` is a file's content on the disk.
    """

    folder: bool
    entries: dict[str, Node] = field(default_factory=dict)
    sure: dict[str, Node] = field(default_factory=dict)
    flushed: bytes = b""


class Disk:
    """The folder as it was, all of it flushed, and then step by step."""

    def __init__(self, root: Path) -> None:
        self.base = root
        self.root = self._read(root)
        self.pending: list[tuple[Node, str, Node | None]] = []

    def _read(self, path: Path) -> Node:
        if not path.is_dir():
            return Node(folder=False, flushed=path.read_bytes())
        entries = {child.name: self._read(child) for child in path.iterdir()}
        return Node(folder=True, entries=entries, sure=dict(entries))

    def _at(self, path: str) -> tuple[Node, str]:
        """The folder of a path, and the path's last name."""
        *folders, name = Path(path).relative_to(self.base).parts
        node = self.root
        for folder in folders:
            node = node.entries[folder]
        return node, name

    def _changed(self, folder: Node, name: str, node: Node | None) -> None:
        if node is None:
            folder.entries.pop(name, None)
        else:
            folder.entries[name] = node
        self.pending.append((folder, name, node))

    def apply(self, step: Step) -> None:
        """Does it."""
        if Path(step.path) == self.base:
            node: Node | None = self.root
        else:
            folder, name = self._at(step.path)
            node = folder.entries.get(name)
        if step.kind == "flush" and node is not None:
            if not node.folder:
                node.flushed = step.content or b""
            for changed, name, to in [one for one in self.pending if one[0] is node]:
                if to is None:
                    changed.sure.pop(name, None)
                else:
                    changed.sure[name] = to
            self.pending = [one for one in self.pending if one[0] is not node]
        elif step.kind in ("file", "folder") and node is None:
            self._changed(folder, name, Node(folder=step.kind == "folder"))
        elif step.kind == "rename":
            self._changed(*self._at(step.target), node)
            self._changed(folder, name, None)
        elif step.kind == "remove":
            self._changed(folder, name, None)

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """What may be on the disk if the power goes now: content by path, None for folders."""
        count = len(self.pending)
        chosen = {tuple(range(count)), ()}
        chosen |= {(one,) for one in range(count)}
        chosen |= {tuple(at for at in range(count) if at != one) for one in range(count)}
        for kept in sorted(chosen):
            yield self._state(kept)

    def _state(self, kept: tuple[int, ...]) -> dict[str, bytes | None]:
        """With these of the pending changes, and no others, on the disk."""
        entries: dict[int, dict[str, Node]] = {}
        for at in kept:
            folder, name, node = self.pending[at]
            held = entries.setdefault(id(folder), dict(folder.sure))
            if node is None:
                held.pop(name, None)
            else:
                held[name] = node
        found: dict[str, bytes | None] = {}

        def walk(folder: Node, path: str) -> None:
            for name, node in entries.get(id(folder), folder.sure).items():
                found[f"{path}{name}"] = None if node.folder else node.flushed
                if node.folder:
                    walk(node, f"{path}{name}/")

        walk(self.root, "")
        return found

    def write(self, state: dict[str, bytes | None]) -> None:
        """Puts a state where the folder was."""
        shutil.rmtree(self.base)
        self.base.mkdir()
        for name, content in state.items():  # folders come before what is in them
            if content is None:
                (self.base / name).mkdir()
            else:
                (self.base / name).write_bytes(content)


_sinks: list[tuple[str, list[Step]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for base, steps in _sinks:

        def inside(path: Any, base: str = base) -> bool:
            return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(base)

        if event == "open" and inside(arguments[0]) and (arguments[2] or 0) & os.O_CREAT:
            steps.append(Step("file", os.fspath(arguments[0])))
        elif event == "os.mkdir" and inside(arguments[0]):
            steps.append(Step("folder", os.fspath(arguments[0])))
        elif event == "os.rename" and inside(arguments[0]):
            steps.append(Step("rename", os.fspath(arguments[0]), os.fspath(arguments[1])))
        elif event in ("os.remove", "os.rmdir", "shutil.rmtree") and inside(arguments[0]):
            steps.append(Step("remove", os.fspath(arguments[0])))


def recorded(
    root: Path, work: Callable[[], object], lost: Callable[[str], bool] = lambda _: False
) -> list[Step]:
    """What the work does under ``root``, in order.

    Args:
        root: An existing folder.
        work: Called once.
        lost: Of a path, whether its flushes are left out.
    """
    if not any(getattr(hook, "__name__", "") == "_hook" for hook in _installed):
        sys.addaudithook(_hook)
        _installed.append(_hook)
    steps: list[Step] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.startswith(str(root)) and not lost(path):
            content = None if os.path.isdir(path) else Path(path).read_bytes()  # noqa: PTH112
            steps.append(Step("flush", path, content=content))

    _sinks.append((str(root), steps))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            work()
    finally:
        _sinks.clear()
    return steps


_installed: list[Callable[..., None]] = []
