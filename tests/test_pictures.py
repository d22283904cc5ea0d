"""What a browser makes of rankings and reports: pictures, and whether anything sticks out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("nbconvert")
pytest.importorskip("ir_measures")

from pictures import SCHEMES, WIDTHS, Scheme, chromium, overflow, screenshot, write_pages

from rerank_plugins import Reranker
from rerank_plugins.testing import OverlapScorer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]

Pages = Mapping[str, Mapping[Scheme, Path]]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The pages of `make pictures`, with a scorer that needs no model."""
    return write_pages(tmp_path_factory.mktemp("pages"), Reranker(OverlapScorer()))


@pytest.mark.parametrize("name", ["ranking-ar", "notebook", "report"])
def test_pages_can_be_read_in_both_schemes_at_both_widths(name, pages, tmp_path):
    """Ink on paper: dark on light or light on dark, and something to see on all of the width."""
    from matplotlib.image import imread

    for scheme in SCHEMES:
        for width in WIDTHS:
            out = tmp_path / "shot.png"
            screenshot(pages[name][scheme], out, width, scheme, height=900)
            grey = imread(out)[..., :3].mean(axis=2)
            assert grey.shape == (900, width)
            paper = np.median(grey)
            assert (paper > 0.9) == (scheme == "light"), (scheme, width)
            assert (paper < 0.2) == (scheme == "dark"), (scheme, width)
            ink = np.abs(grey - paper) > 0.5
            assert ink.any(axis=0)[width // 2 :].any()
            assert ink.any(axis=0)[: width // 2].any()


@pytest.mark.parametrize("name", ["ranking-ar", "ranking-en", "report"])
def test_nothing_sticks_out_of_a_wide_window(name, pages):
    """The report's table, too, is read without scrolling at 1,200 pixels."""
    assert overflow(pages[name]["light"], 1200) <= 0


@pytest.mark.parametrize("name", ["ranking-ar", "ranking-en"])
def test_a_ranking_is_read_without_scrolling_on_a_telephone(name, pages):
    """Cards in place of columns."""
    assert overflow(pages[name]["light"], 420) <= 0


def test_an_arabic_query_stands_at_the_right_in_jupyterlab(pages, tmp_path):
    """JupyterLab's stylesheet aligns paragraphs to the left; the picture is mirrored all the same.

    The query is the topmost ink beside the prompt's column.
    """
    from matplotlib.image import imread

    out = tmp_path / "shot.png"
    screenshot(pages["notebook"]["light"], out, 1200, "light", height=120)
    grey = imread(out)[..., :3].mean(axis=2)
    line = grey[60:100, 120:1150]  # below the input, beside the prompt
    columns = np.flatnonzero((line < 0.5).any(axis=0))
    assert columns.size > 0
    assert columns.min() > line.shape[1] / 2
