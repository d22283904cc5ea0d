"""The parts of the bundled models's recipe that can be checked without its data."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

pytest.importorskip("sentence_transformers", reason="the extra train is not installed")
pytest.importorskip("datasets", reason="the extra train is not installed")
pytest.importorskip("recipes", reason="the recipes are in the repository, not in the package")

from recipes.bundled import (
    calibrate,
    card,
    data,
    e5,
    evaluate,
    export,
    pairs,
    pieces,
    rerank,
    vocabulary,
)
from rerank_plugins import load_reranker
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.training import Group


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


def test_parts_share_no_passage() -> None:
    """A question whose positives lie on both sides belongs to neither part."""
    whole = data.QuestionSet(
        "x", "en", {c: c for c in "abcd"}, {"1": "?", "2": "?", "3": "?"},
        {"1": {"a"}, "2": {"d"}, "3": {"b", "c"}},
    )  # fmt: skip
    train, dev = data.split(whole, 2)
    assert (set(train.passages), set(dev.passages)) == ({"a", "b"}, {"c", "d"})
    assert (set(train.questions), set(dev.questions)) == ({"1"}, {"2"})


def test_scale_and_shift_recover_a_known_probability() -> None:
    """Labels drawn from sigmoid(2x - 1) give back 2 and -1."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=60_000)
    y = rng.random(len(x)) < 1 / (1 + np.exp(1 - 2 * x))
    scale, shift = calibrate.platt(x, y)
    assert math.isclose(scale, 2, abs_tol=0.1)
    assert math.isclose(shift, -1, abs_tol=0.1)


def test_an_epoch_draws_from_sources_as_the_mix_says() -> None:
    """At most the mix's number of a source's groups, each with three of its negatives."""
    seven = tuple(f"wrong {i}" for i in range(7))
    found = [("heading-en", Group(f"h{i}", "right", seven)) for i in range(300)]
    found += [("piaf-fr", Group("few", "x", ("y",)))]
    groups = rerank.epoch(found, random.Random(0))
    assert len(groups) == rerank.MIX["heading-en"]
    assert all(len(set(group.negatives)) == 3 for group in groups)
    assert len({group.negatives for group in groups}) > 1


def test_mined_groups_are_read_back(tmp_path: Path) -> None:
    """Passages are kept once; the positive stays first; questions of all sets are there."""
    folder = write_sets(tmp_path / "data")
    pairs.run(folder, tmp_path)
    groups = pairs.load(tmp_path)
    assert {source for source, _ in groups} == {"poquad-pl", "heading-en"}
    for _, group in groups:
        assert group.positive not in group.negatives
        assert 1 <= len(group.negatives) <= pairs.NEGATIVES
    texts = (tmp_path / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(set(texts)) == len(texts)


def test_the_start_is_a_reranker_whose_pooler_lets_all_through(tmp_path: Path) -> None:
    """It loads by the package's own path, with the windows that ship and the rows that are kept."""
    pieces_ = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces_ += [(f"▁{word}", -1.0) for word in ("river", "town", "north", "of", "the", "west")]
    teacher = Tokenizer(models.Unigram(pieces_, unk_id=3))
    teacher.pre_tokenizer = pre_tokenizers.Metaspace()
    kept = [0, 1, 2, 3, 4, 5, 6, 8]
    tokenizer = pieces.trimmed(teacher, kept)
    config = BertConfig(
        vocab_size=10, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48,
    )  # fmt: skip
    body = BertModel(config, add_pooling_layer=False)
    model = rerank.as_cross_encoder(body, kept)
    torch.testing.assert_close(model.bert.pooler.dense.weight.detach(), torch.eye(24))
    table = body.embeddings.word_embeddings.weight
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.weight, table[kept])
    folder = tmp_path / "start"
    export.reranker(model, tokenizer, folder, export.SETTINGS)
    ranking = load_reranker(folder).rerank("the town", ["the river", "north the town"])
    assert ranking.scored == 2
    assert read_checkpoint(folder).window_tokens == export.SETTINGS["window_tokens"]


def test_a_trimmed_tokenizer_cuts_what_it_kept_as_the_whole_one_does() -> None:
    """Ids move, cuts stay; marks, tatweel, ligatures and invisible characters change nothing."""
    letters = [(char, -9.0) for char in "▁cdeilmoruwabstانسالم"]
    words = [("▁coeur", -2.0), ("▁cat", -1.0), ("▁السلام", -3.0), ("sat", -4.0)]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    teacher = Tokenizer(models.Unigram([*special, *letters, *words], unk_id=3))
    teacher.pre_tokenizer = pre_tokenizers.Metaspace()
    names = [piece for piece, _ in [*special, *letters, *words]]
    kept = [i for i, name in enumerate(names) if name != "sat"]
    trimmed = pieces.trimmed(teacher, kept)

    def cut(text: str) -> list[str]:
        return trimmed.encode(text, add_special_tokens=False).tokens

    for text in ("cat", "coeur cat", "السلام"):
        assert cut(text) == teacher.encode(text, add_special_tokens=False).tokens
    assert cut("c\u00adat\u200b") == cut("cat")
    assert cut("cœur") == cut("coeur")
    assert cut("السَّلَـٰم".replace("\u0670", "ا\u06e1")) == cut("السلام")
    assert cut("\ufe8e") == cut("ا")


def test_langchains_default_is_what_its_retriever_finds() -> None:
    """The function that stands for it gives the order of `BM25Retriever`."""
    community = pytest.importorskip(
        "langchain_community.retrievers", reason="langchain-community is not installed"
    )
    texts = ["the cat sat on a mat", "a dog and a cat", "birds over the sea", "cats and dogs"]
    found = evaluate.split_bm25({f"p{i}": text for i, text in enumerate(texts)})("a cat", 3)
    retriever = community.BM25Retriever.from_texts(texts, k=3)
    wanted = [document.page_content for document in retriever.invoke("a cat")]
    assert [texts[int(key[1:])] for key in found] == wanted


def test_the_card_gets_the_figures_and_keeps_its_words(tmp_path: Path) -> None:
    """A folder without a card gets the package's own; only the table between the marks changes."""
    systems = {
        "BM25": {"nDCG@10": 0.6, "minus_bm25": [0, 0]},
        "hybrid": {"nDCG@10": 0.7, "minus_bm25": [0.05, 0.15]},
    }
    figures = {"top": 50, "sets": {"arcd-ar/test": {"questions": 3, "systems": systems}}}
    (tmp_path / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
    card.fill(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| questions | 3 | |" in text
    assert "| hybrid | .700 (+5.0 to +15.0) | .700 |" in text
    assert "## Data and licences" in text
    card.fill(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_pages_show_the_figures_that_ship() -> None:
    """`python -m recipes.bundled.card` brings them up to date."""
    for page, text in card.pages().items():
        assert page.read_text(encoding="utf-8") == text, page


def write_sets(folder: Path) -> Path:
    """A data folder with every set of the recipe; all but PoQuAD and English headings empty."""
    places = ["paris", "lyon", "cairo", "tunis", "warsaw", "london", "oslo", "rome", "bonn", "riga"]
    # No word triple in common, or they would be taken for one passage.
    texts = {
        f"p{i}": " ".join(f"{place} city {place[k:]}{k}" for k in range(3))
        for i, place in enumerate(places)
    }
    for name, _, _ in data.QUESTION_SETS:
        full = texts if name == "poquad-pl/train-early" else {}
        of = folder / name
        of.mkdir(parents=True)
        write_lines(of / "corpus.jsonl.gz", [{"id": k, "text": t} for k, t in full.items()])
        asked = {f"q{k}": f"where is {text.split()[0]} city" for k, text in full.items()}
        write_lines(of / "queries.jsonl.gz", [{"id": k, "text": t} for k, t in asked.items()])
        rows = ["query-id\tcorpus-id\tscore", *(f"q{key}\t{key}\t1" for key in full)]
        (of / "qrels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    headed = [
        {"lang": "en", "src": "x", "query": f"city of {place}", "text": f"in {text}"}
        for place, text in zip(places, texts.values(), strict=True)
    ]
    write_lines(folder / "permissive" / "heading_passage.jsonl.gz", headed)
    return folder


def write_lines(path: Path, records: list[dict[str, str]]) -> None:
    """A gzipped JSON-lines file, its folder made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
