"""A ranking as HTML, and the plots: what a reader sees, whatever the texts hold."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from statistics import correlation

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Candidate, Ranked, Ranking, Reranker
from rerank_plugins.display import (
    calibration_error,
    plot_calibration,
    plot_quality_latency,
    plot_score_length,
    ranking_html,
)
from rerank_plugins.errors import InvalidInputError, MissingDependencyError
from rerank_plugins.testing import OverlapScorer

TAGS = set(
    re.findall(
        r"\w+",
        "div style p bdi table colgroup col thead tbody tr th td svg path span b i mark details "
        "summary",
    )
)
VOID = {"col", "path"}


class Page(HTMLParser):
    """Every element balanced; keeps tags, attributes, and text by the tag around it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.marked: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        """An element opens."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_startendtag(self, tag, attrs):
        """A separate element."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        """The innermost element closes."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Text."""
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "mark":
            self.marked[-1] += data


def ranking_of(query, texts, scores=None, **fields):
    """A ranking by hand: the order given is the reranked one, the first stage had it reversed."""
    scores = [0.9 / (rank + 1) for rank in range(len(texts))] if scores is None else scores
    items = tuple(
        Ranked(
            candidate=Candidate(key=number, text=text, score=1.5, rank=len(texts) - number),
            score=score,
            logit=score,
            rank=number + 1,
        )
        for number, (text, score) in enumerate(zip(texts, scores, strict=True))
    )
    known = {"model": "m", "scale": "probability", "candidates": len(texts)} | fields
    return Ranking(query=query, items=items, **known)


def test_a_notebook_shows_a_ranking_by_itself():
    """The last line of a cell needs no call: Ranking has the hook that notebooks look for."""
    ranking = Reranker(OverlapScorer()).rerank("museum", ["a bus", "a museum"])
    assert ranking._repr_html_() == ranking_html(ranking)
    assert "museum" in Page(ranking._repr_html_()).text


def test_records_alone_load_nothing_of_the_display():
    """The hook imports when it is called, not before."""
    code = (
        "import sys, rerank_plugins.candidates;"
        "print('rerank_plugins.display' in sys.modules, 'regex' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("query", "passage", "marked"),
    [
        ("أسعار الكتب", "الكِتَابُ غالٍ، وأسعارُها مرتفعة، والكتب كثيرة", {"وأسعارُها", "والكتب"}),
        ("خبز طازج", "الخبز الطـــازج أطيب", {"الخبز", "الطـــازج"}),
        ("les énergies", "L'énergie du vent", {"L'énergie"}),
        ("bilety do muzeum", "Bilet do Muzeum kosztuje 20 zł", {"Bilet", "Muzeum"}),
        ("the opening hours", "The museum opens for hours", {"opens", "hours"}),
    ],
)
def test_words_that_meet_the_query_are_marked(query, passage, marked):
    """By the library's own analysis: forms of a word meet, stop words do not count."""
    language = {"أ": "ar", "خ": "ar", "l": "fr", "b": "pl", "t": "en"}[query[0]]
    found = Page(ranking_html(ranking_of(query, [passage]), language=language)).marked
    assert set(found) == marked


def test_the_snippet_is_where_most_words_meet_the_query():
    """The first stretch of 150 characters that has most of them, far into a long passage."""
    filler = "nothing of that kind is said here and so on " * 40
    text = f"museum {filler} museum, tickets and museum hours {filler} museum hours {filler}"
    page = ranking_html(ranking_of("museum hours", [text]), language="en")
    shown = page[: page.index("<details>")]
    assert "<mark>museum</mark>, tickets and <mark>museum</mark> <mark>hours</mark>" in shown


def test_each_passage_is_read_by_its_own_language():
    """A list that mixes languages: stems of one are not those of another."""
    texts = [
        "Les énergies du vent et de la mer sont dans la région.",
        "طاقة الرياح نظيفة، وهي من energy المتجددة.",
    ]
    page = Page(ranking_html(ranking_of("énergie طاقات", texts)))
    assert {"énergies", "طاقة"} <= set(page.marked)


HOSTILE = [
    "<script>alert(1)</script>",
    "</div></td></table><img src=x onerror=alert(1)>",
    "\u202eright to left override \u2066",
    "&lt;b&gt; &amp; \"quotes\" 'single'",
    "\ud800 lone \0 null",
    "<!-- <style>*{display:none}</style>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text):
    """Query, passages, labels, names of model and stage, and errors are all text."""
    ranking = ranking_of(text + " x", [text, text + " x"], model=text, error=text)
    html = ranking_html(ranking, labels={0: text, 1: text}, first_stage=text)
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= TAGS
    allowed = {"class", "dir", "style", "colspan", "rowspan", "width", "height", "aria-hidden"}
    allowed |= {"d", "fill", "stroke", "stroke-width", "stroke-opacity", "title"}
    assert {name for _, attrs in page.tags for name in attrs} <= allowed
    assert text.encode("utf-8", "replace").decode().replace("\0", "\ufffd") in page.text
    html.encode("utf-8")


@given(
    query=st.text(min_size=1).filter(str.strip),
    texts=st.lists(st.text(max_size=60), max_size=4),
    data=st.data(),
)
def test_whatever_the_texts_the_page_is_whole(query, texts, data):
    """Balanced, free of foreign tags, every passage there in full, bars within their frame."""
    finite = st.floats(allow_nan=False, allow_infinity=False)
    scores = data.draw(st.lists(finite, min_size=len(texts), max_size=len(texts)))
    html = ranking_html(ranking_of(query, texts, scores, scale="logit"))
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= TAGS
    shown = re.sub(r"\r\n?", "\n", page.text)
    for text in texts:
        safe = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        assert re.sub(r"\r\n?", "\n", safe) in shown
    widths = [float(w) for w in re.findall(r'<i style="width:([-\d.]+)%', html)]
    assert all(0 <= width <= 100 for width in widths)
    assert len(widths) == 2 * len(texts)


def test_movement_is_told_in_arrows_and_lines():
    """One line a passage between the two orders; the arrow says how far it moved."""
    page = Page(ranking_html(ranking_of("q", ["a", "b", "c"])))
    assert sum(tag == "path" for tag, _ in page.tags) == 3
    assert "▲2" in page.text
    assert "▼2" in page.text
    assert "=" in page.text


def test_right_to_left_queries_mirror_the_picture():
    """An Arabic query's table runs from the right; each passage has its own direction."""
    page = Page(ranking_html(ranking_of("متى يفتح المتحف؟", ["المتحف", "the museum"])))
    directions = [attrs.get("dir") for _, attrs in page.tags if attrs.get("class") == "rrk"]
    assert directions == ["rtl"]
    own = [attrs["dir"] for _, attrs in page.tags if "rrk-text" in (attrs.get("class") or "")]
    assert own == ["ltr", "rtl", "rtl", "ltr"]  # row 1: before, after; row 2: before, after
    assert Page(ranking_html(ranking_of("museum", ["المتحف"]))).tags[0][1]["dir"] == "ltr"


def test_labels_relevance_and_limit():
    """Names and check marks by key; no more rows than asked for; the summary counts all."""
    ranking = ranking_of("q", ["a", "b", "c"], candidates=9, deduplicated=2, truncated=1)
    page = Page(ranking_html(ranking, labels={0: "first.md"}, relevant=[0], limit=1))
    assert "first.md" in page.text
    assert page.text.count("✓") == 3  # before, after, in full
    assert "1 of 9 candidates" in page.text
    assert "2 duplicates left out" in page.text
    assert "1 longer than the model reads" in page.text
    with pytest.raises(InvalidInputError, match="limit must be"):
        ranking_html(ranking, limit=0)


def test_a_failed_model_is_named():
    """First-stage order kept: the page says so, and why."""
    ranking = ranking_of("q", ["a"], scale="first_stage", error="OSError: gone")
    assert "first-stage order kept: OSError: gone" in Page(ranking_html(ranking)).text


def test_an_empty_ranking_is_a_page_too():
    """No passages: query and summary, no table."""
    page = Page(ranking_html(ranking_of("q", [])))
    assert "0 of 0 candidates" in page.text
    assert "table" not in [tag for tag, _ in page.tags]


class TestPlots:
    """Drawn on axes; the numbers in them are those of other implementations."""

    @pytest.fixture(autouse=True)
    def matplotlib(self, monkeypatch):
        """Where it is installed, without a window."""
        module = pytest.importorskip("matplotlib")
        module.use("Agg")
        yield module
        from matplotlib import pyplot as plt

        plt.close("all")

    def test_calibration_is_each_bins_mean_and_share(self):
        """Points of the curve, and the error in the title, counted passage by passage."""
        random = np.random.default_rng(0)
        scores = random.random(500)
        labels = random.random(500) < scores**2
        axes = plot_calibration(scores, labels, bins=7)
        points, error = [], 0.0
        for number in range(7):
            held = [
                (s, r)
                for s, r in zip(scores, labels, strict=True)
                if number / 7 <= s < (number + 1) / 7
            ]
            mean = sum(s for s, _ in held) / len(held)
            share = sum(bool(r) for _, r in held) / len(held)
            points.append((mean, share))
            error += abs(mean - share) * len(held) / 500
        np.testing.assert_allclose(axes.lines[1].get_xydata(), points)
        assert axes.get_title() == f"expected calibration error {error:.3f}, 500 passages"

    def test_length_bias_is_the_correlation_of_mean_ranks(self):
        """Spearman in the title, of the passages that are not relevant; ties share a rank."""
        random = np.random.default_rng(1)
        lengths = random.integers(5, 30, 200)
        scores = np.round(random.random(200) + lengths / 40, 1)
        relevant = random.random(200) < 0.2

        def ranks(values):
            return [sum(o < v for o in values) + sum(o == v for o in values) / 2 for v in values]

        title = plot_score_length(lengths, scores, relevant=relevant).get_title()
        expected = correlation(ranks(lengths[~relevant]), ranks(scores[~relevant]))
        assert title == f"Spearman {expected:+.2f}, {(~relevant).sum()} passages"

    def test_equal_lengths_have_no_correlation(self):
        """Undefined is said, not drawn as a number."""
        assert "no correlation" in plot_score_length([3, 3], [0.1, 0.2]).get_title()

    def test_quality_and_latency(self):
        """A point and a name in the legend for each system; milliseconds on a log scale."""
        axes = plot_quality_latency(
            {"BM25": (0.8, 0.001), "reranked": (0.9, 0.05)}, intervals={"BM25": (0.75, 0.85)}
        )
        assert axes.get_legend_handles_labels()[1] == ["BM25", "reranked"]
        points = [container.lines[0].get_xydata()[0].tolist() for container in axes.containers]
        assert points == [[1.0, 0.8], [50.0, 0.9]]
        assert axes.get_xscale() == "log"

    @pytest.mark.parametrize(
        ("plot", "arguments", "rule"),
        [
            (plot_calibration, ([1.5], [1]), r"\[0, 1\]"),
            (plot_calibration, ([0.5], [2]), "labels must be 0 or 1"),
            (plot_calibration, ([0.5, 0.1], [1]), "labels must match"),
            (plot_calibration, ([], []), "at least one"),
            (plot_score_length, ([1, 2], [0.1, float("nan")]), "finite"),
            (plot_quality_latency, ({},), "at least one system"),
            (plot_quality_latency, ({"a": (0.5, 0.0)},), "above 0"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, plot, arguments, rule):
        """The rule and the value."""
        with pytest.raises(InvalidInputError, match=rule):
            plot(*arguments)


def test_the_calibration_error_needs_no_matplotlib(monkeypatch):
    """By hand: two bins, one right on average, one .4 off with a third of the passages."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scores, labels = [0.25, 0.25, 0.25, 0.25, 0.9, 0.9], [1, 0, 0, 0, 1, 0]
    assert calibration_error(scores, labels, bins=2) == pytest.approx(0.4 * 2 / 6)
    assert calibration_error([0.0, 1.0], [0, 1]) == 0.0
    with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
        calibration_error([1.5], [1])


def test_plots_without_matplotlib_name_the_extra(monkeypatch):
    """An ImportError with the pip command."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"rerank-plugins\[display\]"):
        plot_calibration([0.5], [1])
