"""Mistakes that people make, and what the messages say of them: rule, value, what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rerank_plugins import ContextBuilder, Reranker, load_reranker
from rerank_plugins.errors import InvalidInputError, RerankPluginsError, UnknownModelError
from rerank_plugins.first_stage import BM25, Dense, Hybrid
from rerank_plugins.models.loading import as_reranker
from rerank_plugins.testing import OverlapScorer

RERANKER = Reranker(OverlapScorer())


class Document:
    """As LangChain's."""

    page_content = "The museum."


class TextNode:
    """As LlamaIndex'."""

    def get_content(self) -> str:
        """Its text."""
        return "The museum."


NAMED = {"hours": "The museum opens at nine.", "place": "It is near the station."}


@pytest.mark.parametrize(
    "call",
    [
        lambda: RERANKER.rerank("museum", NAMED),
        lambda: RERANKER.rerank_many(["museum"], [NAMED]),
        lambda: BM25(NAMED),
        lambda: Dense(NAMED, embed=lambda texts: np.ones((len(texts), 2))),
        lambda: BM25([]).add(NAMED),
        lambda: Hybrid([BM25(["a"])], weights={"words": 1.0}),
        lambda: ContextBuilder().build(NAMED),
    ],
)
def test_a_dict_in_place_of_a_list_is_refused(call: Callable[[], object]) -> None:
    """Its keys are names more often than texts, and would be searched and scored in silence."""
    with pytest.raises(InvalidInputError, match=r"must be a list, but got a dict.*values\(\)"):
        call()
    assert RERANKER.rerank("museum opens", NAMED.values())[0].candidate.key == 0


def test_a_table_in_place_of_a_list_is_refused() -> None:
    """Iterating over a pandas DataFrame gives the names of its columns."""

    class DataFrame:
        columns = ("text",)

        def __iter__(self) -> Iterator[str]:
            return iter(self.columns)

    with pytest.raises(InvalidInputError, match="got a DataFrame: pass one of its columns"):
        RERANKER.rerank("museum", DataFrame())


def test_a_ranking_in_place_of_passages_says_what_can_be_ranked_again() -> None:
    """Two rerankers in a row are what `Cascade` is for, but they can be called by hand."""
    ranking = RERANKER.rerank("museum opens", NAMED.values())
    with pytest.raises(InvalidInputError, match="number 0 is Ranked: pass its candidate"):
        RERANKER.rerank("museum", ranking)
    again = RERANKER.rerank("near", [item.candidate for item in ranking])
    assert again.keys[0] == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BM25(["a"], analyzer="en"), r"analyzer must be a function.*'en'.*language="),
        (lambda: Dense(["a"], embed="some/model"), "embed must have.*but is str"),
    ],
)
def test_a_name_in_place_of_an_object(call: Callable[[], object], said: str) -> None:
    """Never an error from within."""
    with pytest.raises(InvalidInputError, match=said):
        call()


@pytest.mark.parametrize("call", [Reranker, as_reranker])
def test_a_class_in_place_of_its_object(call: Callable[[object], object]) -> None:
    """It has the methods, so it looks like one until it is called."""
    with pytest.raises(InvalidInputError, match="but got the class OverlapScorer"):
        call(OverlapScorer)


@pytest.mark.parametrize("call", [lambda x: RERANKER.rerank("museum", [x]), lambda x: BM25([x])])
def test_a_framework_s_object_in_place_of_a_text_names_what_takes_it(
    call: Callable[[object], object],
) -> None:
    """The adapters take documents and nodes; the core takes texts."""
    with pytest.raises(InvalidInputError, match=r"number 0 is Document.*page_content.*langchain"):
        call(Document())
    with pytest.raises(InvalidInputError, match=r"number 0 is TextNode.*get_content.*llama_index"):
        call(TextNode())
    with pytest.raises(InvalidInputError, match=r"number 0 is int$"):
        call(5)


def test_the_address_of_a_server_is_no_model() -> None:
    """And the message names what takes one; an address on the Hub leads to the name there."""
    with pytest.raises(UnknownModelError, match=r"RemoteScorer\(url\)"):
        load_reranker("http://localhost:8080")
    with pytest.raises(UnknownModelError, match="Did you mean: BAAI/bge-reranker-large"):
        load_reranker("https://huggingface.co/BAAI/bge-reranker-large")


@pytest.mark.parametrize("value", ["text", {"a": "b"}, 5, None, object()])
def test_whatever_stands_in_place_of_passages_is_one_named_error(value: object) -> None:
    """Never a TypeError from within."""
    with pytest.raises(RerankPluginsError, match="passages"):
        RERANKER.rerank("museum", value)
