"""When, how and on what machine a report was made."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rerank_plugins import __version__

_PACKAGES: Final = (
    "torch",
    "transformers",
    "sentence-transformers",
    "openvino",
    "faiss-cpu",
    "PyStemmer",
    "ir-measures",
)


def circumstances(command: str | None) -> list[tuple[str, str]]:
    """Names and values, ready to be shown."""
    found = [("date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))]
    if command is not None:
        found.append(("command", command))
    found.append(("machine", _machine()))
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {number}" for name in _PACKAGES if (number := _version(name))]
    return [*found, ("rerank-plugins", __version__), ("versions", ", ".join(versions))]


def _machine() -> str:
    parts = [_processor(), f"{os.cpu_count()} logical CPUs"]
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    if torch is not None:
        parts.append(f"{torch.get_num_threads()} torch threads")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, platform.system()])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
