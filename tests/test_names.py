"""Option names from other libraries, and misspelled ones, lead to ours."""

from __future__ import annotations

import pytest

from rerank_plugins import load_reranker
from rerank_plugins._names import check_options, nearest, own_options
from rerank_plugins.errors import InvalidInputError

KNOWN = ("model", "device", "precision", "top_n", "analyzer", "language", "first_stage", "scale")


@pytest.mark.parametrize(
    ("brought", "ours"),
    [
        ("model_name", "model"),
        ("model_name_or_path", "model"),
        ("name_or_path", "model"),
        ("top_k", "top_n"),
        ("k", "top_n"),
        ("similarity_top_k", "top_n"),
        ("preprocess_func", "analyzer"),
        ("stemmer", "language"),
        ("tokenizer", "analyzer"),
        ("base_retriever", "first_stage"),
        ("use_fp16", "precision"),
        ("precison", "precision"),
        ("devise", "device"),
    ],
)
def test_the_likeliest_name_comes_first(brought, ours):
    """Both where it is suggested and in the list of all options."""
    assert nearest(brought, KNOWN)[0] == ours
    with pytest.raises(InvalidInputError) as error:
        check_options("Thing", [brought], KNOWN)
    assert str(error.value).startswith(f"Thing has no option '{brought}' (did you mean '{ours}'")
    assert f"Its options: {ours}, " in str(error.value)


def test_model_leads_the_list_when_nothing_is_near():
    """It is what people look for most."""
    with pytest.raises(InvalidInputError, match=r"has no option 'xyzzy'\. Its options: model, "):
        check_options("Thing", ["xyzzy"], KNOWN)


def test_every_unknown_name_is_told_at_once():
    """One error for all of them, in order."""
    with pytest.raises(InvalidInputError, match=r"'precison' .*, 'xyzzy'"):
        check_options("Thing", ["xyzzy", "precison", "model"], KNOWN)


def test_known_names_pass():
    """No option at all is fine as well."""
    check_options("Thing", [], KNOWN)
    check_options("Thing", KNOWN, KNOWN)


def test_own_options_are_those_that_can_be_named():
    """Neither ``self`` nor what collects the rest."""

    class Thing:
        def __init__(self, one, *, two=2, **rest):
            pass

    assert own_options(Thing) == ["one", "two"]
    assert own_options(lambda a, *b, c=1: None) == ["a", "c"]


def test_load_reranker_takes_model_by_name_and_leads_others_to_it():
    """``model`` is the word everywhere."""
    assert load_reranker(model="bundled").model == load_reranker("bundled").model
    with pytest.raises(InvalidInputError, match=r"'model_name' .did you mean 'model'"):
        load_reranker(model_name="bundled")


def test_repr_says_model_engine_and_top_n():
    """Of the reranker and of both adapters, before anything is loaded."""
    from rerank_plugins import Reranker
    from rerank_plugins.testing import OverlapScorer

    reranker = load_reranker(top_n=3, engine="torch")
    said = "model='bundled', engine='torch', top_n=3"
    assert repr(reranker) == f"Reranker({said})"
    assert repr(Reranker(OverlapScorer())) == (
        "Reranker(model='overlap', engine='OverlapScorer', top_n=None)"
    )
    langchain = pytest.importorskip("rerank_plugins.langchain")
    assert repr(langchain.CrossEncoderCompressor(reranker=reranker)) == (
        f"CrossEncoderCompressor({said})"
    )
    llama_index = pytest.importorskip("rerank_plugins.llama_index")
    assert repr(llama_index.CrossEncoderPostprocessor(engine="torch", top_n=3)) == (
        f"CrossEncoderPostprocessor({said})"
    )


async def test_documents_is_another_name_for_passages():
    """Other rerankers call them so; both at once, or neither, is an error."""
    from rerank_plugins import Reranker
    from rerank_plugins.testing import OverlapScorer

    reranker, texts = Reranker(OverlapScorer()), ["a bus", "a museum"]
    assert reranker.rerank("museum", documents=texts).keys == [1, 0]
    assert (await reranker.arerank("museum", documents=texts)).keys == [1, 0]
    with pytest.raises(InvalidInputError, match="either passages or documents"):
        reranker.rerank("museum", texts, documents=texts)
    with pytest.raises(InvalidInputError, match="passages must be a list"):
        reranker.rerank("museum")
