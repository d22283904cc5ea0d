"""The models that load by name."""

from __future__ import annotations

import re

import pytest

from rerank_plugins import CATALOG
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import (
    BUNDLED,
    BUNDLED_ENCODER,
    bundled_folder,
    near_names,
    with_language,
)

FIVE = {
    "BAAI/bge-reranker-large": (("zh", "en"), 512, "MIT"),
    "Omartificial-Intelligence-Space/ARA-Reranker-V1": (("ar",), 512, "Apache-2.0"),
    "jaspercatapang/R-star": (("en",), 512, "CC-BY-4.0"),
    "antoinelouis/crossencoder-camembert-L2-mmarcoFR": (("fr",), 512, "MIT"),
    "sdadas/polish-reranker-bge-v2": (("pl",), 8192, "Gemma"),
}


@pytest.mark.parametrize("name", FIVE)
def test_the_five_models_stand_with_language_length_and_licence(name: str) -> None:
    """As their cards have it."""
    profile = CATALOG[name]
    assert (profile.languages, profile.max_length, profile.licence) == FIVE[name]
    assert profile.name == name
    assert profile.headline


def test_the_catalog_has_the_bundled_two() -> None:
    """They read all four languages."""
    assert set(CATALOG) > {BUNDLED, BUNDLED_ENCODER, *FIVE}
    assert set(CATALOG[BUNDLED].languages) == {"ar", "fr", "pl", "en"}


def test_each_language_here_has_models_and_others_are_named() -> None:
    """Also for ``rerank-plugins models --language``."""
    for language in ("ar", "fr", "pl", "en"):
        names = [row.name for row in with_language(language)]
        assert BUNDLED in names
        assert len(names) > 5
    assert "jaspercatapang/R-star" not in [row.name for row in with_language("ar")]
    assert len(with_language(None)) == len(CATALOG)
    with pytest.raises(InvalidInputError, match="language must be one of"):
        with_language("tlh")


def test_licences_without_commercial_use_are_marked() -> None:
    """By the licence's own name."""
    marked = [name for name, row in CATALOG.items() if row.non_commercial]
    assert marked == ["jinaai/jina-reranker-v2-base-multilingual"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("BAAI/bge-reranker-larg", "BAAI/bge-reranker-large"),
        ("bge-reranker-large", "BAAI/bge-reranker-large"),
        ("r-star", "jaspercatapang/R-star"),
        ("ARA-Reranker", "Omartificial-Intelligence-Space/ARA-Reranker-V1"),
        ("polish-reranker", "sdadas/polish-reranker-bge-v2"),
        ("embeded", BUNDLED),
    ],
)
def test_a_wrong_name_finds_the_near_one(wrong: str, right: str) -> None:
    """A slip of the hand, a missing owner, a missing end."""
    assert f"Did you mean: {right}" in near_names(wrong)


def test_a_near_name_is_told_once_though_it_has_two() -> None:
    """``bundled`` is also ``embedded``."""
    assert near_names("bundeld").count(f"{BUNDLED},") == 1


def test_a_name_near_to_none_lists_them_all() -> None:
    """Who is quite wrong sees what there is."""
    told = near_names("xyzzy")
    assert all(name in told for name in CATALOG)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (BUNDLED, "BM25 + cross-encoder"),
        (BUNDLED_ENCODER, "BM25 + bundled-encoder, .3 BM25 (default)"),
    ],
)
def test_the_bundled_models_figures_have_one_source(name: str, row: str) -> None:
    """The catalog's headline is the mean in the card's table: both come from figures.json."""
    card = (bundled_folder().parent / "README.md").read_text(encoding="utf-8")
    best, base = re.findall(r"(?<!\d)\.\d{3}", CATALOG[name].headline)
    cells = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in card.splitlines()
        if line.startswith("|")
    ]
    assert any(line[0] == row and line[-1] == best for line in cells)
    assert any(line[0] == "BM25" and line[-1] == base for line in cells)
