"""Inputs tried, and their answers.

Every row is run on the real text path (tokenizer, windows, forward pass) of a tiny model of
each tokenizer family: XLM-R (SentencePiece) and BERT (WordPiece).

==============================  ==========================================================
input                           answer
==============================  ==========================================================
no passages                     an empty ranking
an empty passage                scored like any other
a whitespace passage            scored as the empty passage is
a blank query                   InvalidInputError
a passage of 1 MB               scored by its beginning, marked truncated; with windows by all
1 MB without a single space     scored, whatever tokens it makes
a query longer than the model   capped at three quarters, marked truncated; passages still differ
lone surrogates                 scored as U+FFFD
NUL and other controls          scored; the text comes back unchanged
bidi controls                   scored; the text comes back unchanged
vowelled Arabic                 scored; the text comes back unchanged, vowels and all
emoji, with modifiers           scored
scripts mixed in a passage      scored
10,000 candidates               all ranked, one score each
duplicate keys                  both candidates come back
duplicate texts                 one comes back, the first
numpy scalars as scores, top_n  read as numbers; plain Python numbers come out
numpy strings                   read as text
==============================  ==========================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Candidate, Reranker, load_reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.testing import OverlapScorer

PLAIN = "The museum opens at nine."
MEGABYTE = 1_000_000


@pytest.fixture(params=["bge", "rstar"], scope="module")
def reranker(request: pytest.FixtureRequest, tiny_checkpoints: Mapping[str, Path]) -> Reranker:
    """A tiny XLM-R, then a tiny BERT."""
    return load_reranker(tiny_checkpoints[request.param], device="cpu", scale="logit")


def score(reranker: Reranker, passage: str, query: str = QUESTIONS["en"]) -> float:
    """Score of one passage beside a plain one, which changes nothing."""
    ranking = reranker.rerank(query, [passage, PLAIN + " "])
    return {item.candidate.key: item.score for item in ranking}[0]


TEXTS = {
    "empty": "",
    "whitespace": " \n\t\u00a0\u2003 ",
    "lone high surrogate": "museum \ud800 nine",
    "lone low surrogate": "museum \udfff nine",
    "surrogates in the wrong order": "\udc00\ud800",
    "NUL": "museum\x00nine",
    "only NUL": "\x00\x00\x00",
    "controls": "".join(chr(code) for code in range(32)) + "\x7f\x85",
    "bidi overrides": "\u202emuseum\u202c \u2066متحف\u2069 \u200f\u200e",
    "zero-width joiners": "mu\u200bse\u200cu\u200dm \ufeff",
    "vowelled Arabic": "يَفْتَحُ المُتْحَفُ أَبْوَابَهُ فِي التَّاسِعَةِ صَبَاحًا",
    "Arabic presentation forms": "\ufefb\ufe8e\ufef4\ufeb3",
    "emoji": "🏛️ 👩🏽‍🎨 🇵🇱 🕘",
    "only emoji": "🏛️" * 200,
    "combining marks": "e\u0301" * 50 + "\u0300" * 300,
    "mixed scripts": "متحف muzeum musée 博物館 музей μουσείο พิพิธภัณฑ์ 9:00",
    "unassigned and private": "\u0378 \ue000 \U0010ffff \ufffe",
    "special tokens as text": "<s> </s></s> <pad> <mask> [CLS] [SEP] [PAD] <unk>",
    "one very long word": "a" * 20_000,
}


@pytest.mark.parametrize("passage", TEXTS.values(), ids=TEXTS.keys())
def test_an_awkward_passage_is_scored_and_comes_back_unchanged(
    reranker: Reranker, passage: str
) -> None:
    """Each passage gets a finite score; what comes back is the very text that went in."""
    ranking = reranker.rerank(QUESTIONS["en"], [PLAIN, passage])
    assert sorted(ranking.keys) == [0, 1]
    assert np.isfinite(ranking.scores).all()
    assert {item.candidate.key: item.text for item in ranking}[1] == passage
    json.dumps(ranking.to_dict())


@pytest.mark.parametrize(
    "query",
    [text for text in TEXTS.values() if text.strip()],
    ids=[name for name, text in TEXTS.items() if text.strip()],
)
def test_an_awkward_query_is_scored(reranker: Reranker, query: str) -> None:
    """The same texts as queries; the ranking keeps the query as given."""
    ranking = reranker.rerank(query, [PLAIN, *ALL_PASSAGES[:3]])
    assert np.isfinite(ranking.scores).all()
    assert ranking.query == query


@pytest.mark.parametrize("query", ["", " \n\t\u00a0\u2003 "], ids=["empty", "whitespace"])
def test_a_blank_query_is_refused(reranker: Reranker, query: str) -> None:
    """There is nothing to rank by."""
    with pytest.raises(InvalidInputError, match="query must not be blank"):
        reranker.rerank(query, [PLAIN])


def test_no_passages(reranker: Reranker) -> None:
    """An empty ranking."""
    assert len(reranker.rerank(QUESTIONS["en"], [])) == 0


def test_a_whitespace_passage_scores_as_an_empty_one(reranker: Reranker) -> None:
    """Both have no token."""
    assert score(reranker, " \n\t ") == pytest.approx(score(reranker, ""), abs=1e-4)


def test_a_lone_surrogate_scores_as_the_replacement_character(reranker: Reranker) -> None:
    """In passage and query."""
    assert score(reranker, "at \ud800 nine") == pytest.approx(
        score(reranker, "at \ufffd nine"), abs=1e-4
    )
    assert score(reranker, PLAIN, "nine \udfff") == pytest.approx(
        score(reranker, PLAIN, "nine \ufffd"), abs=1e-4
    )


def test_a_megabyte_is_scored_by_its_beginning_and_marked(reranker: Reranker) -> None:
    """What lies behind the model's length changes nothing."""
    endless = (PLAIN + " ") * (MEGABYTE // len(PLAIN))
    ranking = reranker.rerank(QUESTIONS["en"], [endless])
    assert len(endless) >= MEGABYTE
    assert ranking[0].truncated
    assert ranking.truncated == 1
    other_end = endless[: MEGABYTE // 2] + "something else entirely " * 10
    assert score(reranker, other_end) == pytest.approx(ranking[0].score, abs=1e-4)


def test_a_long_passage_with_windows_is_read_to_its_end(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Not marked truncated, and another end is another score."""
    reranker = load_reranker(tiny_checkpoints["bge"], device="cpu", long_passages="mean")
    long = (PLAIN + " ") * 800
    first, second = (reranker.rerank("nine", [long + end])[0] for end in ("", ALL_PASSAGES[0] * 20))
    assert not first.truncated
    assert abs(first.score - second.score) > 1e-4


def test_a_megabyte_without_a_space_is_scored(reranker: Reranker) -> None:
    """One word of a million letters, as a data URL or a broken extraction gives it."""
    assert np.isfinite(score(reranker, "a" * MEGABYTE))


def test_a_query_longer_than_the_model_is_capped_marked_and_still_tells_passages_apart(
    reranker: Reranker,
) -> None:
    """A quarter of the room is left for the passage."""
    query = " ".join(QUESTIONS.values()) * 60
    ranking = reranker.rerank(query, ALL_PASSAGES)
    assert ranking.truncated == len(ALL_PASSAGES)
    assert len(set(ranking.scores)) == len(ALL_PASSAGES)


def test_ten_thousand_candidates_are_all_ranked() -> None:
    """Each once, in order, with ranks from 1; by the fake scorer, which takes no minutes."""
    passages = [f"passage {number} of {number % 97} rooms" for number in range(10_000)]
    ranking = Reranker(OverlapScorer()).rerank("passage 4096 rooms 13", passages)
    assert sorted(ranking.keys) == list(range(10_000))
    assert [item.rank for item in ranking] == list(range(1, 10_001))
    assert ranking.scores == sorted(ranking.scores, reverse=True)


def test_ten_thousand_short_candidates_on_a_real_text_path(reranker: Reranker) -> None:
    """Tokenized and batched; the same score as alone, wherever in the list."""
    passages = [f"room {number}" for number in range(10_000)]
    ranking = reranker.rerank("room", passages, top_n=10)
    assert len(ranking) == 10
    alone = reranker.rerank("room", [ranking[7].text])
    assert alone[0].score == pytest.approx(ranking[7].score, abs=1e-4)


def test_duplicate_keys_come_back_both(reranker: Reranker) -> None:
    """Keys are the caller's business."""
    given = [Candidate(3, ALL_PASSAGES[0]), Candidate(3, ALL_PASSAGES[1])]
    assert sorted(reranker.rerank("museum", given).texts) == sorted(ALL_PASSAGES[:2])


def test_duplicate_texts_come_back_with_one_score(reranker: Reranker) -> None:
    """They may be of two sources; with deduplication, the first of them alone."""
    ranking = reranker.rerank("museum", [PLAIN, ALL_PASSAGES[0], PLAIN])
    assert sorted(ranking.keys) == [0, 1, 2]
    assert len({item.score for item in ranking if item.text == PLAIN}) == 1
    once = Reranker(reranker.scorer, deduplicate=True).rerank("museum", [PLAIN, "x", PLAIN])
    assert sorted(once.keys) == [0, 1]
    assert once.deduplicated == 1


@pytest.mark.parametrize(
    ("top_n", "length"),
    [(np.int64(2), 2), (np.uint8(1), 1), (np.int32(0), 0)],
    ids=["int64", "uint8", "zero"],
)
def test_numpy_scalars_are_numbers(reranker: Reranker, top_n: Any, length: int) -> None:
    """As top_n, as first-stage scores, as keys; what comes out goes into JSON."""
    given = [
        Candidate(np.int64(key), text, np.float32(1 / (key + 1)), np.int16(key + 1))
        for key, text in enumerate(ALL_PASSAGES[:4])
    ]
    ranking = reranker.rerank("museum", given, top_n=top_n, score_threshold=np.float64(-1e9))
    assert len(ranking) == length
    json.dumps(ranking.to_dict())


@pytest.mark.parametrize("top_n", [np.float64(2), np.bool_(True), np.nan], ids=repr)
def test_numpy_scalars_that_are_no_whole_numbers_are_refused(
    reranker: Reranker, top_n: Any
) -> None:
    """A float is not a count, nor is numpy's."""
    with pytest.raises(InvalidInputError, match="top_n must be a whole number"):
        reranker.rerank("museum", [PLAIN], top_n=top_n)


def test_numpy_strings_are_text(reranker: Reranker) -> None:
    """A column of an array can be reranked as it is."""
    column = np.asarray(ALL_PASSAGES[:4])
    query = np.str_(QUESTIONS["en"])
    assert reranker.rerank(query, column).keys == reranker.rerank(str(query), list(column)).keys


def test_special_tokens_written_in_a_text_do_not_break_a_pair(reranker: Reranker) -> None:
    """A passage that says ``</s></s>`` or ``[SEP]`` is scored; the pair stays one row."""
    for marks in ("</s></s>", "[SEP]", "<s>"):
        assert np.isfinite(score(reranker, f"before {marks} behind"))


def passages() -> Iterator[str]:
    """A stream."""
    yield from ALL_PASSAGES[:3]


def test_a_stream_of_passages_is_read_whole(reranker: Reranker) -> None:
    """As a list of them."""
    assert (
        reranker.rerank("museum", passages()).keys
        == reranker.rerank("museum", list(passages())).keys
    )
