"""The parts of the embedded model's recipe that can be checked without its data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification

pytest.importorskip("scipy")
pytest.importorskip("recipes", reason="the recipes are in the repository, not in the package")

from rank_bm25 import BM25Okapi

from recipes.embedded import bm25, calibrate, data, e5, evaluate, pairs, rerank, vocabulary


def test_blocks_of_four_bits_give_back_what_was_packed() -> None:
    """Low nibbles are a block's first half, high nibbles its second, scaled around 8."""
    rng = np.random.default_rng(0)
    nibbles = rng.integers(0, 16, (6, 32))
    scales = rng.normal(size=(6, 1)).astype(np.float16)
    packed = (nibbles[:, :16] | nibbles[:, 16:] << 4).astype(np.uint8)
    blocks = np.concatenate([scales.view(np.uint8).reshape(6, 2), packed], axis=1)
    found = e5.dequantize(blocks.ravel(), 3)
    wanted = ((nibbles - 8) * scales.astype(np.float32)).reshape(3, 64)
    np.testing.assert_allclose(found, wanted)


def test_spellings_of_a_word_become_one() -> None:
    """Marks, letter forms, digits and invisible characters do not make two Arabic words of one."""
    normalize = vocabulary.normalizer().normalize_str
    assert normalize("المَدْرَسَة") == normalize("المدرســـه") == "المدرسه"
    assert normalize("أإآٱ") == "اااا"
    assert normalize("٢٠١٧") == normalize("۲۰۱۷") == "2017"
    assert normalize("\u200fPARIS\u200b") == "paris"
    assert normalize("Été") == "été"


def test_joined_pieces_take_up_the_lone_metaspace() -> None:
    """After `join`, a common word costs one token less, and the vocabulary keeps its size."""
    weighted = vocabulary.Counter({"paris": 400, "ville": 300, "lyon": 200, "à": 900, "?": 900})
    for i in range(40):
        weighted["mot" + chr(97 + i % 26) * (1 + i // 26)] = 20
    trained = vocabulary.train(weighted, 60)
    joined = vocabulary.join(trained, weighted)
    assert joined.get_vocab_size() == trained.get_vocab_size()
    words = list(weighted)

    def cost(tokenizer: Tokenizer) -> float:
        cuts = tokenizer.encode_batch(words, add_special_tokens=False)
        return sum(weighted[w] * len(c.ids) for w, c in zip(words, cuts, strict=True))

    assert cost(joined) <= cost(trained)
    pair = joined.encode("paris ?", "à lyon")
    assert pair.tokens[0] == "[CLS]"
    assert pair.tokens.count("[SEP]") == 2
    assert pair.type_ids[0] == 0
    assert pair.type_ids[-1] == 1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 700), st.integers(1, 100))
def test_windows_cover_a_passage_in_nearly_equal_parts(length: int, size: int) -> None:
    """Nothing is lost, nothing is longer than allowed, no window is a mere remainder."""
    parts = rerank.windows(np.arange(length, dtype=np.int32), size)
    assert np.concatenate(parts).tolist() == list(range(length))
    assert max(map(len, parts)) <= size
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_short_forward_pass_gives_the_models_own_logits() -> None:
    """Computing the last layer for [CLS] alone changes no logit, whatever the slices."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=90, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    rows = [(np.arange(5, 6 + k), np.arange(20, 22 + 7 * k)) for k in (3, 0, 5, 1)]
    with torch.no_grad():
        own = model(**rerank.collate(rows)).logits[:, 0]
        found = rerank.score(lambda batch: rerank.forward(model, batch), rows, 60)
    torch.testing.assert_close(found, own)


def test_bm25_of_the_recipe_is_rank_bm25s() -> None:
    """Same scores as BM25Okapi over the same terms."""
    texts = ["the cat sat on a mat", "a dog and a cat", "birds fly over the sea", "cats and dogs"]
    index = bm25.Index(texts, "en")
    reference = BM25Okapi([index.analyze(t) for t in texts])
    for question in ("where is the cat", "dogs at sea", "nothing here"):
        wanted = reference.get_scores(index.analyze.query(question))
        np.testing.assert_allclose(index.scores(question), wanted, atol=1e-9)


def test_parts_share_no_passage() -> None:
    """A question whose positives lie on both sides belongs to neither part."""
    whole = data.QuestionSet(
        "x", "en", {c: c for c in "abcd"}, {"1": "?", "2": "?", "3": "?"},
        {"1": {"a"}, "2": {"d"}, "3": {"b", "c"}},
    )  # fmt: skip
    train, dev = data.split(whole, 2)
    assert (set(train.passages), set(dev.passages)) == ({"a", "b"}, {"c", "d"})
    assert (set(train.questions), set(dev.questions)) == ({"1"}, {"2"})


def test_near_duplicates_are_seen() -> None:
    """Half of the shorter text's word triples in common makes two passages one."""
    text = "one two three four five six seven eight"
    assert pairs.near(pairs.triples(text), pairs.triples(text + " and some more words here"))
    assert not pairs.near(pairs.triples(text), pairs.triples("eight seven six five four three"))


def test_scale_and_shift_recover_a_known_probability() -> None:
    """Labels drawn from sigmoid(2x - 1) give back 2 and -1."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=60_000)
    y = (rng.random(len(x)) < 1 / (1 + np.exp(1 - 2 * x))).astype(np.float64)
    scale, shift = calibrate.platt(x, y)
    assert math.isclose(scale, 2, abs_tol=0.1)
    assert math.isclose(shift, -1, abs_tol=0.1)


def test_the_interval_holds_the_mean_and_shrinks() -> None:
    """A bootstrap interval surrounds the mean and narrows with more questions."""
    rng = np.random.default_rng(2)
    few, many = rng.normal(0.1, 1, 50), rng.normal(0.1, 1, 5000)
    low, high = evaluate.interval(few)
    assert low < few.mean() < high
    assert np.ptp(evaluate.interval(many)) < (high - low) / 5


def test_a_pooler_that_was_trained_is_kept_and_one_that_was_not_passes_all_through(
    tmp_path: Path,
) -> None:
    """Training that goes on from a checkpoint starts from its logits; a step is finite."""
    words = ["river", "town", "north", "of", "the"]
    tokenizer = vocabulary.train(vocabulary.Counter(dict.fromkeys(words, 50)), 40)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=12,
            intermediate_size=48,
            num_labels=1,
        )
    )
    model.save_pretrained(tmp_path / "tuned")
    model.bert.save_pretrained(tmp_path / "body")
    texts = ["the river", "north", "of the town"]
    group = pairs.Group("arcd-ar", "ar", "the town", texts, [2.0, 1.0, 0.5])
    pairs.save(tmp_path, [group] * 12)
    (tmp_path / "dev.jsonl").write_text("", encoding="utf-8")
    plan = rerank.Plan(minutes=1, groups=4, negatives=2)

    tuned = rerank.Trainer(tmp_path / "tuned", tmp_path, tmp_path / "out", plan)
    pooler = tuned.model.bert.pooler.dense.weight
    torch.testing.assert_close(pooler, model.bert.pooler.dense.weight)
    fresh = rerank.Trainer(tmp_path / "body", tmp_path, tmp_path / "other", plan)
    torch.testing.assert_close(fresh.model.bert.pooler.dense.weight.detach(), torch.eye(24))
    loss, right = fresh.train_step()
    assert math.isfinite(loss)
    assert 0 <= right <= 1
