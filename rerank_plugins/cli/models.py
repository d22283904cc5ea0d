"""``rerank-plugins models``: the catalogue."""

from __future__ import annotations

import argparse

from rerank_plugins.cli._io import write, write_json
from rerank_plugins.models.catalog import CATALOG


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins models``."""
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(options: argparse.Namespace) -> int:
    """Prints one row per model."""
    if options.json:
        for profile in CATALOG.values():
            write_json(
                {
                    "name": profile.name,
                    "languages": list(profile.languages),
                    "shape": profile.shape,
                    "max_length": profile.max_length,
                    "licence": profile.licence,
                    "headline": profile.headline,
                    "note": profile.note,
                }
            )
        return 0
    from tabulate import tabulate

    rows = [
        (p.name, " ".join(p.languages), p.shape, p.max_length, p.licence, p.headline)
        for p in CATALOG.values()
    ]
    headers = ["name", "languages", "layers x hidden", "tokens", "licence", "card's figure"]
    write(tabulate(rows, headers=headers))
    return 0
