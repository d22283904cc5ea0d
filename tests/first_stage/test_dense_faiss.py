"""Dense search against brute force, its embeddings, additions and removals."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from first_stage_tools import DIMENSION, embed_words, write_encoder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage import Dense, StaticEncoder

METRICS = ("cosine", "inner_product", "l2")
# Few distinct values, so that ties and zero vectors are common; and small real ones.
COARSE = st.integers(-2, 2).map(float)
FINE = st.floats(-100, 100, width=32)


def lookup(vectors: NDArray[Any]) -> Callable[[list[str]], NDArray[Any]]:
    """An embedding that reads a text as the row number of its vector."""
    return lambda texts: vectors[[int(text) for text in texts]]


def brute_force(vectors: NDArray[Any], query: NDArray[Any], metric: str) -> NDArray[np.float64]:
    """The scores by definition, of vectors in the float32 that indexes hold."""

    def held(rows: NDArray[Any]) -> NDArray[np.float64]:
        rows = rows.astype(np.float64)
        if metric == "cosine":
            norms = np.linalg.norm(rows, axis=-1, keepdims=True)
            rows = rows / np.where(norms == 0, 1, norms)
        return rows.astype(np.float32).astype(np.float64)

    rows, one = held(vectors), held(query)
    if metric == "l2":
        return -((rows - one) ** 2).sum(axis=1)
    return (rows * one).sum(axis=1)


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[int], int]:
    """Vectors, a query, a mask, keys to remove and k."""
    n, d = draw(st.integers(1, 30)), draw(st.integers(1, 9))
    values = draw(st.sampled_from([COARSE, FINE]))
    vectors = draw(arrays.arrays(np.float32, (n, d), elements=values))
    query = draw(arrays.arrays(np.float32, d, elements=values))
    mask = draw(arrays.arrays(np.bool_, n))
    removed = draw(st.lists(st.integers(0, n - 1), unique=True))
    return vectors, query, mask, removed, draw(st.integers(0, n + 2))


@pytest.mark.parametrize("metric", METRICS)
@given(problem=problems())
def test_the_exact_index_equals_brute_force(metric: str, problem: Any) -> None:
    """The best k of what is allowed, ties by key, scores higher-is-better; and no others."""
    vectors, query, mask, removed, k = problem
    dense = Dense(map(str, range(len(vectors))), embed=lookup(vectors), metric=metric)
    dense.remove(removed)
    scores = brute_force(vectors, query, metric)
    allowed = [i for i in np.flatnonzero(mask).tolist() if i not in removed]
    best = sorted(allowed, key=lambda i: (-scores[i], i))[:k]
    if metric == "cosine" and not query.any():
        best = []
    found = dense.search_by_vector(query, k, mask=mask)
    assert [c.score for c in found] == pytest.approx([scores[i] for i in best], rel=1e-9, abs=1e-9)
    if np.abs(np.diff(np.unique(scores))).min(initial=1) > 1e-9:
        assert [c.key for c in found] == best


@pytest.mark.parametrize("metric", METRICS)
@given(problem=problems())
def test_the_graph_index_leaks_nothing_and_fills_k(metric: str, problem: Any) -> None:
    """Whatever the mask, a graph gives as many results as it may, and their true scores."""
    vectors, query, mask, removed, k = problem
    dense = Dense(map(str, range(len(vectors))), embed=lookup(vectors), metric=metric, index="hnsw")
    dense.remove(removed)
    assert len(dense) == len(vectors) - len(removed)
    allowed = set(np.flatnonzero(mask).tolist()) - set(removed)
    found = dense.search_by_vector(query, k, mask=mask)
    assert {c.key for c in found} <= allowed
    if query.any():
        assert len(found) == min(k, len(allowed))
    scores = brute_force(vectors, query, metric)
    for candidate in found:
        assert candidate.score == pytest.approx(scores[candidate.key], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_index_finds_nearly_what_the_exact_one_does(metric: str) -> None:
    """At 3,000 passages nine in ten of the true best ten are found, filtered or not."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3000, 24)).astype(np.float32)
    texts = list(map(str, range(3000)))
    exact = Dense(texts, embed=lookup(vectors), metric=metric)
    graph = Dense(texts, embed=lookup(vectors), metric=metric, index="hnsw")
    hits = wanted = 0
    for share in (1.0, 0.5, 0.2, 0.05):
        mask = generator.random(3000) < share
        for query in generator.normal(size=(20, 24)):
            best = {c.key for c in exact.search_by_vector(query, 10, mask=mask)}
            hits += len(best & {c.key for c in graph.search_by_vector(query, 10, mask=mask)})
            wanted += len(best)
    assert hits >= 0.9 * wanted


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_keys_are_stable_and_never_given_again(metric: str, index: str) -> None:
    """Additions and removals leave the keys of all others as they were."""
    dense = Dense(["one bee", "two bees"], embed=embed_words, metric=metric, index=index)
    assert dense.add(["three flowers", "four flowers"]) == [2, 3]
    dense.remove([3, 0])
    assert dense.add(text for text in ["five bees"]) == [4]
    found = dense.search("three flowers bees five", 10)
    assert {c.key: c.text for c in found} == {1: "two bees", 2: "three flowers", 4: "five bees"}
    mask = np.asarray([True, False, True, True, True])
    assert {c.key for c in dense.search("flowers", 10, mask=mask)} == {2, 4}
    dense.remove([1, 2, 4])
    assert len(dense) == 0
    assert dense.search("flowers", 10) == []
    assert dense.add(["again"]) == [5]


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_removal_of_an_unknown_key_removes_nothing(index: str) -> None:
    """The unknown key is named, and the known ones beside it stay."""
    dense = Dense(["a", "b"], embed=embed_words, index=index)
    with pytest.raises(InvalidInputError, match="7"):
        dense.remove([0, 7])
    dense.remove([0, 0])
    with pytest.raises(InvalidInputError, match="0"):
        dense.remove([0])
    assert len(dense) == 1


def test_an_addition_is_all_or_nothing() -> None:
    """When a later batch fails to embed, nothing of the earlier ones stays."""
    calls = []

    def failing(texts: list[str]) -> NDArray[Any]:
        calls.append(texts)
        if "bad" in texts:
            raise ConnectionError("the embedding service is gone")
        return embed_words(texts)

    dense = Dense(["first"], embed=failing, batch_size=2)
    with pytest.raises(ConnectionError):
        dense.add(["a", "b", "c", "bad"])
    assert len(dense) == 1
    assert [len(texts) for texts in calls] == [1, 2, 2]
    assert dense.add(["next"]) == [1]
    assert {c.text for c in dense.search("a b c first next", 9)} == {"first", "next"}


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (lambda n: np.full((n, 4), np.nan), "finite"),
        (lambda n: np.full((n, 4), np.inf), "finite"),
        (lambda n: np.full((n, 4), 1e300), "finite in float32"),
        (lambda n: np.ones((n + 1, 4)), "one vector for each text"),
        (lambda n: np.ones((n - 1, 4)), "one vector for each text"),
        (lambda n: np.ones(4), "one vector for each text"),
        (lambda n: np.ones((n, 0)), "one vector for each text"),
        (lambda n: [], "one vector for each text"),
        (lambda n: None, "one vector for each text"),
        (lambda n: [["x"] * 4] * n, "number"),
        (lambda n: [[1.0] * (3 + i) for i in range(n)], "as many for one text as for another"),
        (lambda n: np.ones((n, 5)), "same dimension, 4 here, but one has 5"),
    ],
)
def test_a_bad_embedding_is_named(answer: Callable[[int], Any], rule: str) -> None:
    """NaN, overflow, a wrong count or dimension are errors, for passages and for queries."""
    good = True
    dense = Dense(
        ["a", "b"], embed=lambda texts: np.ones((len(texts), 4)) if good else answer(len(texts))
    )
    good = False
    with pytest.raises(InvalidInputError, match=rule):
        dense.add(["c", "d"])
    if "as many" not in rule:  # one query cannot disagree with itself
        with pytest.raises(InvalidInputError, match=rule):
            dense.search("a", 1)
    good = True
    assert len(dense.search("a", 9)) == 2


def test_a_batch_of_another_dimension_is_named() -> None:
    """A model that changes its mind between two batches is caught."""
    with pytest.raises(InvalidInputError, match="dimension, 1 here, but one has 2"):
        Dense(["a", "b"], embed=lambda texts: [[1.0] * (1 + (texts == ["b"]))], batch_size=1)


def test_zero_vectors_under_cosine() -> None:
    """A zero passage has cosine 0 with all; a zero query points nowhere and finds nothing."""
    vectors = np.asarray([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    dense = Dense(["0", "1", "2"], embed=lookup(vectors))
    assert [(c.key, c.score) for c in dense.search_by_vector([2, 0], 3)] == [
        (0, 1),
        (1, 0),
        (2, -1),
    ]
    assert dense.search_by_vector([0, 0], 3) == []


def test_an_empty_index_embeds_no_query() -> None:
    """With nothing to find, or nothing asked for, the embedding service is left alone."""

    def unused(texts: list[str]) -> Any:
        raise AssertionError(texts)

    assert Dense(embed=unused).search("query", 5) == []
    full = Dense(["a"], embed=embed_words)
    full = full.at(replace(full.view, settings=replace(full.view.settings, embedder=unused)))
    assert full.search("query", 0) == []


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"metric": "dot"}, r"metric must be one of .*'l2'\], but got 'dot'"),
        ({"index": "ivf"}, r"index must be one of .*'ivfpq'\], but got 'ivf'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"embed": object()}, "embed must have embed_documents"),
    ],
)
def test_a_bad_option_is_named_with_its_rule(options: dict[str, Any], rule: str) -> None:
    """Errors state the rule and the value; no metric is quietly taken for another."""
    with pytest.raises(InvalidInputError, match=rule):
        Dense(**{"embed": embed_words, **options})


def same_as_plain(embed: Any) -> None:
    """What a framework's embedding finds is what its vectors give by hand."""
    texts = ["cat", "dog sun", "sun", "chat"]
    dense = Dense(texts, embed=embed, metric="inner_product", batch_size=3)
    by_hand = Dense(texts, embed=embed_tiny, metric="inner_product")
    expected = by_hand.search("dog", 4)
    found = dense.search("dog", 4)
    assert [c.key for c in found] == [c.key for c in expected]
    assert [c.score for c in found] == pytest.approx([c.score for c in expected], abs=1e-5)


TINY = {"cat": [3, 0, 0], "dog": [0, 4, 0], "sun": [0, 0, 5], "chat": [1, 0, 1]}


def embed_tiny(texts: list[str]) -> NDArray[Any]:
    """The mean of the words' vectors."""
    return np.asarray([np.mean([TINY[w] for w in text.split()], axis=0) for text in texts])


def test_a_langchain_embeddings_is_taken_as_it_is() -> None:
    """Its two methods embed passages and queries."""
    embeddings = pytest.importorskip("langchain_core.embeddings")

    class Tiny(embeddings.Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embed_tiny(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return embed_tiny([text])[0].tolist()

    same_as_plain(Tiny())


def test_a_llama_index_embedding_is_taken_as_it_is() -> None:
    """Its batch and query methods embed passages and queries."""
    base = pytest.importorskip("llama_index.core.base.embeddings.base")

    class Tiny(base.BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return embed_tiny([text])[0].tolist()

        _get_query_embedding = _get_text_embedding

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

    same_as_plain(Tiny())


def test_a_sentence_transformers_model_is_taken_as_it_is(tmp_path: Any) -> None:
    """Its encode methods embed passages and queries, each with the prompt the model wants."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    folder = write_encoder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    table = StaticEncoder(folder)._load()[1]
    model = sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu"
    )
    model.prompts = {"query": "dog ", "document": ""}
    dense = Dense(["cat", "dog"], embed=model)
    scores = {c.text: c.score for c in dense.search("cat", 2)}
    assert scores == {"cat": pytest.approx(0.6, abs=1e-5), "dog": pytest.approx(0.8, abs=1e-5)}


def test_the_query_is_embedded_by_the_query_side() -> None:
    """A model that embeds questions otherwise than passages is asked for the right one."""

    class TwoSided:
        def encode_document(self, texts: list[str]) -> Any:
            return np.tile([1.0, 0.0], (len(texts), 1))

        def encode_query(self, texts: list[str]) -> Any:
            return np.tile([3.0, 4.0], (len(texts), 1))

        encode = encode_query

    assert Dense(["a"], embed=TwoSided()).search("a", 1)[0].score == pytest.approx(0.6)


def test_searches_run_beside_additions_and_removals() -> None:
    """Every search finds the fixed passages, and all of an addition or none of it."""
    dense = Dense(["fixed bee", "fixed flower"], embed=embed_words)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            dense.remove(dense.add(["passing bee", "passing flower"]))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: dense.search("fixed bee flower", 10), range(300)))
    finally:
        stop.set()
        writer.join()
    for found in results:
        assert {0, 1} <= {c.key for c in found}
        assert len(found) in (2, 4)
    assert len(dense) == 2


@pytest.mark.parametrize("order", ["torch, faiss", "faiss, torch"])
def test_faiss_and_torch_live_in_one_process(order: str) -> None:
    """Either may be loaded first, and both compute on several threads, without a crash."""
    code = f"""
import {order}
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from rerank_plugins.first_stage import Dense
torch.set_num_threads(2); faiss.omp_set_num_threads(2)
rows = np.random.default_rng(0).normal(size=(500, {DIMENSION}))
dense = Dense(map(str, range(500)), embed=lambda t: rows[[int(x) for x in t]], index="hnsw")
def work(i):
    assert torch.isfinite(torch.randn(200, 200) @ torch.randn(200, 200)).all()
    return dense.search(str(i), 1)[0].key == i
with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(work, range(50)))
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr
