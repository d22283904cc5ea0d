"""Long passages: which windows are read, and how many tokens a query may take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import load_reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import encoding, long_texts
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.encoding import PairEncoder
from rerank_plugins.scoring.long_texts import blocks_of, head_of
from rerank_plugins.scoring.windows import shared_weights, window_parts, within_allowance

FILLER = "the river runs past the old mill and the road to the village "
ANSWER = "tickets for the maritime museum cost nine euros on sundays "
TORCH = {"engine": "torch", "device": "cpu", "precision": "fp32"}


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=8),
    st.lists(st.integers(0, 12), min_size=9, max_size=200),
    st.integers(2, 8),
)
def test_windows_are_weighed_by_their_shared_rare_tokens(
    query: list[int], passage: list[int], size: int
) -> None:
    """As a plain loop does it; and the best few of all come, best first."""
    count = -(-len(passage) // size)
    edges = [len(passage) * part // count for part in range(count + 1)]
    windows = [set(passage[a:b]) for a, b in pairwise(edges)]
    expected = []
    for window in windows:
        total = 0.0
        for term in set(query):
            number = sum(term in other for other in windows)
            total += (term in window) * np.log(1 + (count - number + 0.5) / (number + 0.5))
        expected.append(total)
    np.testing.assert_allclose(shared_weights(query, passage, edges), expected)
    parts, whole = window_parts(query, passage, size, "best", 3)
    assert whole == (count <= 3)
    if not whole:
        places = [edges.index(start) for start, _ in parts]
        found = sorted((expected[place] for place in places), reverse=True)
        np.testing.assert_allclose(found, sorted(expected, reverse=True)[:3])
        assert len(set(parts)) == 3


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3), st.sampled_from("ab")), max_size=30),
    st.integers(1, 200),
)
def test_a_query_s_allowance_is_kept_but_for_first_windows(
    rows: list[tuple[int, int, str]], most: int
) -> None:
    """Every first window is read; what is read beyond them is within the cap."""
    lengths = np.asarray([length for length, _, _ in rows], dtype=np.int64)
    turns = np.asarray([turn for _, turn, _ in rows], dtype=np.int64)
    queries = [query for _, _, query in rows]
    kept = within_allowance(lengths, turns, queries, {"a": most, "b": most})
    for query in "ab":
        own = np.asarray([one == query for one in queries], dtype=bool)
        first = int(lengths[own & (turns == 0)].sum())
        assert kept[own & (turns == 0)].all()
        assert lengths[own & kept].sum() <= max(most, first)


@pytest.fixture(scope="module")
def long_passage() -> str:
    """An answer deep within other words."""
    return FILLER * 60 + ANSWER + FILLER * 60


@pytest.mark.parametrize("name", ["bge", "rstar"])
def test_best_reads_the_window_with_the_answer(
    tiny_checkpoints: Mapping[str, Path], name: str, long_passage: str
) -> None:
    """Three windows of many; the score is the highest of theirs, and the span holds the answer."""
    scorer = load_scorer(tiny_checkpoints[name], max_length=64, **TORCH)
    pair = ("what do tickets for the maritime museum cost on sundays", long_passage)
    best = scorer.score([pair], ScoreOptions(long_passages="best", windows=1))
    assert best.truncated.tolist() == [True]
    start, end = best.spans[0].tolist()
    assert "tickets" in long_passage[start:end]
    everything = scorer.score([pair], ScoreOptions(long_passages="max"))
    many = scorer.score([pair], ScoreOptions(long_passages="best", windows=1000))
    np.testing.assert_allclose(many.logits, everything.logits, atol=1e-5)
    assert many.truncated.tolist() == [False]
    assert best.logits[0] <= everything.logits[0] + 1e-5


def test_what_a_passage_scores_depends_on_no_other(
    tiny_checkpoints: Mapping[str, Path], long_passage: str
) -> None:
    """Alone and among others, in any order."""
    scorer = load_scorer(tiny_checkpoints["bge"], max_length=64, **TORCH)
    pairs = [("museum tickets", text) for text in (long_passage, FILLER * 40, ANSWER * 30, "short")]
    options = ScoreOptions(long_passages="best")
    together = scorer.score(pairs, options)
    alone = np.concatenate([scorer.score([pair], options).logits for pair in pairs])
    np.testing.assert_allclose(together.logits, alone, atol=1e-5)


def test_a_cap_on_tokens_is_said_in_the_ranking(
    tiny_checkpoints: Mapping[str, Path], long_passage: str
) -> None:
    """Every passage is scored; those that lost windows to the cap are truncated, and not cached."""
    options = {"max_length": 64, "scale": "logit", "long_passages": "max", **TORCH}
    passages = [long_passage, ANSWER, FILLER * 20]
    free = load_reranker(tiny_checkpoints["bge"], **options).rerank("museum", passages)
    assert free.truncated == 0
    capped = load_reranker(tiny_checkpoints["bge"], max_tokens=300, cache=10, **options)
    ranking = capped.rerank("museum", passages)
    assert ranking.scored == 3
    assert ranking.truncated == 2
    assert len(capped.scorer.cache) == 1
    with pytest.raises(InvalidInputError, match="max_tokens"):
        load_reranker(tiny_checkpoints["bge"], max_tokens=0)
    with pytest.raises(InvalidInputError, match="windows"):
        load_reranker(tiny_checkpoints["bge"], windows=0)


@pytest.mark.parametrize("how", ["max", "best", "first", "truncate", "mean"])
def test_a_long_passage_beside_short_ones_leaves_them_their_scores(
    tiny_checkpoints: Mapping[str, Path], how: str
) -> None:
    """The model gives up at the deadline: the short ones first, the long one as far as it goes."""
    scorer = load_scorer(tiny_checkpoints["bge"], max_length=64, **TORCH)
    scorer.warm_up()
    model = scorer._load()[0]
    passages = [FILLER * 2400, *(f"{ANSWER} {number}" for number in range(20))]
    pairs = [("museum", passage) for passage in passages]
    options = ScoreOptions(long_passages=how)
    full = scorer.score(pairs[1:], options)
    model.shared.pace = None
    found = scorer.score(pairs, replace(options, stop_at=time.perf_counter() + 5))
    assert found.scored.tolist() == [True] * 21
    np.testing.assert_allclose(found.logits[1:], full.logits, atol=1e-5)
    late = scorer.score(pairs, replace(options, stop_at=time.perf_counter() - 1))
    assert not late.scored.any()
    assert not late.truncated.any()


@given(st.text(alphabet="ab \n", max_size=4000))
def test_blocks_are_the_text(text: str) -> None:
    """Cut before blanks, where there is one nearby."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "BLOCK", 100)
        patch.setattr(long_texts, "_BACK", 30)
        blocks = blocks_of(text)
        assert "".join(blocks) == text
        assert all(len(block) <= 100 for block in blocks)
        head = head_of(text, 5)
        assert text.startswith(head)
        assert len(head) == len(text) or 80 <= len(head) <= 110


@pytest.mark.parametrize("name", ["bge", "rstar", "camembert"])
@pytest.mark.parametrize("how", ["max", "truncate", "best"])
def test_tokenizing_in_blocks_gives_the_rows_of_the_whole(
    tiny_checkpoints: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    how: str,
    long_passage: str,
) -> None:
    """Tokens, parts and spans are the same; only less is tokenized at a time."""
    from rerank_plugins.scoring.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(tiny_checkpoints[name])
    encoder = PairEncoder(checkpoint.pair_tokenizer, max_length=64, pad_id=checkpoint.pad_id)
    pairs = [("museum tickets", long_passage), ("museum tickets", ANSWER)]
    whole = encoder.encode(pairs, how)
    rows = np.asarray([0, len(whole.rows) - 1])
    spans = encoder.spans(pairs, whole, rows)
    monkeypatch.setattr(long_texts, "BLOCK", 500)
    monkeypatch.setattr(encoding, "BLOCK", 500)
    monkeypatch.setattr(long_texts, "_BACK", 100)
    parts = encoder.encode(pairs, how)
    assert parts.rows == whole.rows
    assert parts.parts.tolist() == whole.parts.tolist()
    assert encoder.spans(pairs, parts, rows).tolist() == spans.tolist()


def test_a_head_is_enough_for_a_truncated_passage(tiny_checkpoints: Mapping[str, Path]) -> None:
    """Of a megabyte, no more is tokenized than the row can take; the row is the whole text's."""
    from rerank_plugins.scoring.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(tiny_checkpoints["bge"])
    encoder = PairEncoder(checkpoint.pair_tokenizer, max_length=64, pad_id=checkpoint.pad_id)
    text = FILLER * 200
    expected = encoder._texts.tokenizer.encode(text, add_special_tokens=False).ids
    encoded = encoder.encode([("museum", text)], "truncate")
    start, end = encoded.parts[0].tolist()
    assert encoded.rows[0][-1 - (end - start) : -1] == expected[start:end]
    assert encoded.truncated.tolist() == [True]
    one_word = "x" * 30_000
    assert encoder.encode([("museum", one_word)], "truncate").rows[0]
