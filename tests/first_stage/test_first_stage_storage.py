"""First stages saved and loaded: the same index, checked encoders and analyzers, no pickle."""

from __future__ import annotations

import json
import pickle
import pickletools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from first_stage_tools import DIMENSION, embed_words

from rerank_plugins.errors import IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import BM25, Dense, Hybrid, _dense_segments, storage
from rerank_plugins.first_stage.conformance import PASSAGES, QUERY, StoredStageConformance


@pytest.mark.parametrize("engine", ["rank-bm25", "bm25s"])
class TestBM25(StoredStageConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, engine: str) -> None:
        self.engine = engine

    def make(self, texts: Iterable[str]) -> BM25:
        """BM25 with the engine of the round."""
        return BM25(texts, engine=self.engine, language="en")

    def load(self, path: Path) -> BM25:
        """The language's analyzer comes back by itself."""
        return BM25.load(path)


@pytest.mark.parametrize("index", ["auto", "exact", "hnsw", "ivfpq"])
class TestDense(StoredStageConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, index: str) -> None:
        self.index = index

    def make(self, texts: Iterable[str]) -> Dense:
        """Dense with the index of the round; IVF-PQ is exact still with so few."""
        return Dense(texts, embed=embed_words, index=self.index)

    def load(self, path: Path) -> Dense:
        """Encoders are given again."""
        return Dense.load(path, embed=embed_words)


class TestHybrid(StoredStageConformance):
    def make(self, texts: Iterable[str]) -> Hybrid:
        """Words and vectors, and a hybrid inside the hybrid."""
        listed = list(texts)
        words, vectors = (
            BM25(listed, engine="bm25s", language="en"),
            Dense(listed, embed=embed_words),
        )
        inner = Hybrid([BM25(listed, language="en", k1=1.2)], fusion="ranks")
        return Hybrid([inner, words, vectors], weights=[0.2, 0.5, 0.3], candidates=30)

    def load(self, path: Path) -> Hybrid:
        """Encoders are given again."""
        return Hybrid.load(path, embed=embed_words)


def test_settings_come_back(tmp_path: Path) -> None:
    """What was chosen when building holds after a reload."""
    BM25(PASSAGES, engine="bm25s", k1=0.9, b=0.4, language="pl").save(tmp_path / "words")
    words = BM25.load(tmp_path / "words")
    assert (words.engine, words.k1, words.b, words.analyzer.name) == ("bm25s", 0.9, 0.4, "pl")
    Dense(PASSAGES, embed=embed_words, metric="l2", index="hnsw").save(tmp_path / "vectors")
    vectors = Dense.load(tmp_path / "vectors", embed=embed_words)
    assert (vectors.metric, vectors.index, vectors.index_kind) == ("l2", "hnsw", "hnsw")
    hybrid = Hybrid([words, vectors], weights=[1, 3], fusion="ranks", rank_constant=7, candidates=9)
    hybrid.save(tmp_path / "both")
    both = Hybrid.load(tmp_path / "both", embed=embed_words)
    assert (both.weights, both.fusion, both.rank_constant, both.candidates) == (
        (1, 3),
        "ranks",
        7,
        9,
    )


def test_large_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    """BM25's postings are memory maps, and faiss maps its file."""
    BM25(PASSAGES).save(tmp_path / "words")
    (postings,) = BM25.load(tmp_path / "words").view.segments
    assert all(isinstance(a, np.memmap) for a in (postings.rows, postings.codes, postings.bounds))
    Dense(PASSAGES, embed=embed_words).save(tmp_path / "vectors")
    vectors = Dense.load(tmp_path / "vectors", embed=embed_words)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "vectors") in maps.read_text()
    assert len(vectors) == len(PASSAGES)


@pytest.mark.parametrize("stage", ["rank-bm25", "bm25s", "exact", "hnsw", "ivfpq"])
def test_no_file_holds_a_pickle(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is pickled when saving or loading, and no file starts a pickle's opcodes."""
    monkeypatch.setattr(_dense_segments, "COMPRESSED_FROM", 300)
    texts = [f"{text} {number}" for number in range(40) for text in PASSAGES]
    if "bm25" in stage:
        built: BM25 | Dense = BM25(texts, engine=stage)
    else:
        built = Dense(texts, embed=embed_words, index=stage)
        assert built.index_kind == stage

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickled")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    built.save(tmp_path / "index")
    loaded = (
        BM25.load(tmp_path / "index")
        if "bm25" in stage
        else Dense.load(tmp_path / "index", embed=embed_words)
    )
    assert loaded.search(QUERY, 5) == built.search(QUERY, 5)
    files = [path for path in (tmp_path / "index").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert not holds_a_pickle(path.read_bytes()), path


def holds_a_pickle(content: bytes) -> bool:
    """Whether the bytes, or what follows a .npy header, are a pickle; or a zip of such."""
    assert not content.startswith(b"PK")
    starts = [0]
    if content.startswith(b"\x93NUMPY"):
        assert b"'|O'" not in content[:200]
        starts.append(content.index(b"\n") + 1)
    for start in starts:
        try:
            operations = list(pickletools.genops(content[start:]))
        except Exception:
            continue
        if operations and operations[-1][0].name == "STOP" and len(operations) > 1:
            return True
    return False


def test_the_pickle_check_knows_a_pickle() -> None:
    """Pickles of every protocol, and arrays of objects, are found."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert holds_a_pickle(pickle.dumps({"a": [1, "b"]}, protocol=protocol))
    assert not holds_a_pickle(b'{"a": 1}\n')


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    """Numpy would pickle it; saving it is an error, and so is loading one."""
    with pytest.raises(ValueError, match="Object arrays"):
        storage.save(
            tmp_path / "index", "trial", lambda out: out.array("a.npy", np.asarray([{}, None]))
        )
    assert list((tmp_path / "index").glob("data-*")) == []


class Shouting:
    """An analyzer of one's own."""

    def __init__(self, change: Callable[[str], str] = str.upper) -> None:
        self.change = change

    def __call__(self, text: str) -> list[str]:
        """The text's words, changed."""
        return self.change(text).split()


def test_an_analyzer_of_ones_own_is_given_again(tmp_path: Path) -> None:
    """Without it, or with another, loading is an error that says so."""
    stage = BM25(PASSAGES, analyzer=Shouting())
    stage.save(tmp_path / "index")
    loaded = BM25.load(tmp_path / "index", analyzer=Shouting())
    assert loaded.search(QUERY, 9) == stage.search(QUERY, 9)
    with pytest.raises(IndexMismatchError, match="give it again as analyzer="):
        BM25.load(tmp_path / "index")
    with pytest.raises(IndexMismatchError, match="gives others for the same texts"):
        BM25.load(tmp_path / "index", analyzer=Shouting(str.lower))


def test_another_languages_analyzer_is_refused(tmp_path: Path) -> None:
    """Also another version of the same analyzer, and one whose terms have changed."""
    from rerank_plugins.first_stage import Analyzer, analyzer_for

    BM25(PASSAGES, language="en").save(tmp_path / "index")
    BM25.load(tmp_path / "index", analyzer=analyzer_for("en"))
    with pytest.raises(IndexMismatchError, match="analyzer 'en', version 3, but this one is 'fr'"):
        BM25.load(tmp_path / "index", analyzer=analyzer_for("fr"))

    class Changed(Analyzer):
        def __call__(self, text: str) -> list[str]:
            return text.split()

        query = __call__

    changed = Changed("en")
    with pytest.raises(IndexMismatchError, match="gives others"):
        BM25.load(tmp_path / "index", analyzer=changed)
    changed.version = 1
    with pytest.raises(IndexMismatchError, match="'en', version 1: build"):
        BM25.load(tmp_path / "index", analyzer=changed)


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_another_encoder_is_refused(tmp_path: Path, index: str) -> None:
    """By the length of its vectors, or by another vector for the same passage."""
    Dense(["", *PASSAGES], embed=embed_words, index=index).save(tmp_path / "index")
    near = lambda texts: embed_words(texts) * 1.001 + 1e-3  # noqa: E731  (another precision)
    assert len(Dense.load(tmp_path / "index", embed=near)) == len(PASSAGES) + 1
    with pytest.raises(IndexMismatchError, match=f"{DIMENSION} numbers, but this encoder gives 7"):
        Dense.load(tmp_path / "index", embed=lambda texts: np.ones((len(texts), 7)))
    with pytest.raises(IndexMismatchError, match="another one for the same passage"):
        Dense.load(tmp_path / "index", embed=lambda texts: np.roll(embed_words(texts), 1, axis=1))


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The kinds are named."""
    BM25(PASSAGES).save(tmp_path / "index")
    with pytest.raises(IndexMismatchError, match="must be of the kind Dense, but is of 'BM25'"):
        Dense.load(tmp_path / "index", embed=embed_words)


def test_a_hybrid_of_foreign_stages_is_not_saved(tmp_path: Path) -> None:
    """A stage that we cannot load is refused before anything is replaced."""

    class Foreign(BM25):
        pass

    Hybrid([BM25(PASSAGES)]).save(tmp_path / "index")
    with pytest.raises(InvalidInputError, match="but one is Foreign"):
        Hybrid([Foreign(PASSAGES)]).save(tmp_path / "index")
    assert len(Hybrid.load(tmp_path / "index")) == len(PASSAGES)


def test_a_failed_embedding_changes_no_stage_of_a_hybrid() -> None:
    """Stages stay of one length, and take the texts later."""
    broken = [False]

    def embed(texts: list[str]) -> Any:
        if broken[0]:
            raise ConnectionError("the embedding service is gone")
        return embed_words(texts)

    hybrid = Hybrid([BM25(PASSAGES), Dense(PASSAGES, embed=embed)])
    broken[0] = True
    with pytest.raises(ConnectionError):
        hybrid.add(["more bees"])
    broken[0] = False
    assert hybrid.add(["more bees"]) == [len(PASSAGES)]
    assert len(hybrid) == len(PASSAGES) + 1


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_an_index_grows_from_kind_to_kind(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Auto starts exact, becomes a graph, then codes; removed keys stay away, also once stored."""
    monkeypatch.setattr(_dense_segments, "EXACT_UP_TO", 50)
    monkeypatch.setattr(_dense_segments, "GRAPH_UP_TO", 290)
    monkeypatch.setattr(_dense_segments, "GRAPH_FROM", 60)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(400, 8))
    texts = list(map(str, range(400)))

    def embed(asked: list[str]) -> Any:
        return rows[[int(text) for text in asked]]

    dense = Dense(embed=embed, metric=metric)
    kinds, removed = [], []
    for start, stop in ((0, 40), (40, 50), (50, 200), (200, 300), (300, 400)):
        assert dense.add(texts[start:stop]) == list(range(start, stop))
        dense.remove([start, stop - 1])
        removed += [start, stop - 1]
        kinds.append(dense.index_kind)
        dense.save(tmp_path / "index")
        dense = Dense.load(tmp_path / "index", embed=embed)
        assert dense.index_kind == kinds[-1]
        found = dense.search("7", stop)
        assert {one.key for one in found} == set(range(stop)) - set(removed)
        if metric != "inner_product":
            assert found[0].key == 7
        mask = np.arange(stop) % 3 == 0
        masked = dense.search("7", 10, mask=mask)
        assert len(masked) == 10
        assert all(mask[one.key] and one.key not in removed for one in masked)
    assert kinds == ["exact", "exact", "hnsw", "ivfpq", "ivfpq"]


def test_codes_find_most_of_what_the_exact_index_does() -> None:
    """Of the true ten among 10,240 clustered vectors 7 are in the ten, 9 in the hundred found."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(256, 16))
    rows = centres[generator.integers(0, 256, 10_240)] + 0.5 * generator.normal(size=(10_240, 16))
    texts = list(map(str, range(len(rows))))

    def embed(asked: list[str]) -> Any:
        return rows[[int(text) for text in asked]]

    exact, codes = (Dense(texts, embed=embed, index=kind) for kind in ("exact", "ivfpq"))
    assert codes.index_kind == "ivfpq"
    near = deep = 0
    for query in rows[:50] + 0.2 * generator.normal(size=(50, 16)):
        best = {one.key for one in exact.search_by_vector(query, 10)}
        found = [one.key for one in codes.search_by_vector(query, 100)]
        near += len(best & set(found[:10]))
        deep += len(best & set(found))
    assert near >= 350
    assert deep >= 450


@pytest.mark.parametrize(
    "value", [("a", "tuple"), {1: "a key"}, {"a": {"b": {1, 2}}}, np.float32(1), b"bytes", object()]
)
def test_what_json_would_change_is_refused(tmp_path: Path, value: Any) -> None:
    """A tuple would come back a list, a key a text: an error names the position instead."""
    with pytest.raises(InvalidInputError, match="number 1 is not"):
        storage.save(tmp_path / "i", "trial", lambda out: out.lines("x.jsonl", ["fine", [value]]))


def test_the_manifest_says_what_made_the_index(tmp_path: Path) -> None:
    """Format, kind, settings and versions are there to read."""
    BM25(PASSAGES, language="ar").save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format"] == storage.FORMAT
    assert manifest["kind"] == "BM25"
    assert manifest["settings"]["analyzer"] == "ar"
    assert {"python", "numpy", "faiss-cpu", "PyStemmer", "regex"} <= manifest["versions"].keys()
    folder = tmp_path / "index" / manifest["folder"]
    assert manifest["files"].keys() == {path.name for path in folder.iterdir()}
