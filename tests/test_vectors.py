"""The scorer by vectors: each passage is encoded once, and its best window counts."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from rerank_plugins import load_reranker
from rerank_plugins.bundled import StaticEncoder
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import Dense
from rerank_plugins.first_stage.known_vectors import KnownVectors
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import ScoreOptions, Scorer
from rerank_plugins.scoring.vectors import MIDDLE, SCALE, VectorScorer


class Letters:
    """Counts letters; a window per sentence. Remembers what it was asked to encode."""

    name = "letters"

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.asked: list[str] = []

    def _vector(self, text: str) -> NDArray[np.float32]:
        counts = np.array([text.count(chr(97 + i)) for i in range(26)], dtype=np.float32)
        return counts / (np.linalg.norm(counts) or 1)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector each."""
        self.asked += texts
        return np.stack([self._vector(text) for text in texts])

    def embed_windows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """One vector each."""
        self.encoded += texts
        cut = [text.split(".") for text in texts]
        vectors = np.stack([self._vector(part) for parts in cut for part in parts])
        return vectors, np.repeat(np.arange(len(texts)), [len(parts) for parts in cut])

    def settings(self) -> Mapping[str, float]:
        """None."""
        return {}

    def fingerprint(self) -> str:
        """A name."""
        return "letters-1"


PAIRS = [("abc", "abc"), ("abc", "xyz.abc"), ("xyz", "abc"), ("abc", "abcxyz"), ("abc", "abc")]


def logits(scorer: VectorScorer, pairs: Sequence[tuple[str, str]] = PAIRS) -> NDArray[np.float64]:
    """What the scorer gives."""
    return scorer.score(pairs, ScoreOptions()).logits


def test_the_best_window_counts() -> None:
    """As a logit on one scale, whatever the list."""
    cosines = logits(VectorScorer(Letters())) / SCALE + MIDDLE
    np.testing.assert_allclose(cosines, [1, 1, 0, 0.5**0.5, 1], atol=1e-6)


def test_a_known_passage_is_not_encoded_again() -> None:
    """Nor is a query; both are seen once however often they come."""
    encoder = Letters()
    scorer = VectorScorer(encoder)
    assert isinstance(scorer, Scorer)
    first = logits(scorer)
    np.testing.assert_array_equal(logits(scorer), first)
    assert encoder.encoded == ["abc", "xyz.abc", "abcxyz"]
    assert encoder.asked == ["abc", "xyz"]
    scorer.remember(["new", "abc"])
    logits(scorer, [("abc", "new")])
    assert encoder.encoded[3:] == ["new"]


def test_the_file_serves_the_next_process(tmp_path: Path) -> None:
    """Vectors are kept in half precision, under the encoder's fingerprint."""
    path = tmp_path / "vectors.db"
    first = logits(VectorScorer(Letters(), path=path))
    encoder = Letters()
    again = VectorScorer(encoder, path=path)
    np.testing.assert_allclose(logits(again), first, atol=0.05)
    assert encoder.encoded == []
    encoder.fingerprint = lambda: "letters-2"  # type: ignore[method-assign]
    other = VectorScorer(encoder, path=path)
    logits(other)
    assert len(encoder.encoded) == 3


def test_a_failing_file_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """Damaged entries, a lock held by another process: vectors are computed."""
    path = tmp_path / "vectors.db"
    wanted = logits(VectorScorer(Letters(), path=path))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE vectors SET entry = x'0100000000000000ff'")
    connection.close()
    encoder = Letters()
    np.testing.assert_allclose(logits(VectorScorer(encoder, path=path)), wanted, atol=1e-6)
    assert len(encoder.encoded) == 3
    locked = VectorScorer(Letters(), path=path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    np.testing.assert_allclose(logits(locked, [("abc", "other")]) / SCALE + MIDDLE, 0, atol=1)
    holder.close()


@pytest.mark.parametrize("content", [b"no database", None])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    """Whatever it is."""
    path = tmp_path / "other"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (a)")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match="path must be a file of vectors"):
        VectorScorer(Letters(), path=path)
    assert path.read_bytes() == before


def test_an_index_that_knows_the_passages_is_asked_first() -> None:
    """What it lacks is encoded."""

    class Index:
        def vectors_of(self, texts: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
            return {text: np.eye(26, dtype=np.float32)[:1] for text in texts if text == "abc"}

    encoder = Letters()
    logits(VectorScorer(encoder, known=Index()))
    assert encoder.encoded == ["xyz.abc", "abcxyz"]


def test_a_dense_index_lends_its_vectors(tiny_table: StaticEncoder) -> None:
    """Windows and all; what is added is known at once, what is removed no more."""

    class Windows:
        name = "windows"

        def __init__(self) -> None:
            self.encoded: list[str] = []

        def embed_windows(self, texts: Sequence[str]) -> tuple[Any, Any]:
            self.encoded += texts
            parts = [text.split(".") for text in texts]
            vectors = tiny_table.encode([part for some in parts for part in some])
            return vectors, np.repeat(np.arange(len(parts)), [len(some) for some in parts])

        def encode_query(self, texts: Sequence[str]) -> Any:
            return tiny_table.encode(texts)

        encode = embed_windows

        def settings(self) -> dict[str, float]:
            return {"scale": 1, "middle": 0}

    encoder = Windows()
    dense = Dense(["cat", "dog.cat"], embed=encoder)
    scorer = VectorScorer(encoder, known=KnownVectors(dense))  # type: ignore[arg-type]
    encoder.encoded.clear()
    found = scorer.score([("cat", "cat"), ("cat", "dog.cat")], ScoreOptions()).logits
    np.testing.assert_allclose(found, 1, atol=1e-6)
    dense.add(["dog"])
    encoder.encoded.clear()
    scorer.score([("cat", "dog")], ScoreOptions())
    assert encoder.encoded == []
    dense.remove([0])
    assert set(KnownVectors(dense).vectors_of(["cat", "dog"])) == {"dog"}
    with pytest.raises(InvalidInputError, match="cosine"):
        KnownVectors(Dense(["cat"], embed=tiny_table, metric="l2"))


@pytest.fixture
def tiny_table(tmp_path: Path) -> StaticEncoder:
    """Two words at a right angle."""
    vocabulary = {"[UNK]": 0, "cat": 1, "dog": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = np.array([[9, 9], [1, 0], [0, 1]], dtype=np.float32)
    save_file({"embedding.weight": table}, tmp_path / "model.safetensors")
    return StaticEncoder(tmp_path)


def test_memory_is_bounded() -> None:
    """Old passages go, and are encoded again when they come back."""
    scorer = VectorScorer(Letters(), memory_mb=1)
    texts = [f"passage {number}" for number in range(20_000)]
    scorer.remember(texts)
    assert scorer.describe()["passages_in_memory"] < len(texts)


def test_it_reranks_and_travels() -> None:
    """In a `Reranker`, and through pickle without its vectors."""
    reranker = Reranker(pickle.loads(pickle.dumps(VectorScorer(Letters()))))
    ranking = reranker.rerank("abc", ["xyz", "abc"])
    assert [one.text for one in ranking] == ["abc", "xyz"]
    assert ranking.model == "letters"


def test_the_bundled_encoder_is_a_reranker_by_name() -> None:
    """Options of cross-encoders are refused."""
    reranker = load_reranker("bundled-encoder", top_n=1)
    assert reranker.model == "bundled-encoder"
    with pytest.raises(InvalidInputError, match="takes no max_length"):
        load_reranker("bundled-encoder", max_length=100)


class Slow(Letters):
    """Takes a hundredth of a second for every character that it encodes, on the test's clock."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock

    def embed_windows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """As `Letters`, later."""
        self.clock[0] += 0.01 * sum(map(len, texts))
        return super().embed_windows(texts)


def test_against_the_clock_known_passages_first_and_as_many_others_as_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left has no score; the answer is in time."""
    clock = [0.0]
    monkeypatch.setattr("rerank_plugins.scoring.vectors.perf_counter", lambda: clock[0])
    scorer = VectorScorer(Slow(clock))
    scorer.remember(["known one", "known two"])
    clock[0] = 0.0
    passages = ["x" * 30_000, *(f"abc {chr(97 + n)}" * 4 for n in range(20)), "known two"]
    pairs = [("abc", passage) for passage in passages]
    scores = scorer.score(pairs, ScoreOptions(stop_at=1.5))
    assert clock[0] <= 1.5
    assert scores.scored is not None
    scored = scores.scored.tolist()
    assert scored[0] is False
    assert scored[-1] is True
    count = sum(scored[1:-1])
    assert scored[1:-1] == [True] * count + [False] * (20 - count)
    assert count >= 4
    whole = scorer.score(pairs[1:], ScoreOptions())
    np.testing.assert_array_equal(scores.logits[1 : count + 1], whole.logits[:count])
    late = scorer.score([("abc", "new"), ("abc", "known one")], ScoreOptions(stop_at=0.0))
    assert late.scored is not None
    assert late.scored.tolist() == [False, True]


def test_against_the_clock_each_passage_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many turns it takes to encode what is missing."""
    clock, asked = [0.0], list[str]()

    class Index:
        def vectors_of(self, texts: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
            asked.extend(texts)
            return {}

    monkeypatch.setattr("rerank_plugins.scoring.vectors.perf_counter", lambda: clock[0])
    encoder = Slow(clock)
    passages = [f"abc {n}" for n in range(40)]
    scores = VectorScorer(encoder, known=Index()).score(
        [("abc", passage) for passage in passages], ScoreOptions(stop_at=60.0)
    )
    assert scores.scored is None
    assert encoder.encoded == asked == passages


def test_a_reranker_by_vectors_keeps_its_deadline() -> None:
    """Scored ones above, the others behind them in the first stage's order."""
    encoder = Letters()
    reranker = Reranker(VectorScorer(encoder))
    ranking = reranker.rerank("abc", ["xyz", "abc", "bcd"], deadline_ms=60_000)
    assert ranking.scored == 3
    assert ranking[0].text == "abc"
