"""The models that load by name, with what their cards say of them.

Figures are the cards' own and were not measured here, but for the bundled models'. What a
card leaves open (labels, activation, exact length) is read from the checkpoint at loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

BUNDLED = "bundled"
BUNDLED_ENCODER: Final = "bundled-encoder"
ALIASES = {"embedded": BUNDLED}
"""Earlier names, which stay."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One row of the catalogue.

    Attributes:
        name: What `load_reranker` takes.
        languages: ISO 639-1 codes.
        shape: Layers x hidden size; the card's size class where it states no more.
        max_length: Tokens a pair, special tokens included.
        licence: SPDX identifier where there is one.
        headline: The card's headline figure.
        note: What one should know before choosing it.
    """

    name: str
    languages: tuple[str, ...]
    shape: str
    max_length: int
    licence: str
    headline: str
    note: str = ""


CATALOG: dict[str, ModelProfile] = {
    profile.name: profile
    for profile in (
        ModelProfile(
            BUNDLED,
            ("ar", "fr", "pl", "en"),
            "4x384",
            256,
            "Apache-2.0",
            "measured here: nDCG@10 .902 with BM25's share, BM25 alone .876",
            "ships with the package, needs no network",
        ),
        ModelProfile(
            BUNDLED_ENCODER,
            ("ar", "fr", "pl", "en"),
            "12x384",
            512,
            "MIT",
            "multilingual-e5-small: nDCG@10 .886 with BM25's share, BM25 alone .865 (dev parts)",
            "ships with the package; a bi-encoder, a passage asked again costs nothing",
        ),
        ModelProfile(
            "Omartificial-Intelligence-Space/ARA-Reranker-V1",
            ("ar",),
            "0.6B class",
            512,
            "Apache-2.0",
            "MRR .934, MAP .9335, nDCG@10 .951 on 3,000 labelled pairs",
            "Arabic in production",
        ),
        ModelProfile(
            "jaspercatapang/R-star",
            ("en",),
            "4x512",
            512,
            "CC-BY-4.0",
            "passage-level only",
            "favours longer passages: keep passage lengths alike",
        ),
        ModelProfile(
            "BAAI/bge-reranker-large",
            ("zh", "en"),
            "24x1024",
            512,
            "MIT",
            "C-MTEB reranking average 66.10",
            "degrades in other languages",
        ),
        ModelProfile(
            "antoinelouis/crossencoder-camembert-L2-mmarcoFR",
            ("fr",),
            "2x768",
            512,
            "MIT",
            "mMARCO-fr dev MRR@10 21.26, R@10 41.11",
            "trained at 256 tokens",
        ),
        ModelProfile(
            "sdadas/polish-reranker-bge-v2",
            ("pl",),
            "24x1024",
            8192,
            "Gemma",
            "PIRB nDCG@10 64.21",
            "reads long passages",
        ),
    )
}


def bundled_folder() -> Path:
    """Where the bundled cross-encoder lies."""
    return Path(__file__).parents[1] / "bundled" / "reranker"


def near_names(name: str) -> str:
    """A sentence that names the catalogue's models nearest to a wrong name."""
    by_short = {known.rsplit("/", 1)[-1].lower(): known for known in CATALOG} | ALIASES
    short = name.rsplit("/", 1)[-1].lower()
    near = get_close_matches(short, by_short, n=3, cutoff=0.5)
    names = [by_short[match] for match in near] or list(CATALOG)
    lead = "Did you mean" if near else "The catalogue has"
    return f" {lead}: {', '.join(names)}?" if near else f" {lead}: {', '.join(names)}."
