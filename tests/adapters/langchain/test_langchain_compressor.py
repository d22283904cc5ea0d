"""CrossEncoderCompressor: order, scores, copies, options, errors."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from langchain_core.documents import Document

from rerank_plugins.errors import (
    InvalidInputError,
    NonFiniteScoreError,
    ScoreCountError,
    UnknownModelError,
)
from rerank_plugins.langchain import CrossEncoderCompressor
from rerank_plugins.models.loading import load_reranker
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import PairScores
from rerank_plugins.testing import OverlapScorer
from rerank_plugins.testing.compressors import CompressorConformance


class FixedScorer(OverlapScorer):
    """Gives the logits that it was made with, whatever is asked."""

    def __init__(self, logits, **options):
        super().__init__(**options)
        self.logits = np.asarray(logits, dtype=np.float64)

    def score(self, pairs, options):
        """The given logits."""
        return PairScores(self.logits, np.zeros(len(self.logits), np.bool_))


class RecordingScorer(OverlapScorer):
    """Remembers the passages that it scored."""

    def score(self, pairs, options):
        """As any, and remembers."""
        self.passages = [passage for _, passage in pairs]
        return super().score(pairs, options)


class TestConformance(CompressorConformance):
    def compressor(self, top_n=None):
        """As the class asks."""
        return CrossEncoderCompressor(reranker=Reranker(OverlapScorer()), top_n=top_n)

    def compressor_with_wrong_count(self):
        """As the class asks."""
        return CrossEncoderCompressor(reranker=Reranker(FixedScorer([1.0, 2.0])))


class TestConformanceOfTheFallback(CompressorConformance):
    """The first-stage order that is kept when scoring fails is as well-formed as any."""

    def compressor(self, top_n=None):
        """As the class asks."""
        failing = OverlapScorer(error=RuntimeError("down"))
        return CrossEncoderCompressor(
            reranker=Reranker(failing, on_error="first_stage"), top_n=top_n
        )

    def compressor_with_wrong_count(self):
        """As the class asks."""
        return CrossEncoderCompressor(reranker=Reranker(FixedScorer([1.0, 2.0])))


class TestScores:
    def test_the_best_document_comes_first_with_all_its_details(self, reranker, documents, query):
        """Relevance, scale, model and both ranks stand in the metadata of a reranked document."""
        best = CrossEncoderCompressor(reranker=reranker).compress_documents(documents, query)[0]
        assert best.id == "id-3"
        assert best.metadata == {
            "number": 3,
            "relevance_score": pytest.approx(1 / (1 + np.exp(-(8 * 5 / 5 - 4 - 0.08)))),
            "relevance_scale": "probability",
            "retrieval_rank": 4,
            "rerank_rank": 1,
            "rerank_model": "overlap",
        }

    def test_logits_are_given_on_request(self, documents, query):
        """The scale is the user's choice, and stands beside the score."""
        compressor = CrossEncoderCompressor(reranker=Reranker(OverlapScorer(), scale="logit"))
        best = compressor.compress_documents(documents, query)[0]
        assert best.metadata["relevance_score"] == pytest.approx(3.92)
        assert best.metadata["relevance_scale"] == "logit"

    def test_the_fallback_stamps_every_document_and_names_itself(self, failing, documents, query):
        """A kept order has scores 1 / rank, marked as the first stage's."""
        kept = CrossEncoderCompressor(reranker=failing).compress_documents(documents, query)
        assert [document.id for document in kept] == [document.id for document in documents]
        assert [document.metadata["relevance_score"] for document in kept] == [
            1 / rank for rank in range(1, len(documents) + 1)
        ]
        assert {document.metadata["relevance_scale"] for document in kept} == {"first_stage"}

    def test_a_relevance_score_of_another_reranker_is_overridden(self, reranker, documents, query):
        """The newest score stands, of whatever type the old one was."""
        for document in documents:
            document.metadata["relevance_score"] = "very"
        best = CrossEncoderCompressor(reranker=reranker).compress_documents(documents, query)[0]
        assert best.id == "id-3"
        assert type(best.metadata["relevance_score"]) is float

    def test_ties_keep_first_stage_order(self, documents, query):
        """Equal scores change nothing."""
        compressor = CrossEncoderCompressor(reranker=Reranker(FixedScorer([0.0] * 6)))
        kept = compressor.compress_documents(documents, query)
        assert [document.id for document in kept] == [document.id for document in documents]


class TestFirstStageScores:
    def _stamped(self, scores, methods=("bm25",)):
        return [
            Document(
                id=str(number),
                page_content=f"text {number}",
                metadata={
                    "retrieval_score": score,
                    "retrieval_method": methods[number % len(methods)],
                },
            )
            for number, score in enumerate(scores)
        ]

    def _blending(self):
        """Half the model's opinion, which is that later is better, half the first stage's."""
        return CrossEncoderCompressor(
            reranker=Reranker(FixedScorer([0.0, 1.0, 2.0]), first_stage_weight=0.6)
        )

    def test_an_incoming_retrieval_score_is_blended_with(self):
        """With more than half of the weight, the first stage's order wins."""
        kept = self._blending().compress_documents(self._stamped([9.0, 5.0, 1.0]), "q")
        assert [document.id for document in kept] == ["0", "1", "2"]
        assert [document.metadata["retrieval_score"] for document in kept] == [9.0, 5.0, 1.0]

    def test_without_retrieval_scores_the_model_decides_alone(self):
        """One unknown score, and no common opinion of the first stage exists."""
        kept = self._blending().compress_documents(self._stamped([9.0, None, 1.0]), "q")
        assert [document.id for document in kept] == ["2", "1", "0"]

    def test_scores_of_different_retrievers_are_not_blended(self):
        """An ensemble's documents carry scores on scales that cannot be compared."""
        mixed = self._stamped([9.0, 0.8, 1.0], methods=("bm25", "faiss"))
        kept = self._blending().compress_documents(mixed, "q")
        assert [document.id for document in kept] == ["2", "1", "0"]
        assert [document.metadata["retrieval_score"] for document in kept] == [1.0, 0.8, 9.0]
        assert [document.metadata["retrieval_rank"] for document in kept] == [3, 2, 1]

    @pytest.mark.parametrize("score", [float("nan"), float("inf"), "9.0", True, [1.0], None])
    def test_a_retrieval_score_that_is_no_finite_number_counts_as_unknown(self, score):
        """Strange metadata of others cannot break the order."""
        kept = self._blending().compress_documents(self._stamped([score, 5.0, 1.0]), "q")
        assert [document.id for document in kept] == ["2", "1", "0"]

    def test_numpy_scores_become_native_floats(self):
        """A first stage that stamps numpy scalars does no harm to JSON."""
        kept = self._blending().compress_documents(
            self._stamped([np.float32(9.0), np.int64(5), np.float64(1.0)]), "q"
        )
        assert {type(document.metadata["retrieval_score"]) for document in kept} == {float}

    def test_a_second_reranking_keeps_the_first_stage_figures(self, reranker, documents, query):
        """In a cascade the retrieval rank stays that of the retriever."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        once = compressor.compress_documents(documents, query)
        twice = compressor.compress_documents(once, query)
        assert [document.metadata for document in twice] == [document.metadata for document in once]


class TestOptions:
    def test_only_the_details_asked_for_are_written(self, reranker, documents, query):
        """The relevance score is always there; the rest is a choice."""
        compressor = CrossEncoderCompressor(reranker=reranker, details=("rerank_rank",))
        best = compressor.compress_documents(documents, query)[0]
        assert best.metadata.keys() == {"number", "relevance_score", "rerank_rank"}

    def test_a_prefix_goes_before_the_details_alone(self, reranker, documents, query):
        """The shared name relevance_score is never prefixed."""
        compressor = CrossEncoderCompressor(reranker=reranker, prefix="rp_")
        best = compressor.compress_documents(documents, query)[0]
        assert best.metadata.keys() == {
            "number",
            "relevance_score",
            "rp_relevance_scale",
            "rp_retrieval_rank",
            "rp_rerank_rank",
            "rp_rerank_model",
        }

    def test_metadata_fields_are_scored_before_the_text(self, query):
        """Fields that a document lacks or leaves empty are skipped; the text is not changed."""
        scorer = RecordingScorer()
        compressor = CrossEncoderCompressor(
            reranker=Reranker(scorer), metadata_fields=("title", "year"), separator=" | "
        )
        kept = compressor.compress_documents(
            [
                Document(page_content="one", metadata={"title": "Museum", "year": 1999}),
                Document(page_content="two", metadata={"title": None, "year": ""}),
                Document(page_content="three", metadata={"year": 0}),
            ],
            query,
        )
        assert scorer.passages == ["Museum | 1999 | one", "two", "0 | three"]
        assert {document.page_content for document in kept} == {"one", "two", "three"}

    def test_documents_of_one_text_are_all_kept_unless_asked_otherwise(self, reranker, query):
        """They may be of two sources; with deduplicate=True the first stage's best stays."""
        twins = [Document(id=str(number), page_content="The same.") for number in range(3)]
        every = CrossEncoderCompressor(reranker=reranker)
        assert [one.id for one in every.compress_documents(twins, query)] == ["0", "1", "2"]
        once = CrossEncoderCompressor(reranker=Reranker(OverlapScorer(), deduplicate=True))
        assert [one.id for one in once.compress_documents(twins, query)] == ["0"]

    def test_a_shared_id_does_not_make_documents_the_same(self, reranker, query):
        """Documents are told apart by their place, so equal ids cannot collide."""
        same_id = [Document(id="1", page_content="a"), Document(id="1", page_content="museum")]
        kept = CrossEncoderCompressor(reranker=reranker).compress_documents(same_id, query)
        assert [document.page_content for document in kept] == ["museum", "a"]

    def test_zero_is_a_top_n_and_a_threshold(self, documents, query):
        """Optional numbers are compared with None: 0 keeps nothing, 0.0 drops negative logits."""
        logits = Reranker(FixedScorer([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]), scale="logit")
        none = CrossEncoderCompressor(reranker=logits, top_n=0)
        assert none.compress_documents(documents, query) == []
        positive = CrossEncoderCompressor(reranker=logits, score_threshold=0.0)
        assert len(positive.compress_documents(documents, query)) == 4

    def test_the_rerankers_own_cut_holds_until_the_compressor_has_one(self, documents, query):
        """None leaves the choice to the reranker."""
        two = Reranker(OverlapScorer(), top_n=2)
        assert len(CrossEncoderCompressor(reranker=two).compress_documents(documents, query)) == 2
        three = CrossEncoderCompressor(reranker=two, top_n=3)
        assert len(three.compress_documents(documents, query)) == 3
        assert len(three.compress_documents(documents, query, top_n=1)) == 1

    def test_top_n_can_be_set_later(self, reranker, documents, query):
        """As on LangChain's own compressors."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        compressor.top_n = 1
        assert len(compressor.compress_documents(documents, query)) == 1

    def test_models_load_by_name_and_lazily(self):
        """Options go to load_reranker; nothing is read before the first use."""
        compressor = CrossEncoderCompressor(
            model="BAAI/bge-reranker-large", scale="logit", local_files_only=True
        )
        assert compressor.reranker.model == "BAAI/bge-reranker-large"
        assert compressor.reranker.scale == "logit"
        assert CrossEncoderCompressor(reranker="bundled").reranker.model == "bundled"
        assert CrossEncoderCompressor().reranker.model == load_reranker().model

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"top_n": -1}, "top_n must be a whole number of at least 0, but got -1"),
            ({"top_n": "3"}, "top_n .* but got '3'"),
            ({"top_n": True}, "top_n .* but got True"),
            ({"score_threshold": float("nan")}, "score_threshold .* but got nan"),
            ({"metadata_fields": "title"}, "list of names"),
            ({"details": ("score",)}, "details must be some of"),
            ({"details": "rerank_rank"}, "details must be some of"),
            ({"scale": "logit"}, "a ready Reranker has its own"),
            ({"model": "BAAI/bge-reranker-large"}, "name two models"),
            ({"top_m": 3}, r"no option 'top_m' \(did you mean 'top_n'\?\)"),
            ({"reranker": 7}, "must be a Reranker, .* or a model's name, but got int"),
        ],
    )
    def test_a_wrong_option_is_an_error_at_once(self, reranker, options, words):
        """The rule and the value stand in the message, before any document is seen."""
        with pytest.raises(InvalidInputError, match=words):
            CrossEncoderCompressor(**({"reranker": reranker} | options))

    def test_a_wrong_name_lists_the_near_ones(self):
        """Nobody has to look up how a model is spelt."""
        with pytest.raises(UnknownModelError, match="bge-reranker-large"):
            CrossEncoderCompressor(model="bge-reranker-larg")


class TestErrors:
    @pytest.mark.parametrize("query", ["", "  \n", None, 7])
    def test_a_query_that_is_blank_or_no_text_is_an_error(self, reranker, documents, query):
        """With documents or without, sync."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        for given in (documents, []):
            with pytest.raises(InvalidInputError, match="query must"):
                compressor.compress_documents(given, query)

    def test_what_is_no_document_is_named_by_its_place(self, reranker, documents, query):
        """Strings belong in rerank(), not in compress_documents()."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        with pytest.raises(InvalidInputError, match="number 1 is str"):
            compressor.compress_documents([documents[0], "text"], query)

    async def test_scoring_errors_come_through(self, documents, query):
        """A miscount and a NaN are errors, sync and async; no document is lost in silence."""
        short = CrossEncoderCompressor(reranker=Reranker(FixedScorer([1.0] * 5)))
        with pytest.raises(ScoreCountError, match="for 6 pairs"):
            short.compress_documents(documents, query)
        broken = CrossEncoderCompressor(reranker=Reranker(FixedScorer([float("nan")] * 6)))
        with pytest.raises(NonFiniteScoreError):
            await broken.acompress_documents(documents, query)


class TestRerank:
    def test_gives_indices_and_scores_of_any_kind_of_document(self, reranker, query):
        """Documents, strings and dicts can be mixed; indices count the list as given."""
        mixed = [
            "Bread keeps in a cloth.",
            {"text": "The museum opens at nine."},
            Document(page_content="When does the museum open?"),
            {"page_content": "The museum.", "metadata": {"title": "x"}},
        ]
        results = CrossEncoderCompressor(reranker=reranker).rerank(mixed, query)
        assert [result["index"] for result in results] == [2, 3, 1, 0]
        assert all(result.keys() == {"index", "relevance_score"} for result in results)
        assert all(type(result["relevance_score"]) is float for result in results)

    def test_equals_what_compress_documents_gives(self, reranker, documents, query):
        """Two doors to one ranking."""
        compressor = CrossEncoderCompressor(reranker=reranker, top_n=4)
        results = compressor.rerank(documents, query)
        kept = compressor.compress_documents(documents, query)
        assert [(f"id-{one['index']}", one["relevance_score"]) for one in results] == [
            (one.id, one.metadata["relevance_score"]) for one in kept
        ]

    def test_takes_a_top_n_of_its_own(self, reranker, documents, query):
        """For one call, zero included."""
        compressor = CrossEncoderCompressor(reranker=reranker, top_n=4)
        assert len(compressor.rerank(documents, query, top_n=2)) == 2
        assert compressor.rerank(documents, query, top_n=0) == []
        assert compressor.rerank([], query) == []

    @pytest.mark.parametrize("bad", [7, None, {"body": "x"}, {"text": None}, b"bytes"])
    def test_what_has_no_text_is_an_error(self, reranker, query, bad):
        """The message says what a document may be."""
        with pytest.raises(InvalidInputError, match="a document must be"):
            CrossEncoderCompressor(reranker=reranker).rerank(["x", bad], query)


class TestAsync:
    async def test_the_event_loop_goes_on_while_scoring(self, documents, query):
        """A slow model stops nobody: a task beside it gets its turns."""

        class SlowScorer(OverlapScorer):
            def score(self, pairs, options):
                time.sleep(0.2)
                return super().score(pairs, options)

        turns = 0

        async def count_turns():
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        beside = asyncio.create_task(count_turns())
        compressor = CrossEncoderCompressor(reranker=Reranker(SlowScorer()))
        await compressor.acompress_documents(documents, query)
        beside.cancel()
        assert turns >= 5

    async def test_many_coroutines_share_one_compressor(self, reranker, documents, query):
        """Results do not mix."""
        compressor = CrossEncoderCompressor(reranker=reranker)
        queries = [query, "Where is the bridge?", "How long does bread keep?"] * 8
        together = await asyncio.gather(
            *(compressor.acompress_documents(documents, one) for one in queries)
        )
        assert together == [compressor.compress_documents(documents, one) for one in queries]
