"""The conformance class itself: it must catch what it is there to catch."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.runnables import RunnableLambda

from rerank_plugins.testing.compressors import CompressorConformance


class Simple(BaseDocumentCompressor):
    """A small compressor that keeps every rule; the others break one each."""

    top_n: int | None = None

    def compress_documents(self, documents, query, callbacks=None):
        """Scores by length."""
        step = RunnableLambda(lambda given: self.reranked(list(given)), name="rerank")
        return step.invoke(documents, {"callbacks": callbacks})

    def reranked(self, documents):
        """Copies with a score, longest first."""
        kept = sorted(map(self.copied, documents), key=self.score, reverse=True)
        return kept if self.top_n is None else kept[: self.top_n]

    def copied(self, document):
        """With its length as the score."""
        scored = {**document.metadata, "relevance_score": float(len(document.page_content))}
        return document.model_copy(update={"metadata": scored})

    def score(self, document):
        """As stamped."""
        return document.metadata["relevance_score"]


class Mutates(Simple):
    def copied(self, document):
        """Writes into the caller's document."""
        document.metadata["relevance_score"] = float(len(document.page_content))
        return document


class LosesIds(Simple):
    def copied(self, document):
        """Forgets the id."""
        return super().copied(document).model_copy(update={"id": None})


class GivesNumpy(Simple):
    def copied(self, document):
        """Leaves numpy scalars in the metadata."""
        copy = super().copied(document)
        copy.metadata["relevance_score"] = np.float64(copy.metadata["relevance_score"])
        return copy


class TrustsOldScores(Simple):
    def copied(self, document):
        """Keeps a score that is there."""
        copy = super().copied(document)
        old = document.metadata.get("relevance_score")
        return copy if old is None else copy.model_copy(update={"metadata": document.metadata})


class TakesZeroForAll(Simple):
    def reranked(self, documents):
        """Compares top_n by truth."""
        kept = sorted(map(self.copied, documents), key=self.score, reverse=True)
        return kept[: self.top_n] if self.top_n else kept


class WorstFirst(Simple):
    def reranked(self, documents):
        """Sorts upwards."""
        return super().reranked(documents)[::-1]


class ConstantScores(Simple):
    def copied(self, document):
        """Finds all the same."""
        copy = super().copied(document)
        copy.metadata["relevance_score"] = 0.5
        return copy


class DropsOne(Simple):
    def reranked(self, documents):
        """Loses the last."""
        return super().reranked(documents)[:-1]


class IgnoresCallbacks(Simple):
    def compress_documents(self, documents, query, callbacks=None):
        """Cannot be seen in traces."""
        return self.reranked(list(documents))


class DiffersInTheLoop(Simple):
    async def acompress_documents(self, documents, query, callbacks=None):
        """Another order."""
        return self.compress_documents(documents, query, callbacks)[::-1]


async def _failures(kind):
    """Names of the tests that the compressor fails."""

    class Suite(CompressorConformance):
        def compressor(self, top_n=None):
            return kind(top_n=top_n)

    failed = set()
    for name, test in inspect.getmembers(Suite(), inspect.ismethod):
        if not name.startswith("test_") or name == "test_a_wrong_number_of_scores_is_an_error":
            continue
        try:
            outcome = test()
            if inspect.isawaitable(outcome):
                await outcome
        except AssertionError:
            failed.add(name)
    return failed


async def test_a_right_compressor_passes():
    """The rules can be kept without our code."""
    assert await _failures(Simple) == set()


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Mutates, "test_inputs_are_not_changed"),
        (LosesIds, "test_ids_text_and_metadata_are_kept"),
        (GivesNumpy, "test_scores_are_finite_native_floats_in_descending_order"),
        (GivesNumpy, "test_metadata_can_be_serialized"),
        (TrustsOldScores, "test_an_older_relevance_score_is_replaced"),
        (TakesZeroForAll, "test_top_n_is_a_prefix_of_the_whole_ranking"),
        (WorstFirst, "test_scores_are_finite_native_floats_in_descending_order"),
        (ConstantScores, "test_scores_are_finite_native_floats_in_descending_order"),
        (DropsOne, "test_no_document_is_invented_or_doubled"),
        (IgnoresCallbacks, "test_callbacks_see_the_step"),
        (IgnoresCallbacks, "test_callbacks_see_the_async_step"),
        (DiffersInTheLoop, "test_async_gives_the_same"),
    ],
)
async def test_a_wrong_compressor_fails_the_test_made_for_it(kind, test):
    """Each rule has a test that can fail."""
    assert test in await _failures(kind)


async def test_a_miscount_that_goes_unnoticed_fails():
    """As classic's reranker does, which zips scores and documents."""

    class Suite(CompressorConformance):
        def compressor_with_wrong_count(self):
            return DropsOne()

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Suite().test_a_wrong_number_of_scores_is_an_error()
