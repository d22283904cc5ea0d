"""From pairs to token ids."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from texts import ALL_PASSAGES, PAIRS, QUESTIONS
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring import encoding
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.encoding import PairEncoder, TokenCache


def encoder_of(
    folder: Path,
    max_length: int,
    window_tokens: int | None = None,
    cache: TokenCache | None = None,
) -> PairEncoder:
    """The encoder that a scorer of this checkpoint uses."""
    checkpoint = read_checkpoint(folder)
    return PairEncoder(
        checkpoint.tokenizer,
        max_length=max_length,
        window_tokens=window_tokens,
        pad_id=checkpoint.pad_id,
        with_types=checkpoint.with_types,
        cache=cache,
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


# Any text, and text rich in what normalizers and pre-tokenizers treat specially: joined and
# pointed Arabic, combining marks, ligatures, spaces of all kinds, special tokens spelled out.
AWKWARD = st.sampled_from(
    [
        *"abż œé09.,?!'’-_ \t\n\u00a0\u200b\u200d\u202b\u0301\ufeffﬁ２",
        *"ابتثةىأإآؤءلاﷲـًٌَُِّْ؟،٠٩",
        *("</s>", "<s>", "<pad>", "<unk>", "[SEP]", "[CLS]", "▁", "##a", "\ud800", "😀"),
    ]
)
TEXTS = st.text(max_size=30) | st.lists(AWKWARD, max_size=30).map("".join)


@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kept_ids_are_the_ids_that_the_tokenizer_gives_the_pair(
    tiny_checkpoints: Mapping[str, Path],
    name: str,
    pairs: list[tuple[str, str]],
    data: st.DataObject,
) -> None:
    """Random text, Arabic marks and special tokens: encoded alone, kept, or as a pair, equal."""
    plain, kept, tokenizer = three_ways(tiny_checkpoints[name])
    expected = plain.encode(pairs)
    again = data.draw(st.permutations(pairs))
    for some in (pairs, again):
        found = kept.encode(some)
        order = [pairs.index(pair) for pair in some]
        assert found.rows == [expected.rows[place] for place in order]
        if expected.types is not None:
            assert found.types == [expected.types[place] for place in order]
    whole = [pair for pair in pairs if all(map(is_well_formed, pair))]
    if whole:
        rows = tokenizer([query for query, _ in whole], [passage for _, passage in whole])
        assert plain.encode(whole).rows == rows["input_ids"]


@cache
def three_ways(folder: Path) -> tuple[PairEncoder, PairEncoder, Any]:
    """An encoder that keeps nothing, one that keeps all, and transformers' tokenizer."""
    from transformers import AutoTokenizer

    return (
        encoder_of(folder, 512),
        encoder_of(folder, 512, cache=TokenCache()),
        AutoTokenizer.from_pretrained(folder),
    )


def is_well_formed(text: str) -> bool:
    """Whether UTF-8 can hold it; a tokenizer refuses what it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Counting:
    """A tokenizer that counts the texts it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._own = words()

    def encode_batch_fast(self, texts: Sequence[str], **options: Any) -> Any:
        """The tokenizer's own answer."""
        self.texts += texts
        return self._own.encode_batch_fast(texts, **options)


def counting_encoder(cache: TokenCache | None) -> tuple[PairEncoder, Counting]:
    """An encoder and the count of what it tokenizes."""
    encoder = PairEncoder(words(), max_length=40, cache=cache)
    counting = encoder._texts.tokenizer = Counting()
    return encoder, counting


def test_a_corpus_queried_again_is_tokenized_once() -> None:
    """Of the second query's pairs only the query is new; counting tokens reads along."""
    encoder, counting = counting_encoder(TokenCache())
    corpus = [text(number) for number in range(1, 20)]
    encoder.encode([("w900", passage) for passage in corpus])
    assert counting.texts == ["w900", *corpus]
    counting.texts.clear()
    encoder.encode([("w1 w2 w3 w900", passage) for passage in corpus])
    assert counting.texts == ["w1 w2 w3 w900"]
    assert encoder.count_tokens(corpus[7]) == 8
    assert len(counting.texts) == 1


def test_without_a_cache_every_call_tokenizes() -> None:
    """Training reads a text once and has no use for it."""
    encoder, counting = counting_encoder(None)
    for _ in range(2):
        encoder.encode([("w1", "w2")])
    assert counting.texts == ["w1", "w2"] * 2


@given(
    capacity=st.integers(min_value=0, max_value=600),
    calls=st.lists(st.lists(st.integers(min_value=0, max_value=60), max_size=6), max_size=12),
)
def test_the_cache_is_bounded_by_tokens_and_lets_the_oldest_go(
    capacity: int, calls: list[list[int]]
) -> None:
    """Whatever is asked, what is held fits; and it is always what was used last."""
    cache = TokenCache(capacity)
    encoder = PairEncoder(words(), max_length=40, cache=cache)
    for lengths in calls:
        texts = [text(length) for length in lengths]
        for one in texts:
            encoder.count_tokens(one)
        cost = 0
        for one in reversed(list(dict.fromkeys(reversed(texts)))):
            cost += len(one.split()) + len(one) // 4 + 32
        held = sum(len(one.split()) + len(one) // 4 + 32 for one in cache._ids)
        assert held == cache._held <= capacity
        if cost <= capacity:
            assert len(cache.get(texts)) == len(set(texts))


def test_a_text_larger_than_the_cache_drives_nothing_out() -> None:
    """It is not kept, and what was there stays."""
    cache = TokenCache(100)
    cache.put({"small": [1, 2]})
    cache.put({"large": list(range(200)), "wide " * 500: [1]})
    assert cache.get(["small", "large"]) == {"small": [1, 2]}


def test_threads_share_a_cache_that_is_too_small_for_them() -> None:
    """Sixteen threads that drive each other's texts out all get right ids."""
    cache = TokenCache(300)
    start = threading.Barrier(16)

    def call(number: int) -> bool:
        encoder = PairEncoder(words(), max_length=40, cache=cache)
        start.wait()
        pairs = [(f"w{number}", text(1 + (number + turn) % 9)) for turn in range(50)]
        return all(
            encoder.encode([pair]).rows == [[1000, number, 1001, 1001, *range(length), 1002]]
            for pair in pairs
            for length in [len(pair[1].split())]
        )

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(call, range(16)))
    assert cache._held <= 300


@pytest.mark.parametrize("count", [0, 1, 4, 5, 13])
def test_parts_encoded_ahead_are_the_whole(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """In order, each pair once, windows beside the pair they are of."""
    monkeypatch.setattr(encoding, "_PAIRS_AHEAD", 4)
    encoder = PairEncoder(words(), max_length=20)
    pairs = [("w1", text(3 + 9 * number)) for number in range(count)]
    whole = encoder.encode(pairs, "max")
    parts = list(encoder.encode_ahead(pairs, "max"))
    assert [len(part.truncated) for part in parts] == [4] * (count // 4) + [count % 4] * (
        count % 4 > 0
    )
    assert [row for part in parts for row in part.rows] == whole.rows
    owners = [4 * number + owner for number, part in enumerate(parts) for owner in part.owners]
    assert owners == whole.owners.tolist()


def test_only_the_next_part_is_encoded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the model, one part waits and no more."""
    monkeypatch.setattr(encoding, "_PAIRS_AHEAD", 2)
    encoder, counting = counting_encoder(None)
    parts = encoder.encode_ahead([("w1", text(number)) for number in range(2, 22)])
    next(parts)
    parts.close()  # waits for the thread
    assert set(counting.texts) <= {"w1", *(text(number) for number in range(2, 6))}
    assert not [one for one in threading.enumerate() if "rerank-plugins-encode" in one.name]


def test_a_failure_while_encoding_ahead_reaches_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not lost in the thread."""
    monkeypatch.setattr(encoding, "_PAIRS_AHEAD", 2)
    encoder, counting = counting_encoder(None)

    def fails(texts: Sequence[str], **_: Any) -> None:
        raise OverflowError(f"{len(texts)} texts")

    monkeypatch.setattr(counting, "encode_batch_fast", fails)
    with pytest.raises(OverflowError, match="texts"):
        list(encoder.encode_ahead([("w1", "w2")] * 5))


@pytest.mark.parametrize("how", ["truncate", "max", "mean"])
def test_scores_do_not_depend_on_the_parts(
    tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Encoded ahead in parts of seven or all at once: the same scores, in the same places."""
    pairs = PAIRS + PAIRS[3:9]
    scorer = load_scorer(
        tiny_checkpoints["rstar"], engine="torch", device="cpu", precision="fp32", max_length=48
    )
    options = ScoreOptions(long_passages=how)
    whole = scorer.score(pairs, options)
    monkeypatch.setattr(encoding, "_PAIRS_AHEAD", 7)
    parts = scorer.score(pairs, options)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
    assert parts.truncated.tolist() == whole.truncated.tolist()
