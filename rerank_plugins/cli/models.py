"""``rerank-plugins models``: the catalog."""

from __future__ import annotations

import argparse

from rerank_plugins.cli._io import write, write_json
from rerank_plugins.models.catalog import with_language


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rerank-plugins models``."""
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--language", help="only models for this language, such as ar")


def run(options: argparse.Namespace) -> int:
    """Prints one row per model."""
    if options.json:
        for profile in with_language(options.language):
            write_json(
                {
                    "name": profile.name,
                    "languages": list(profile.languages),
                    "shape": profile.shape,
                    "max_length": profile.max_length,
                    "licence": profile.licence,
                    "headline": profile.headline,
                    "note": profile.note,
                    "form": profile.form,
                    "remote_code": profile.remote_code,
                    "non_commercial": profile.non_commercial,
                }
            )
        return 0
    from tabulate import tabulate

    rows = [
        (
            p.name,
            " ".join(p.languages),
            p.shape,
            p.max_length,
            p.licence + (" (non-commercial)" if p.non_commercial else ""),
            p.headline,
        )
        for p in with_language(options.language)
    ]
    headers = ["name", "languages", "layers x hidden", "tokens", "licence", "card's figure"]
    write(tabulate(rows, headers=headers))
    return 0
