"""Changes of one character that no test noticed once: each of these tests fails for one."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rerank_plugins import Candidate, Cascade, ContextBuilder, Reranker, _threads
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation.significance import randomization_test
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.analysis import analyzer_for, word_spans
from rerank_plugins.first_stage.analysis.analyzers import LanguageAnalyzer
from rerank_plugins.first_stage.analysis.pieces import pieces
from rerank_plugins.first_stage.analysis.queries import weighted
from rerank_plugins.reranking import deadline
from rerank_plugins.reranking.inputs import ranking_facts
from rerank_plugins.reranking.scored import ScoringPlan, _below, planned_pairs, with_unread
from rerank_plugins.scoring import converted
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.cache import CachedScorer
from rerank_plugins.scoring.token_cache import TokenCache
from rerank_plugins.testing import OverlapScorer


def test_scores_below_the_model_s_are_below_the_lowest_from_the_first() -> None:
    """Half of it, a third of it...: never the lowest itself."""
    assert [_below(0.6, probability=True)(place) for place in (1, 2)] == pytest.approx([0.3, 0.2])
    assert [_below(-2.0, probability=False)(place) for place in (1, 2)] == [-3.0, -4.0]
    assert [_below(None, probability=True)(place) for place in (1, 2)] == [1.0, 0.5]


def test_a_cascade_has_the_big_model_s_limits() -> None:
    """Batches, windows and tokens of the head are as the big one has them."""
    big = Reranker(OverlapScorer(), batch_tokens=77, windows=5, max_tokens=999)
    assert Cascade(Reranker(OverlapScorer()), big).options == big.options


def test_a_text_that_is_kept_again_counts_once() -> None:
    """Else the cache believes itself full and forgets what it could hold."""
    cache = TokenCache(1000)
    for _ in range(100):
        cache.put({"text": [1, 2, 3]})
    assert cache._held == 3 + 1 + 32
    cache.put({"other": [1]})
    assert set(cache.get(["text", "other"])) == {"text", "other"}


def test_a_p_value_counts_the_sample_itself() -> None:
    """No number of resamples gives 0: (1 + as far) / (1 + resamples)."""
    one, other = [1.0] * 60, [0.0] * 60
    assert randomization_test(one, other, resamples=99) == pytest.approx(1 / 100)
    assert randomization_test(one, other, resamples=999) == pytest.approx(1 / 1000)


@pytest.mark.parametrize(("keep", "ranks"), [(None, [1, 2, 3, 4]), (3, [1, 2, 3]), (1, [1, 2])])
def test_what_no_model_reads_takes_the_next_ranks(keep: int | None, ranks: list[int]) -> None:
    """Below the others in its own order, marked, and counted among the candidates."""
    ranking = Reranker(OverlapScorer()).rerank("museum", ["a museum", "a bus"])
    images = [Candidate(2, ""), Candidate(3, "")]
    both = with_unread(ranking, images, keep)
    assert [ranked.rank for ranked in both] == ranks
    assert list(both.scores) == sorted(both.scores, reverse=True)
    assert {ranked.source for ranked in both[2:]} <= {"first_stage"}
    assert both.candidates == 4


@pytest.mark.parametrize("flag", ["fence", "strip_invisible"])
def test_a_flag_that_is_none_is_named(flag: str) -> None:
    """By its own name."""
    wrong: dict[str, Any] = {flag: "yes"}
    with pytest.raises(InvalidInputError, match=flag):
        ContextBuilder(100, **wrong)


@pytest.mark.parametrize(("language", "text"), [("en", "running shoes"), ("fr", "chevaux blancs")])
def test_where_no_language_shows_words_have_the_terms_of_each(language: str, text: str) -> None:
    """Neither in the passage nor in the corpus."""
    assert set(analyzer_for("auto-neutral")(text)) >= set(analyzer_for(language)(text))


def test_what_fits_into_the_time_left_is_counted_from_the_first_pair_that_is_left() -> None:
    """Its own length counts, not that of those behind it."""
    pairs = [("q", "x" * length) for length in (10, 10, 5000, 10)]
    second = 1.0 / deadline._cost(pairs[0])
    assert deadline._fitting(pairs, 1, 4.0, second) == 1
    assert deadline._fitting(pairs, 2, 4.0, second) == 0
    assert deadline._fitting(pairs, 3, 4.0, second) == 1


def test_a_scorer_that_can_warm_up_is_warmed_up() -> None:
    """By its own method."""
    warmed = []

    class Warm(OverlapScorer):
        """Notes it."""

        def warm_up(self) -> None:
            """Called once."""
            warmed.append(self)

    Reranker(Warm()).warm_up()
    assert len(warmed) == 1


async def test_an_asynchronous_call_names_the_argument_too() -> None:
    """As `rerank` does."""
    with pytest.raises(InvalidInputError, match=r"^passages must"):
        await Reranker(OverlapScorer()).arerank("q", 5)  # type: ignore[arg-type]


def test_a_place_that_takes_no_files_is_seen(tmp_path: Path) -> None:
    """A file is made there and nowhere else: /proc refuses everybody, root among them."""
    assert converted._takes_files(tmp_path / "new")
    assert not converted._takes_files(Path("/proc"))


def test_a_forked_child_computes_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries that have an OpenMP pool are told so, by number."""
    told: list[tuple[str, int]] = []
    for module, setter in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        fake = SimpleNamespace(
            **{setter: lambda limit, module=module: told.append((module, limit))}
        )
        monkeypatch.setitem(sys.modules, module, fake)
    _threads._one_openmp_thread()
    assert told == [("torch", 1), ("faiss", 1)]


def test_an_analyzer_shows_its_kind() -> None:
    """Class, name and version."""
    assert repr(analyzer_for("fr")).startswith("LanguageAnalyzer(name='fr', version=")
    assert repr(analyzer_for("auto-ar")).startswith("MixedAnalyzer(name='auto-ar', version=")


def test_words_stand_where_they_stand() -> None:
    """Without the punctuation at their edges."""
    text = "The 'sea', (l'été)... 1,000 .NET"
    words = [text[start:end] for start, end in word_spans(text)]
    assert words == ["The", "sea", "l'été", "1,000", ".NET"]


def test_a_trace_notes_what_became_of_rankings() -> None:
    """Sums over all of them."""
    reranker = Reranker(OverlapScorer())
    rankings = reranker.rerank_many(["a sea", "a bus"], [["a sea", "b"], ["a bus"]])
    facts = ranking_facts(rankings, reranker)
    assert (facts["queries"], facts["candidates"], facts["scored"]) == (2, 3, 3)
    assert (facts["truncated"], facts["failed"]) == (0, 0)
    assert facts["query"] == ["a sea", "a bus"]
    assert facts["model"] == reranker.model


def test_spans_come_back_out_of_a_cache() -> None:
    """Computed or kept, each pair has the span that its scorer named."""

    class Spanning(OverlapScorer):
        """Names a span by the passage's length."""

        def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
            """As the base, with spans."""
            scores = super().score(pairs, options)
            spans = np.asarray([(1, len(passage)) for _, passage in pairs], dtype=np.int64)
            return replace(scores, spans=spans)

    scorer = CachedScorer(Spanning())
    for texts in (["a sea"], ["a bus", "a sea", "a long river"]):
        scores = scorer.score([("sea", text) for text in texts], ScoreOptions())
        assert scores.spans is not None
        assert scores.spans.tolist() == [[1, len(text)] for text in texts]


@pytest.mark.parametrize("name", ["ar", "fr", "pl", "en", "neutral"])
def test_an_analyzer_has_its_name_and_the_neutral_one_stems_nothing(name: str) -> None:
    """Arabic included, whose words all others stem."""
    made = LanguageAnalyzer(name)
    assert made.name == name
    assert made("والكتاب") == (["والكتاب"] if name == "neutral" else ["كتاب"])
    assert made("working") == (["work"] if name == "en" else ["working"])


def test_what_a_scorer_left_out_is_left_out_behind_a_cache() -> None:
    """A pair that a limit kept from being read has no score; the others have theirs."""

    class Hasty(OverlapScorer):
        """Reads the first pair alone."""

        def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
            """As the base, with the rest left out."""
            first = np.arange(len(pairs)) == 0
            return replace(super().score(pairs, options), scored=first)

    scorer = CachedScorer(Hasty())
    pairs = [("sea", text) for text in ("a sea", "a bus", "a river")]
    told = [scorer.score(pairs, ScoreOptions()).scored for _ in range(2)]
    assert [row.tolist() for row in told if row is not None] == [
        [True, False, False],
        [True, True, False],  # the first comes out of the cache, so that the next is read
    ]


def test_scores_by_another_number_of_windows_are_kept_apart() -> None:
    """Under ``best`` the number decides what is read."""
    scorer = CachedScorer(OverlapScorer())
    for windows in (1, 3):
        options = ScoreOptions(long_passages="best", windows=windows)
        cached = scorer.score([("sea", "a sea")], options).cached
        assert cached is not None
        assert not cached.any()


def test_a_cached_scorer_tells_its_file(tmp_path: Path) -> None:
    """As text, for JSON."""
    file = tmp_path / "scores.db"
    told = CachedScorer(OverlapScorer(), file, identity="overlap 1").describe()["cache"]
    assert told["path"] == str(file)


@pytest.mark.parametrize("name", ["windows", "max_tokens"])
def test_a_limit_of_nothing_is_refused_by_its_name(name: str) -> None:
    """At least one window and one token."""
    with pytest.raises(InvalidInputError, match=f"^{name} must be .*at least 1"):
        Reranker(OverlapScorer(), **{name: 0})


def test_pairs_of_many_queries_alternate_in_the_queries_order() -> None:
    """First pairs first, and among them as the queries come; also where there are many."""
    queries = [f"q{number}" for number in range(40)]
    lists = [[Candidate(at, f"{query} p{at}") for at in range(9)] for query in queries]
    plans = [ScoringPlan(list(range(9)), 3 + number % 7, "first_stage") for number in range(40)]
    pairs, numbers = planned_pairs(queries, lists, plans, interleaved=True)
    expected = [
        (query, f"{query} p{at}")
        for at in range(9)
        for query, plan in zip(queries, plans, strict=True)
        if at < plan.head
    ]
    assert pairs == expected
    assert [queries[number] for number in numbers] == [query for query, _ in expected]


def test_a_save_has_the_room_of_those_that_did_not_finish(tmp_path: Path) -> None:
    """What they left is removed before the new files are written, and the old ones after."""
    index = tmp_path / "index"
    seen: list[int] = []

    def fill(writer: storage.Writer) -> None:
        seen.append(len(list(index.glob("data-*"))))
        writer.array("a", np.ones(3))

    storage.save(index, "test", fill)
    (index / f"data-{'0' * 32}").mkdir()
    storage.save(index, "test", fill)
    assert seen == [1, 2]  # its own; the old index and its own
    assert len(list(index.glob("data-*"))) == 1


def test_a_cache_asked_for_nothing_answers_with_nothing() -> None:
    """Of the types that scores have."""
    scores = CachedScorer(OverlapScorer()).score([], ScoreOptions())
    kinds = {name: getattr(scores, name) for name in ("logits", "truncated", "cached", "scored")}
    assert {name: (len(row), row.dtype.kind) for name, row in kinds.items()} == {
        "logits": (0, "f"),
        "truncated": (0, "b"),
        "cached": (0, "b"),
        "scored": (0, "b"),
    }


def test_a_key_of_the_cache_takes_32_bytes() -> None:
    """Whatever the length of the texts: 16 of query and settings, 16 of the passage."""
    scorer = CachedScorer(OverlapScorer())
    keys = scorer._keys([("q", "p"), ("q", "p" * 10_000)], ScoreOptions())
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0][:16] == keys[1][:16]


@pytest.mark.parametrize(
    ("text", "whole", "found"),
    [
        ("12 34 56 78", "12345678", True),
        ("1234 5678", "12345678", False),
        ("1 23 45", "12345", False),
    ],
)
def test_groups_of_digits_are_one_number_where_many_stand_together(
    text: str, whole: str, found: bool
) -> None:
    """Three groups and seven digits at least: two years side by side are two numbers."""
    assert (whole in analyzer_for("en")(text)) is found


def test_groups_that_no_line_may_break_are_one_number_alone() -> None:
    """A blank may stand between two numbers; a no-break space does not."""
    assert pieces("1\u00a0000") == ["1000"]
    assert pieces("1 000") == ["1", "000", "1000"]


@pytest.mark.parametrize(("text", "term"), [("U.S.A.", "usa"), ("S.N.C.F.", "sncf")])
def test_an_abbreviation_is_one_term_without_its_letters(text: str, term: str) -> None:
    """Its single letters would meet every other abbreviation."""
    assert analyzer_for("neutral")(text) == [term]


def test_a_long_number_counts_as_often_as_it_has_groups() -> None:
    """Where its groups stand before it, and nowhere else."""
    groups, whole = [("22", "word"), ("555", "word"), ("1234", "word")], ("225551234", "exact")
    assert list(weighted([*groups, whole])) == [*groups, *[whole] * 3]
    assert list(weighted([groups[0], whole])) == [groups[0], whole]


def test_a_file_of_scores_keeps_readers_and_writers_apart(tmp_path: Path) -> None:
    """Of several processes, none waits for another: SQLite's write-ahead log."""
    file = tmp_path / "scores.db"
    scorer = CachedScorer(OverlapScorer(), file, identity="overlap 1")
    scorer.score([("a b", "a c")], ScoreOptions())
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize(
    ("name", "where"), [("page_content", "langchain"), ("get_content", "llama_index")]
)
def test_an_object_of_a_framework_is_told_where_it_is_reranked(name: str, where: str) -> None:
    """By the name of the package's part for it."""
    with pytest.raises(InvalidInputError, match=f"{name}.* with rerank_plugins.{where}$"):
        Reranker(OverlapScorer()).rerank("q", [SimpleNamespace(**{name: "a"})])  # type: ignore[list-item]
