"""A conformance class for compressors that rerank; LangChain's test suite lacks one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document


class RunCounter(BaseCallbackHandler):
    """Counts the runs that start and end."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0

    def on_chain_start(self, *_args: Any, **_more: Any) -> None:
        """A run starts."""
        self.started += 1

    def on_chain_end(self, *_args: Any, **_more: Any) -> None:
        """A run ends."""
        self.ended += 1


class CompressorConformance:
    """What a reranking compressor must keep to; subclass it and write the two methods.

    Written for pytest with pytest-asyncio in auto mode::

        class TestMyCompressor(CompressorConformance):
            def compressor(self, top_n=None):
                return MyCompressor(top_n=top_n)

            def compressor_with_wrong_count(self):
                return MyCompressor(model=OneScoreTooFew())
    """

    query = "When does the museum open?"

    def compressor(self, top_n: int | None = None) -> BaseDocumentCompressor:
        """A compressor that keeps ``top_n`` documents, or all."""
        raise NotImplementedError

    def compressor_with_wrong_count(self) -> BaseDocumentCompressor:
        """A compressor whose model answers with more or fewer scores than it was asked for."""
        raise NotImplementedError

    def documents(self) -> list[Document]:
        """Distinct documents, fresh at each call, with ids and metadata."""
        texts = (
            "A bridge crosses the river.",
            "The museum does not open on Mondays.",
            "يفتح المتحف أبوابه في التاسعة.",
            "The museum opens at nine; when the bell rings, the doors open.",
            "",
            "   ",
            "The 🏛 opens at nine. \u202e\x00",
        )
        return [
            Document(
                id=f"id-{number}",
                page_content=text,
                metadata={"number": number, "empty": None, "nested": {"list": [1, 2]}},
            )
            for number, text in enumerate(texts)
        ]

    def test_empty_input_gives_nothing(self) -> None:
        """No documents are valid input."""
        assert list(self.compressor().compress_documents([], self.query)) == []

    def test_inputs_are_not_changed(self) -> None:
        """Neither by compressing nor by writing to what comes back."""
        documents = self.documents()
        for document in self.compressor().compress_documents(documents, self.query):
            assert all(document is not given for given in documents)
            document.metadata["added"] = True
        assert documents == self.documents()

    def test_ids_text_and_metadata_are_kept(self) -> None:
        """What comes back is what went in, and more metadata."""
        given = {document.id: document for document in self.documents()}
        for document in self.compressor().compress_documents(self.documents(), self.query):
            origin = given.get(document.id, Document(page_content="no such id"))
            assert document.page_content == origin.page_content
            assert {name: document.metadata[name] for name in origin.metadata} == origin.metadata

    def test_no_document_is_invented_or_doubled(self) -> None:
        """The output is a permutation of the input."""
        ids = _ids(self.compressor().compress_documents(self.documents(), self.query))
        assert sorted(map(str, ids)) == sorted(str(one.id) for one in self.documents())

    def test_scores_are_finite_native_floats_in_descending_order(self) -> None:
        """Every document has a ``relevance_score``, best first; they are not all the same."""
        scores = [
            document.metadata["relevance_score"]
            for document in self.compressor().compress_documents(self.documents(), self.query)
        ]
        assert all(type(score) is float and math.isfinite(score) for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) > 1

    def test_an_older_relevance_score_is_replaced(self) -> None:
        """A score that an earlier stage wrote neither stays nor decides the order."""
        fresh = self.compressor().compress_documents(self.documents(), self.query)
        marked = self.documents()
        for number, document in enumerate(marked):
            document.metadata["relevance_score"] = float(number)
        again = self.compressor().compress_documents(marked, self.query)
        assert _scores(again) == _scores(fresh)

    def test_top_n_is_a_prefix_of_the_whole_ranking(self) -> None:
        """Zero keeps none, more than there are keeps all."""
        everything = _scores(self.compressor().compress_documents(self.documents(), self.query))
        for top_n in (0, 1, 3, len(everything), 100):
            some = self.compressor(top_n).compress_documents(self.documents(), self.query)
            assert _scores(some) == everything[:top_n]

    async def test_async_gives_the_same(self) -> None:
        """``acompress_documents`` equals ``compress_documents``."""
        compressor = self.compressor()
        found = await compressor.acompress_documents(self.documents(), self.query)
        assert list(found) == list(compressor.compress_documents(self.documents(), self.query))

    def test_metadata_can_be_serialized(self) -> None:
        """What is added is of plain Python types, and goes through JSON unchanged."""
        for document in self.compressor().compress_documents(self.documents(), self.query):
            added = document.metadata.keys() - self.documents()[0].metadata.keys()
            assert {type(document.metadata[name]) for name in added} <= {str, int, float, bool}
            assert json.loads(json.dumps(document.metadata)) == document.metadata

    def test_a_wrong_number_of_scores_is_an_error(self) -> None:
        """Documents are not dropped in silence when the model miscounts."""
        with pytest.raises(Exception, match=r"\d"):
            self.compressor_with_wrong_count().compress_documents(self.documents(), self.query)

    def test_callbacks_see_the_step(self) -> None:
        """A handler that is passed in sees a run start and end."""
        counter = RunCounter()
        self.compressor().compress_documents(self.documents(), self.query, callbacks=[counter])
        assert counter.started == counter.ended > 0

    async def test_callbacks_see_the_async_step(self) -> None:
        """The same in the event loop."""
        counter = RunCounter()
        await self.compressor().acompress_documents(
            self.documents(), self.query, callbacks=[counter]
        )
        assert counter.started == counter.ended > 0


def _ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


def _scores(documents: Sequence[Document]) -> list[tuple[str | None, float]]:
    return [(document.id, document.metadata["relevance_score"]) for document in documents]
