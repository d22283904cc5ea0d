"""From pairs to token ids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from checkpoints import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from texts import ALL_PASSAGES, PAIRS, QUESTIONS
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.encoding import PairEncoder


def encoder_of(folder: Path, max_length: int, window_tokens: int | None = None) -> PairEncoder:
    """The encoder that a scorer of this checkpoint uses."""
    checkpoint = read_checkpoint(folder)
    return PairEncoder(
        checkpoint.tokenizer,
        max_length=max_length,
        window_tokens=window_tokens,
        pad_id=checkpoint.pad_id,
        with_types=checkpoint.with_types,
    )


@cache
def words() -> Tokenizer:
    """A tokenizer to which ``w0`` to ``w999`` are one token each; ``[Q] q [M] [M] p [E]``."""
    vocabulary = {"[Q]": 1000, "[M]": 1001, "[E]": 1002, "[UNK]": 1003, "a": 1004}
    vocabulary |= {f"w{number}": number for number in range(1000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[Q] $A [E]",
        pair="[Q]:0 $A:0 [M]:0 [M]:1 $B:1 [E]:1",
        special_tokens=[("[Q]", 1000), ("[M]", 1001), ("[E]", 1002)],
    )
    return tokenizer


def text(count: int, start: int = 0) -> str:
    """As many words, each its own token."""
    return " ".join(f"w{number}" for number in range(start, start + count))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ids_and_types_are_the_tokenizer_s_own_where_nothing_is_cut(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """``tokenizer(query, passage)``, in four languages."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoints[name])
    encoded = encoder_of(tiny_checkpoints[name], 512).encode(PAIRS)
    expected = tokenizer([query for query, _ in PAIRS], [passage for _, passage in PAIRS])
    assert encoded.rows == expected["input_ids"]
    assert encoded.types == expected.get("token_type_ids")
    assert encoded.owners.tolist() == list(range(len(PAIRS)))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("max_length", [8, 9, 33, 512])
def test_no_row_is_ever_longer_than_the_model(
    tiny_checkpoints: Mapping[str, Path], name: str, max_length: int
) -> None:
    """A query and a passage longer than everything never index past the positions."""
    endless = " ".join(ALL_PASSAGES * 3)
    encoder = encoder_of(tiny_checkpoints[name], max_length)
    for how in ("truncate", "max", "mean", "first"):
        encoded = encoder.encode([(endless, endless), (endless, ""), ("x", endless)], how)
        assert encoded.lengths.max() <= max_length
        assert encoded.truncated[0]
        assert encoded.truncated[1]


def test_the_query_is_capped_at_three_quarters_and_the_passage_gets_the_rest() -> None:
    """FlagEmbedding's rule: of 40 tokens, 30 for the query, 4 special, 6 for the passage."""
    encoded = PairEncoder(words(), max_length=40).encode([(text(35), text(50, start=100))])
    assert encoded.rows[0] == [
        1000,
        *range(30),
        1001,
        1001,
        *range(100, 106),
        1002,
    ]
    assert encoded.truncated.tolist() == [True]


def test_the_passage_keeps_at_least_one_token_of_room() -> None:
    """Where three quarters and the specials fill the row, the query gives way, not the rule."""
    encoded = PairEncoder(words(), max_length=12).encode([(text(35), text(50, start=100))])
    assert encoded.rows[0] == [1000, *range(7), 1001, 1001, 100, 1002]


def test_a_capped_query_alone_counts_as_truncated() -> None:
    """The passage is whole and the query is not: the pair was not read whole."""
    encoded = PairEncoder(words(), max_length=40).encode([(text(31), "w500"), (text(30), "w500")])
    assert encoded.truncated.tolist() == [True, False]


def test_a_pair_that_fits_to_the_token_is_not_truncated() -> None:
    """One token more, and it is."""
    encoder = PairEncoder(words(), max_length=20)
    encoded = encoder.encode([("w1", text(15)), ("w1", text(16))])
    assert encoded.truncated.tolist() == [False, True]
    assert encoded.lengths.tolist() == [20, 20]


@given(
    passage=st.integers(min_value=0, max_value=300),
    query=st.integers(min_value=1, max_value=60),
    max_length=st.integers(min_value=8, max_value=64),
    window=st.none() | st.integers(min_value=1, max_value=40),
)
def test_windows_cover_the_passage_once_and_are_alike_in_size(
    passage: int, query: int, max_length: int, window: int | None
) -> None:
    """Joined, they are the passage; none is a short rest; each has the whole query before it."""
    encoder = PairEncoder(words(), max_length=max_length, window_tokens=window)
    encoded = encoder.encode([(text(query), text(passage, start=500))], "max")
    joined, sizes = [], []
    for row in encoded.rows:
        middle = row.index(1001)
        assert row[1:middle] == list(range(min(query, max_length * 3 // 4, max_length - 5)))
        joined += row[middle + 2 : -1]
        sizes.append(len(row) - middle - 3)
    assert joined == list(range(500, 500 + passage))
    assert max(sizes) - min(sizes) <= 1
    assert encoded.lengths.max() <= max_length
    assert window is None or max(sizes) <= window
    assert encoded.owners.tolist() == [0] * len(encoded.rows)


def test_windows_read_the_whole_passage_so_nothing_is_truncated() -> None:
    """``max`` and ``mean`` leave nothing out; ``first`` and ``truncate`` do."""
    encoder = PairEncoder(words(), max_length=20)
    pairs = [("w1", text(100))]
    seen = {
        how: encoder.encode(pairs, how).truncated.tolist()
        for how in ("truncate", "max", "mean", "first")
    }
    assert seen == {"truncate": [True], "max": [False], "mean": [False], "first": [True]}


def test_a_checkpoint_s_window_size_is_used_only_by_windows() -> None:
    """``truncate`` still fills the row."""
    encoder = PairEncoder(words(), max_length=50, window_tokens=10)
    assert encoder.encode([("w1", text(100))], "truncate").lengths.tolist() == [50]
    assert encoder.encode([("w1", text(100))], "first").lengths.tolist() == [15]


def test_token_types_follow_the_template() -> None:
    """Specials too have the type that the tokenizer gives them, in every window."""
    encoder = PairEncoder(words(), max_length=12)
    encoded = encoder.encode([("w1 w2", text(9, start=100))], "max")
    assert encoded.types == [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]
    assert (
        PairEncoder(words(), max_length=12, with_types=False).encode([("w1", "w2")]).types is None
    )


def test_truncation_and_padding_of_the_given_tokenizer_are_neither_used_nor_lost() -> None:
    """A tokenizer.json may carry such settings; ours is a copy without them."""
    tokenizer = Tokenizer.from_str(words().to_str())
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=64)
    encoded = PairEncoder(tokenizer, max_length=40).encode([(text(8), text(9, start=100))])
    assert encoded.lengths.tolist() == [21]
    assert tokenizer.truncation["max_length"] == 5
    assert tokenizer.padding["length"] == 64


def test_a_tokenizer_that_puts_the_passage_first_is_refused() -> None:
    """Its pairs could not be read as query, then passage."""
    tokenizer = Tokenizer.from_str(words().to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [E]", pair="$B:1 [M]:1 $A:0 [E]:0", special_tokens=[("[M]", 1001), ("[E]", 1002)]
    )
    with pytest.raises(UnsupportedModelError, match="query, then passage"):
        PairEncoder(tokenizer, max_length=40)


def test_a_length_without_room_for_text_is_refused() -> None:
    """Four specials and four tokens of text are the least."""
    PairEncoder(words(), max_length=8)
    with pytest.raises(InvalidInputError, match=r"at least 8 .* but got 7"):
        PairEncoder(words(), max_length=7)


def test_padding_is_masked_and_rows_keep_their_places() -> None:
    """Only as long as the longest row of the batch; the pad id and mask 0 behind."""
    encoder = PairEncoder(words(), max_length=40, pad_id=77)
    encoded = encoder.encode([("w1", "w2"), ("w1", "w2 w3 w4"), ("w1", text(20))])
    batch = encoder.pad(encoded, np.asarray([1, 0]))
    assert batch.input_ids.tolist() == [
        [1000, 1, 1001, 1001, 2, 3, 4, 1002],
        [1000, 1, 1001, 1001, 2, 1002, 77, 77],
    ]
    assert batch.attention_mask.tolist() == [[1] * 8, [1] * 6 + [0] * 2]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]]


def test_no_pairs_encode_to_no_rows() -> None:
    """An empty list is valid."""
    encoded = PairEncoder(words(), max_length=40).encode([])
    assert encoded.rows == []
    assert encoded.truncated.shape == (0,)


def test_lone_surrogates_become_the_replacement_character(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """What no UTF-8 can hold is scored as U+FFFD; surrogate pairs are the character they mean."""
    encoder = encoder_of(tiny_checkpoints["bge"], 512)
    encoded = encoder.encode(
        [("q", "a \ud800 b"), ("q", "a \ufffd b"), ("q", "\ud83d\ude00"), ("q", "\U0001f600")]
    )
    assert encoded.rows[0] == encoded.rows[1]
    assert encoded.rows[2] == encoded.rows[3]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_are_counted_without_specials(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """As context budgets need them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoints[name])
    encoder = encoder_of(tiny_checkpoints[name], 64)
    for sentence in [*QUESTIONS.values(), " ".join(ALL_PASSAGES), ""]:
        expected = len(tokenizer(sentence, add_special_tokens=False)["input_ids"])
        assert encoder.count_tokens(sentence) == expected
