"""Analyzers over other libraries than they were tried with, and indexes over other analyzers."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rerank_plugins.errors import IndexMismatchError, MissingDependencyError
from rerank_plugins.first_stage import BM25, _index_terms, analyzer_for, bm25
from rerank_plugins.first_stage.analysis import LANGUAGES, snowball

WORDS = ["książka", "generalnie", "dances", "énergies", "zostali", "Krakowa"]


@pytest.fixture
def without_polish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyStemmer of before 3.1."""
    import Stemmer

    old = ModuleType("Stemmer")
    old.algorithms = lambda: [name for name in Stemmer.algorithms() if name != "polish"]
    old.Stemmer = Stemmer.Stemmer
    old.version = lambda: "2.2.0"
    monkeypatch.setitem(sys.modules, "Stemmer", old)
    snowball._OF_THREAD.__dict__.clear()


def test_polish_comes_from_snowballs_python_version_too(without_polish: None) -> None:
    """An older PyStemmer has none; the stems are the same."""
    import Stemmer  # the fixture's

    assert "polish" not in Stemmer.algorithms()
    words = ["książkami", "zamkiem", "niebieskiego", "ludziom", "został", "warszawie", "ów", "y"]
    theirs = [snowball.stem(word, "pl") for word in words]
    snowball._OF_THREAD.__dict__.clear()
    try:
        ours = Stemmer.Stemmer("polish", 0)
    except KeyError:
        pytest.skip("the installed PyStemmer has no Polish to compare with")
    assert theirs == ours.stemWords(words)


def test_no_polish_stemmer_is_a_named_error_for_polish_alone(
    without_polish: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other languages work; the error says what to install."""
    monkeypatch.setitem(sys.modules, "snowballstemmer.polish_stemmer", None)
    assert snowball.stem("dances", "en") == "danc"
    with pytest.raises(MissingDependencyError, match=r"PyStemmer 2\.2\.0 has no polish.*3\.1"):
        snowball.stem("domami", "pl")
    snowball._OF_THREAD.__dict__.clear()


@pytest.mark.parametrize("name", [*LANGUAGES, "auto-fr"])
def test_an_analyzer_pickles_and_copies(name: str) -> None:
    """As its name: the copy is the analyzer that all share, and gives the same terms."""
    analyzer = analyzer_for(name)
    before = analyzer("Les abeilles w ogrodzie في المدينة")
    for other in (pickle.loads(pickle.dumps(analyzer)), copy.deepcopy(analyzer)):
        assert other is analyzer
        assert other("Les abeilles w ogrodzie في المدينة") == before


def passages() -> list[str]:
    """More than are tried where nothing has changed."""
    return [f"passage number {n} about dancing bees and gardens" for n in range(400)]


def change_stem(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """As if a newer stemmer gave one word another stem."""
    real = snowball.stem
    monkeypatch.setattr(
        snowball, "stem", lambda w, language: "other" if w == word else real(w, language)
    )
    analyzer_for("en")._memo.clear()


def test_a_stem_that_changed_is_noticed_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other versions of the libraries far more than the first passages are tried."""
    texts = [*passages(), "the last one has a rarity in it", *passages()]
    with monkeypatch.context() as then:
        then.setattr(bm25, "library_versions", lambda: {"PyStemmer": "2.9.9"})
        BM25(texts, language="en").save(tmp_path / "index")
    assert len(BM25.load(tmp_path / "index")) == len(texts)  # another version, the same terms
    change_stem(monkeypatch, "rarity")
    with pytest.raises(IndexMismatchError, match=r"passage 400, 'other'.*PyStemmer 2.9.9, now"):
        BM25.load(tmp_path / "index")
    monkeypatch.undo()
    analyzer_for("en")._memo.clear()
    BM25.load(tmp_path / "index")


def test_a_common_stem_that_changed_is_noticed_under_the_same_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample of the passages is tried at every load."""
    BM25(["", "one", *passages()], language="en").save(tmp_path / "index")
    change_stem(monkeypatch, "gardens")
    with pytest.raises(IndexMismatchError, match="gives others"):
        BM25.load(tmp_path / "index")
    monkeypatch.undo()
    analyzer_for("en")._memo.clear()


def test_the_versions_that_terms_depend_on_are_stored(tmp_path: Path) -> None:
    """Those of both stemmers, of regex and of Python's Unicode data."""
    BM25(["text"], language="en").save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text("utf-8"))
    assert manifest["settings"]["libraries"] == _index_terms.library_versions()
    assert {
        "unicode",
        "PyStemmer",
        "snowballstemmer",
        "regex",
    } <= _index_terms.library_versions().keys()


def test_an_index_of_an_older_analyzer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the analyzer's name and both versions."""
    with monkeypatch.context() as then:
        then.setattr(analyzer_for("en"), "version", 1)
        BM25(["text"], language="en").save(tmp_path / "index")
    with pytest.raises(IndexMismatchError, match="'en', version 1, but this one is 'en', v"):
        BM25.load(tmp_path / "index")
