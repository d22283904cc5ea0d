"""The text encoder, on a tiny BERT in the layout that ships; and the one that ships."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import WORDS
from tokenizers import Tokenizer
from transformers import BertModel

from rerank_plugins.bundled import FOLDER, BundledEncoder, StaticEncoder, load_encoder
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.first_stage import Dense, EmbeddedEncoder
from rerank_plugins.scoring import engines

Tiny = tuple[Path, BertModel]


def oracle(model: BertModel, prefix: str, text: str) -> np.ndarray:
    """The mean of transformers' last layer, at length 1, of a text alone."""
    ids = [0, *(4 + WORDS.index(word) for word in f"{prefix} {text}".split()), 2]
    with torch.inference_mode():
        mean = model(input_ids=torch.tensor([ids])).last_hidden_state.mean(1)[0]
    return (mean / mean.norm()).numpy()


@pytest.fixture(params=["torch", "openvino"])
def encoder(tiny: Tiny, request: pytest.FixtureRequest) -> BundledEncoder:
    """The tiny one, on each engine."""
    return BundledEncoder(tiny[0], engine=request.param)


def test_vectors_are_the_mean_of_the_last_layer(encoder: BundledEncoder, tiny: Tiny) -> None:
    """Queries and passages have their prefixes; neighbours in a batch change nothing."""
    texts = ["river", "the town north of the river", "متحف يفتح", "tram of the tram"]
    for found, prefix in (
        (encoder.encode_query(texts), "query:"),
        (encoder.encode_document(texts), "passage:"),
        (encoder.encode(texts), "passage:"),
    ):
        assert found.dtype == np.float32
        wanted = np.stack([oracle(tiny[1], prefix, text) for text in texts])
        np.testing.assert_allclose((found * wanted).sum(1), 1, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_long_passage_has_windows_that_cover_it(encoder: BundledEncoder) -> None:
    """The first and the last words are in a window; a query is cut instead."""
    words = ["river"] * 3 + ["town"] * 90 + ["north"] * 3
    vectors, owners = encoder.embed_windows(["tram", " ".join(words), "of"])
    assert owners[0] == 0
    assert owners[-1] == 2
    windows = int((owners == 1).sum())
    assert windows > 2
    # 40 tokens a window: the prefix and the ends take three.
    [head] = encoder.encode_document([" ".join(words[:37])])
    [tail] = encoder.encode_document([" ".join(words[-37:])])
    own = vectors[owners == 1]
    np.testing.assert_allclose([own[0] @ head, own[-1] @ tail], 1, atol=1e-3)
    [cut] = encoder.encode_query([" ".join(words)])
    [same] = encoder.encode_query([" ".join(words[:37])])
    np.testing.assert_allclose(cut @ same, 1, atol=1e-3)


def test_every_text_has_a_vector(encoder: BundledEncoder) -> None:
    """Empty and broken texts too; none at all give none."""
    assert np.isfinite(encoder.encode_document(["", " ", "unheard", "\ud800"])).all()
    assert encoder.encode_document([]).shape == (0, 64)
    assert encoder.encode_query([]).shape == (0, 64)


def test_threads_and_pickles_change_nothing(encoder: BundledEncoder) -> None:
    """One encoder serves all; another process reads its own files."""
    texts = [f"{word} of the {other}" for word in WORDS for other in WORDS]
    wanted = encoder.encode_document(texts)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: encoder.encode_document(texts), range(8)):
            np.testing.assert_allclose(found, wanted, atol=1e-3)
    copied = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_allclose(copied.encode_document(texts), wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("engine", "precision", "near"),
    [
        ("torch", "fp32", 1e-5),
        ("torch", "bf16", 1e-3),
        ("torch", "int8", 5e-3),
        ("openvino", "fp32", 1e-5),
        ("openvino", "bf16", 1e-3),
    ],
)
def test_a_precision_that_is_asked_for(
    tiny: Tiny, engine: str, precision: str, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle keeps it; int8 has a fingerprint of its own, so that indexes tell it apart."""
    monkeypatch.setattr(engines, "native_bf16", lambda: True)
    texts = ["river", "the town north of the river", "متحف يفتح"]
    made = BundledEncoder(tiny[0], engine=engine, precision=precision)
    encoder = pickle.loads(pickle.dumps(made))
    told = encoder.describe()
    assert (told["engine"], told["precision"], told["chosen"]) == (engine, precision, "asked for")
    wanted = np.stack([oracle(tiny[1], "passage:", text) for text in texts])
    found = encoder.encode_document(texts)
    np.testing.assert_allclose((found * wanted).sum(1), 1, atol=near)
    np.testing.assert_allclose(encoder.encode_document(texts[1:2])[0], found[1], atol=2 * near)
    same = encoder.fingerprint() == BundledEncoder(tiny[0]).fingerprint()
    assert same is (precision != "int8")


def test_an_unknown_precision_is_refused() -> None:
    """At once, with those that exist."""
    with pytest.raises(InvalidInputError, match="bf16"):
        BundledEncoder(precision="fp64")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_what_does_not_fit_together_is_told_of(tmp_path: Path, tiny: Tiny, engine: str) -> None:
    """At first use, not at import."""
    nowhere = BundledEncoder(tmp_path, engine=engine)
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        nowhere.encode(["river"])
    config = (tiny[0] / "config.json").read_text().replace('_size": 128', '_size": 96')
    for file in tiny[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UnsupportedModelError, match="fit together"):
        BundledEncoder(tmp_path, engine=engine).encode(["river"])


def test_the_names() -> None:
    """One of each per process; the earlier name stays."""
    assert load_encoder() is BundledEncoder.default()
    assert load_encoder("bundled-static") is StaticEncoder.default()
    assert EmbeddedEncoder is BundledEncoder
    with pytest.raises(InvalidInputError, match="bundled-static"):
        load_encoder("bundled")  # type: ignore[arg-type]


@pytest.mark.skipif(
    not (FOLDER / "encoder" / "config.json").is_file(), reason="the encoder that ships is not here"
)
class TestShipped:
    """The encoder that ships."""

    def test_an_answer_is_nearer_than_others_in_any_language(self) -> None:
        """Questions find their passages across and within languages."""
        passages = [
            "يفتح المتحف أبوابه من التاسعة صباحا حتى الخامسة مساء ما عدا يوم الاثنين.",
            "Le pain se conserve trois jours dans un torchon propre.",
            "Ostatni tramwaj odjeżdża z dworca o północy.",
            "The library lends books for three weeks.",
        ]
        questions = [
            "متى يفتح المتحف؟",
            "Comment garder le pain frais ?",
            "O której odjeżdża ostatni tramwaj?",
            "How long may I keep a book?",
            "When does the museum open?",
        ]
        stage = Dense(passages)
        first = [stage.search(question, 1)[0].key for question in questions]
        assert first == [0, 1, 2, 3, 0]

    def test_spellings_that_read_alike_have_one_vector(self) -> None:
        """Quranic and honorific marks, tatweel, ligatures, presentation forms, invisible ones."""
        encoder = BundledEncoder.default()
        plain = ["قال النبي محمد بسم الله الرحمن الرحيم", "le coeur et l'oeuvre de la soeur"]
        marked = [
            "قَالَ النَّبِيُّ مُحَمَّدٌ\ufdfa".replace("\ufdfa", "\u0610")
            + " بِسْمِ ٱللَّهِ ٱلرَّحْمَـٰنِ ٱلرَّحِيمِ\u06dd".replace("ٱ", "ا").replace("\u06dd", "\u06dc"),
            "le c\u0153ur et l'\u0153uvre\u200b de la s\u0153ur\ufeff",
        ]
        same = (encoder.encode_query(plain) * encoder.encode_query(marked)).sum(1)
        np.testing.assert_allclose(same, 1, atol=2e-3)


@pytest.mark.skipif(
    not (FOLDER / "reranker" / "tokenizer.json").is_file(), reason="the models are not here"
)
@pytest.mark.parametrize("name", ["encoder", "reranker", "static"])
@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("بسم الله الرحمن الرحيم", "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ"),
        ("قال النبي محمد", "قال\u06dc النبي\u0610 مح\u0653مد\u08d4"),
        ("السلام عليكم", "السـلام\u200f عليـــكم"),
        ("le coeur de la soeur", "le c\u0153ur de la s\u0153ur"),
        ("ا", "\ufe8e"),
    ],
)
def test_marks_that_do_not_change_a_word_change_no_token(
    name: str, plain: str, marked: str
) -> None:
    """Quranic and honorific marks, tatweel, ligatures, presentation forms, invisible ones."""
    tokenizer = Tokenizer.from_file(str(FOLDER / name / "tokenizer.json"))
    assert tokenizer.encode(marked).ids == tokenizer.encode(plain).ids
