"""The models that load by name, with what their cards say of them.

Figures are the cards' own and were not measured here, but for the bundled models'. What a
card leaves open (labels, activation, exact length) is read from the checkpoint at loading.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean
from typing import Final

from rerank_plugins.errors import InvalidInputError

BUNDLED = "bundled"
BUNDLED_ENCODER: Final = "bundled-encoder"
ALIASES = {"embedded": BUNDLED}
"""Earlier names, which stay."""


MANY = ("ar", "en", "fr", "pl", "zh")
"""The languages here that a model of a hundred covers."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One row of the catalog.

    Attributes:
        name: What `load_reranker` takes.
        languages: ISO 639-1 codes.
        shape: Layers x hidden size; the card's size class where it states no more.
        max_length: Tokens per pair, special tokens included.
        licence: SPDX identifier where there is one.
        headline: The card's headline figure.
        note: What one should know before choosing it.
        form: How pairs are put to a causal language model, where the checkpoint does not say it
            itself; None for encoders.
        remote_code: Whether it loads only with ``trust_remote_code=True``.
    """

    name: str
    languages: tuple[str, ...]
    shape: str
    max_length: int
    licence: str
    headline: str
    note: str = ""
    form: str | None = None
    remote_code: bool = False

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-NC" in self.licence


def _measured(part: str, system: str) -> str:
    """The mean of the sets in the bundled models' ``figures.json``, which the card shows too."""
    file = Path(__file__).parents[1] / "bundled" / "figures.json"
    figures = json.loads(file.read_text(encoding="utf-8"))[part]
    if part == "sets":
        means = {
            name: fmean(row["systems"][name]["nDCG@10"] for row in figures.values())
            for name in (system, "BM25")
        }
    else:
        means = {name: fmean(figures[name].values()) for name in (system, "BM25")}
    best, base = (f"{means[name]:.3f}".lstrip("0") for name in (system, "BM25"))
    return f"measured here: nDCG@10 {best} over BM25, BM25 alone {base}"


CATALOG: dict[str, ModelProfile] = {
    profile.name: profile
    for profile in (
        ModelProfile(
            BUNDLED,
            ("ar", "fr", "pl", "en"),
            "12x384",
            256,
            "Apache-2.0",
            _measured("sets", "BM25 + cross-encoder"),
            "ships with the package, needs no network",
        ),
        ModelProfile(
            BUNDLED_ENCODER,
            ("ar", "fr", "pl", "en"),
            "12x384",
            512,
            "MIT",
            _measured("dev", "BM25 + bundled-encoder, .3 BM25 (default)"),
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
            "reads long passages; its card recommends the next one over it in most cases",
        ),
        ModelProfile(
            "sdadas/polish-reranker-roberta-v2",
            ("pl",),
            "24x1024",
            512,
            "Gemma",
            "recommended by the card of polish-reranker-bge-v2",
            "loads without its optional code",
        ),
        ModelProfile(
            "cross-encoder/ms-marco-MiniLM-L-6-v2",
            ("en",),
            "6x384",
            512,
            "Apache-2.0",
            "TREC DL 2019 nDCG@10 74.30, MS MARCO dev MRR@10 39.01",
            "English; small and fast; MRR .631 on Arabic by ARA-Reranker-V1's card",
        ),
        ModelProfile(
            "cross-encoder/ms-marco-MiniLM-L-12-v2",
            ("en",),
            "12x384",
            512,
            "Apache-2.0",
            "TREC DL 2019 nDCG@10 74.31, MS MARCO dev MRR@10 39.02",
            "English; MRR .664 on Arabic by ARA-Reranker-V1's card",
        ),
        ModelProfile(
            "BAAI/bge-reranker-base",
            ("zh", "en"),
            "12x768",
            512,
            "MIT",
            "no figure verified",
            "degrades in other languages",
        ),
        ModelProfile(
            "BAAI/bge-reranker-v2-m3",
            MANY,
            "24x1024",
            8192,
            "Apache-2.0",
            "ARA-Reranker-V1's card: MRR .902 on Arabic",
            "multilingual; reads long passages",
        ),
        ModelProfile(
            "BAAI/bge-reranker-v2-gemma",
            MANY,
            "18x2048",
            1024,
            "Gemma",
            "no figure verified",
            "a causal language model; its base's licence, the card's own was not verified",
            form="bge-reranker-gemma",
        ),
        ModelProfile(
            "BAAI/bge-reranker-v2.5-gemma2-lightweight",
            MANY,
            "42x3584",
            1024,
            "Gemma",
            "no figure verified",
            "a causal language model that can be cut: form=Lightweight(...); wants a GPU",
            form="bge-gemma2-lightweight",
        ),
        ModelProfile(
            "Qwen/Qwen3-Reranker-0.6B",
            MANY,
            "28x1024",
            8192,
            "Apache-2.0",
            "no figure verified",
            "a causal language model; takes instruction=",
            form="qwen3-reranker",
        ),
        ModelProfile(
            "Qwen/Qwen3-Reranker-4B",
            MANY,
            "36x2560",
            8192,
            "Apache-2.0",
            "no figure verified",
            "a causal language model; takes instruction=; wants a GPU",
            form="qwen3-reranker",
        ),
        ModelProfile(
            "mixedbread-ai/mxbai-rerank-base-v2",
            MANY,
            "24x896",
            8192,
            "Apache-2.0",
            "BEIR nDCG@10 55.57, Mr.TyDi 28.56",
            "a causal language model; takes instruction=",
            form="mxbai-rerank-v2",
        ),
        ModelProfile(
            "mixedbread-ai/mxbai-rerank-large-v2",
            MANY,
            "1.5B class",
            8192,
            "Apache-2.0",
            "BEIR nDCG@10 57.49, Mr.TyDi 29.79",
            "a causal language model; takes instruction=; wants a GPU",
            form="mxbai-rerank-v2",
        ),
        ModelProfile(
            "Alibaba-NLP/gte-multilingual-reranker-base",
            MANY,
            "12x768",
            8192,
            "Apache-2.0",
            "no figure verified",
            "75 languages; its code stands in another repository",
            remote_code=True,
        ),
        ModelProfile(
            "jinaai/jina-reranker-v2-base-multilingual",
            MANY,
            "12x768",
            1024,
            "CC-BY-NC-4.0",
            "no figure verified",
            "no commercial use",
            remote_code=True,
        ),
        ModelProfile(
            "NAMAA-Space/GATE-Reranker-V1",
            ("ar",),
            "12x768",
            512,
            "Apache-2.0",
            "no figure verified",
            "made from an AraBERT",
        ),
        ModelProfile(
            "antoinelouis/crossencoder-camembert-base-mmarcoFR",
            ("fr",),
            "12x768",
            512,
            "MIT",
            "no figure verified",
            "the larger sister of the L2 model",
        ),
        ModelProfile(
            "antoinelouis/crossencoder-camemberta-base-mmarcoFR",
            ("fr",),
            "12x768",
            512,
            "MIT",
            "no figure verified",
            "a DeBERTa v2",
        ),
    )
}


def with_language(language: str | None) -> list[ModelProfile]:
    """The rows for a language, all of them for None.

    Raises:
        InvalidInputError: No model is known for it.
    """
    found = [row for row in CATALOG.values() if language is None or language in row.languages]
    if not found:
        known = sorted({one for row in CATALOG.values() for one in row.languages})
        raise InvalidInputError(f"language must be one of {known}, but got {language!r}")
    return found


def bundled_folder() -> Path:
    """Where the bundled cross-encoder lies."""
    return Path(__file__).parents[1] / "bundled" / "reranker"


def near_names(name: str) -> str:
    """A sentence that names the catalog's models nearest to a wrong name."""
    by_short = {known.rsplit("/", 1)[-1].lower(): known for known in CATALOG} | ALIASES
    short = name.rsplit("/", 1)[-1].lower()
    near = get_close_matches(short, by_short, n=3, cutoff=0.5)
    names = list(dict.fromkeys(by_short[match] for match in near)) or list(CATALOG)
    lead = "Did you mean" if near else "The catalog has"
    return f" {lead}: {', '.join(names)}?" if near else f" {lead}: {', '.join(names)}."
