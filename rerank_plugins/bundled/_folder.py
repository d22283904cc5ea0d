"""Where the weights that ship are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
"""Holds the weights' folders, the card and ``figures.json``."""
