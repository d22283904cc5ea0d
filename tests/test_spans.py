"""Which part of a passage its score comes from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from checkpoints import ARCHITECTURES
from texts import ALL_PASSAGES, PASSAGES, QUESTIONS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rerank_plugins import Cascade, Reranker
from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring.base import ScoreOptions

LENGTH = 64
LONG = "  " + " ".join(ALL_PASSAGES) + "  "
SHORT = PASSAGES["ar"][0]
QUERY = QUESTIONS["en"]


def span_of(folder: Path, passage: str, how: str, query: str = QUERY) -> tuple[int, int]:
    """Of one pair, at the short length."""
    scorer = load_scorer(folder, max_length=LENGTH, device="cpu")
    spans = scorer.score([(query, passage)], ScoreOptions(long_passages=how)).spans
    start, end = spans[0].tolist()
    return start, end


def windows_of(folder: Path) -> list[tuple[tuple[int, int], float]]:
    """The windows of `LONG` in characters, and the logit of each, by raw transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    alone = tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = alone["input_ids"], alone["offset_mapping"]
    query = tokenizer(QUERY, add_special_tokens=False)["input_ids"][: LENGTH * 3 // 4]
    room = LENGTH - len(query) - tokenizer.num_special_tokens_to_add(pair=True)
    count = -(-len(ids) // room)
    edges = [len(ids) * part // count for part in range(count + 1)]
    windows = []
    for a, b in pairwise(edges):
        if "token_type_ids" in tokenizer.model_input_names:
            cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
            row = [cls, *query, sep, *ids[a:b], sep]
            types = {"token_type_ids": torch.tensor([[0] * (len(query) + 2) + [1] * (b - a + 1)])}
        else:
            bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
            row, types = [bos, *query, eos, eos, *ids[a:b], eos], {}
        with torch.inference_mode():
            logit = model(input_ids=torch.tensor([row]), **types).logits.item()
        windows.append(((offsets[a][0], offsets[b - 1][1]), logit))
    return windows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_span_is_the_window_that_scores_highest(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """The same window as by one forward pass a window."""
    folder = tiny_checkpoints[name]
    windows = windows_of(folder)
    assert len(windows) > 3
    (first, last), _ = max(windows, key=lambda window: window[1])
    part = LONG[first:last]
    start, end = span_of(folder, LONG, "max")
    assert (start, end) == (last - len(part.lstrip()), first + len(part.rstrip()))
    assert LONG[start:end] == LONG[start:end].strip()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_truncation_left_is_the_span(tiny_checkpoints: Mapping[str, Path], name: str) -> None:
    """From the first character to the last of the last token that fits."""
    folder = tiny_checkpoints[name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    query = tokenizer(QUERY, add_special_tokens=False)["input_ids"]
    room = LENGTH - len(query) - tokenizer.num_special_tokens_to_add(pair=True)
    offsets = tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True)
    last = offsets["offset_mapping"][room - 1][1]
    assert span_of(folder, LONG, "truncate") == (2, len(LONG[:last].rstrip()))


@pytest.mark.parametrize("how", ["truncate", "max", "mean", "first"])
def test_a_passage_that_fits_is_its_own_span(
    tiny_checkpoints: Mapping[str, Path], how: str
) -> None:
    """Offsets are characters of the text as given."""
    assert span_of(tiny_checkpoints["rstar"], "  nine  ", how) == (0, 8)


def test_the_mean_is_of_the_whole_passage_and_first_of_its_beginning(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """No window wins a mean."""
    folder = tiny_checkpoints["bge"]
    assert span_of(folder, LONG, "mean") == (0, len(LONG))
    start, end = span_of(folder, LONG, "first")
    assert start == 2
    assert 0 < end < len(LONG) / 3


def test_half_a_surrogate_pair_leaves_the_span_open(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """The tokenizer reads another text than the caller's."""
    assert span_of(tiny_checkpoints["bge"], "\ud83d" + LONG, "max") == (-1, -1)
    ranking = load_reranker(tiny_checkpoints["bge"], max_length=LENGTH).rerank(
        QUERY, ["\ud83d" + LONG]
    )
    assert ranking[0].span is None


def test_rankings_caches_and_deadlines_keep_the_span(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """The second answer, from memory or from a file, tells the same."""
    folder = tiny_checkpoints["bge"]
    passages = [LONG, SHORT]

    def spans(reranker: Reranker, **options: float) -> dict[int, tuple[int, int] | None]:
        ranking = reranker.rerank(QUERY, passages, **options)
        return {item.candidate.key: item.span for item in ranking}

    options = {"max_length": LENGTH, "long_passages": "max"}
    expected = spans(load_reranker(folder, **options))
    assert expected[1] == (0, len(SHORT))
    start, end = expected[0]
    assert 0 < end - start < len(LONG) / 2
    for _ in range(2):
        cached = load_reranker(folder, cache=tmp_path / "scores", **options)
        assert spans(cached) == expected
        assert spans(cached) == expected
    assert spans(load_reranker(folder, **options), deadline_ms=60_000) == expected


def test_what_no_model_scored_has_no_span(tiny_checkpoints: Mapping[str, Path]) -> None:
    """A place below the head says nothing of a part."""
    small, big = (load_reranker(tiny_checkpoints[name]) for name in ("rstar", "bge"))
    ranking = Cascade(small, big, head=1).rerank(QUERY, PASSAGES["en"])
    assert [item.span is None for item in ranking] == [False] + [True] * (len(ranking) - 1)


def test_a_dict_holds_the_span_as_a_list(tiny_checkpoints: Mapping[str, Path]) -> None:
    """For JSON."""
    ranking = load_reranker(tiny_checkpoints["rstar"]).rerank(QUERY, [SHORT])
    assert ranking.to_dicts()[0]["span"] == [0, len(SHORT)]
