"""CrossEncoderPostprocessor: what it returns, what it leaves alone, what it refuses."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math

import numpy as np
import pytest
from helpers_llama_index import QUERY, TEXTS, found, ids
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError, ScoringError, UnknownModelError
from rerank_plugins.llama_index import CrossEncoderPostprocessor
from rerank_plugins.testing import OverlapScorer

STAMPS = {
    "relevance_score",
    "relevance_scale",
    "retrieval_score",
    "retrieval_rank",
    "rerank_rank",
    "rerank_model",
}


def postprocessor(**options) -> CrossEncoderPostprocessor:
    """One with a scorer that needs no model."""
    options.setdefault("reranker", Reranker(OverlapScorer()))
    return CrossEncoderPostprocessor(**options)


def expected_order(nodes: list[NodeWithScore], query: str = QUERY) -> list[str]:
    """Ids by the fake's own score of each text, an oracle that knows no adapter."""
    scorer = OverlapScorer()
    by_score = sorted(nodes, key=lambda node: -scorer._logit(query, node.node.text))
    return ids(by_score)


# --- what comes out ---------------------------------------------------------------------------


def test_nodes_come_out_in_the_order_of_their_relevance():
    """The order is that of the scorer, and each score is the sigmoid of its logit."""
    nodes = found()
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    assert ids(reranked) == expected_order(nodes)
    for node in reranked:
        logit = OverlapScorer()._logit(QUERY, node.node.text)
        assert type(node.score) is float
        assert node.score == pytest.approx(1 / (1 + math.exp(-logit)))


def test_a_query_bundle_and_a_query_string_are_one():
    """Both public spellings of a query give the same answer."""
    one = postprocessor().postprocess_nodes(found(), query_str=QUERY)
    other = postprocessor().postprocess_nodes(found(), query_bundle=QueryBundle(QUERY))
    assert [(n.node_id, n.score) for n in one] == [(n.node_id, n.score) for n in other]


async def test_the_async_way_gives_the_same():
    """apostprocess_nodes agrees with postprocess_nodes to the last bit."""
    sync = postprocessor(top_n=3).postprocess_nodes(found(), query_str=QUERY)
    apart = await postprocessor(top_n=3).apostprocess_nodes(found(), query_str=QUERY)
    assert [n.model_dump() for n in sync] == [n.model_dump() for n in apart]


def test_the_metadata_say_where_a_node_came_from():
    """Scores, ranks, scale and model stand in the metadata as native types."""
    nodes = found()
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    for rank, node in enumerate(reranked, start=1):
        before = next(n for n in nodes if n.node_id == node.node_id)
        assert node.metadata["relevance_score"] == node.score
        assert node.metadata["relevance_scale"] == "probability"
        assert node.metadata["retrieval_score"] == before.score
        assert node.metadata["retrieval_rank"] == nodes.index(before) + 1
        assert node.metadata["rerank_rank"] == rank
        assert node.metadata["rerank_model"] == "overlap"
        assert json.loads(json.dumps(node.metadata)) == node.metadata


def test_ids_relationships_and_metadata_are_kept():
    """Only the stamps are new on a copy."""
    nodes = found()
    for node in postprocessor().postprocess_nodes(nodes, query_str=QUERY):
        before = next(n for n in nodes if n.node_id == node.node_id).node
        assert node.node.relationships == before.relationships
        assert node.node.ref_doc_id == "book"
        assert {k: v for k, v in node.metadata.items() if k not in STAMPS} == before.metadata
        assert type(node.node) is type(before)


def test_neither_embedders_nor_llms_read_the_stamps():
    """EMBED and LLM text of a copy is that of the original, character by character."""
    nodes = found(title="Opening hours")
    for node in postprocessor().postprocess_nodes(nodes, query_str=QUERY):
        before = next(n for n in nodes if n.node_id == node.node_id)
        for mode in (MetadataMode.EMBED, MetadataMode.LLM, MetadataMode.NONE):
            assert node.get_content(mode) == before.get_content(mode)
        assert "Opening hours" in node.get_content(MetadataMode.LLM)


def test_the_user_chooses_which_details_are_written_and_their_prefix():
    """relevance_score keeps its name; the details take the prefix."""
    chosen = postprocessor(details=("retrieval_rank",), prefix="ce_")
    node = chosen.postprocess_nodes([found()[0]], query_str=QUERY)[0]
    assert node.metadata.keys() - {"number", "nested"} == {"relevance_score", "ce_retrieval_rank"}
    assert "ce_retrieval_rank" in node.node.excluded_llm_metadata_keys


def test_without_details_nothing_is_written():
    """The score is on the node all the same, and the hash stays that of the original."""
    nodes = found()
    reranked = postprocessor(details=()).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(reranked) == expected_order(nodes)
    for node in reranked:
        before = next(n.node for n in nodes if n.node_id == node.node_id)
        assert node.node == before
        assert node.node is not before
        assert node.node.hash == before.hash
        assert 0.0 < node.score < 1.0


def test_a_missing_first_stage_score_is_not_made_up():
    """A node without a score, or with NaN, has no retrieval_score afterwards."""
    nodes = found()
    nodes[1].score = None
    nodes[2].score = math.nan
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    without = {node.node_id for node in reranked if "retrieval_score" not in node.metadata}
    assert without == {"id-1", "id-2"}


def test_numpy_scores_come_out_native():
    """A float32 assigned to a node's score is stamped as a Python float."""
    nodes = found()
    nodes[0].score = np.float32(0.5)
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    (score,) = (n.metadata["retrieval_score"] for n in reranked if n.node_id == "id-0")
    assert type(score) is float
    assert score == 0.5


def test_the_first_stage_score_is_blended_in_when_the_model_wants_it():
    """With weight 1 the incoming scores alone decide, whatever the model says."""
    alone = Reranker(OverlapScorer(), first_stage_weight=1.0)
    nodes = found()[::-1]
    reranked = postprocessor(reranker=alone).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(reranked) == ["id-0", "id-1", "id-2", "id-3", "id-4"]


def test_a_nan_from_the_first_stage_does_not_spoil_a_blend():
    """A cosine of a zero vector is NaN: the model alone decides then, and nothing fails."""
    blending = Reranker(OverlapScorer(), first_stage_weight=0.5)
    nodes = found()
    nodes[0].score = math.nan
    reranked = postprocessor(reranker=blending).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(reranked) == expected_order(nodes)


def test_top_n_and_threshold_cut():
    """top_n keeps the best; 0 keeps none; a threshold of 0.0 is a threshold."""
    full = postprocessor().postprocess_nodes(found(), query_str=QUERY)
    assert ids(postprocessor(top_n=2).postprocess_nodes(found(), query_str=QUERY)) == ids(full)[:2]
    assert postprocessor(top_n=0).postprocess_nodes(found(), query_str=QUERY) == []
    logits = Reranker(OverlapScorer(), scale="logit")
    above = postprocessor(reranker=logits, score_threshold=0.0)
    assert {n.score >= 0.0 for n in above.postprocess_nodes(found(), query_str=QUERY)} == {True}
    assert 0 < len(above.postprocess_nodes(found(), query_str=QUERY)) < len(TEXTS)


def test_top_n_can_change_later_and_for_one_call():
    """Assigning works, and a model_copy shares the model without touching the original."""
    one = postprocessor(top_n=1)
    assert len(one.model_copy(update={"top_n": 3}).postprocess_nodes(found(), query_str=QUERY)) == 3
    assert len(one.postprocess_nodes(found(), query_str=QUERY)) == 1
    one.top_n = None
    assert len(one.postprocess_nodes(found(), query_str=QUERY)) == len(TEXTS)


def test_settings_that_shape_the_model_cannot_change_later():
    """Changing the model's name after the fact would be ignored, so it is refused."""
    with pytest.raises(ValueError, match="frozen"):
        postprocessor().model = "other"


def test_the_metadata_mode_decides_what_is_scored():
    """The title counts in EMBED, and not in NONE."""
    nodes = found(["Nothing here.", "Nothing there, either."])
    nodes[1].node.metadata["title"] = "When does the museum open?"
    embed = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    plain = postprocessor(metadata_mode=MetadataMode.NONE).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(embed) == ["id-1", "id-0"]
    assert ids(plain) == ["id-0", "id-1"]


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_a_second_reranker_reads_the_same_text_as_the_first(mode):
    """No mode, not even ALL, shows a later pass what an earlier one wrote."""
    once = postprocessor(metadata_mode=mode).postprocess_nodes(found(), query_str=QUERY)
    twice = postprocessor(metadata_mode=mode).postprocess_nodes(once, query_str=QUERY)
    assert [(n.node_id, n.score) for n in once] == [(n.node_id, n.score) for n in twice]
    assert twice[0].metadata["retrieval_score"] == once[0].score


def test_nodes_of_one_text_are_all_kept_unless_asked_otherwise():
    """They may be of two sources; with deduplicate=True the best of the first stage stays."""
    nodes = found(["The museum opens.", "Bread.", "The museum opens."])
    for node in nodes:
        node.node.metadata.clear()
    every = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    assert ids(every) == ["id-0", "id-2", "id-1"]
    once = Reranker(OverlapScorer(), deduplicate=True)
    reranked = postprocessor(reranker=once).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(reranked) == ["id-0", "id-1"]


def test_subclasses_of_node_with_score_stay_what_they_are():
    """What a retriever adds beside the score is not lost."""

    class Found(NodeWithScore):
        shard: int = 0

    nodes = [Found(node=n.node, score=n.score, shard=7) for n in found()]
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    assert {(type(n), n.shard) for n in reranked} == {(Found, 7)}


# --- what stays as it was ---------------------------------------------------------------------


def test_inputs_are_left_alone():
    """Scores, metadata, exclusions, relationships and hashes of the inputs are unchanged."""
    nodes = found()
    before = copy.deepcopy([node.model_dump() for node in nodes])
    hashes = [node.node.hash for node in nodes]
    reranked = postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    for node in reranked:  # nor through what the copies share
        node.node.metadata["mine"] = True
        node.node.relationships.clear()
        node.node.excluded_llm_metadata_keys.append("mine")
        node.score = -1.0
    assert [node.model_dump() for node in nodes] == before
    assert [node.node.hash for node in nodes] == hashes


def test_the_hash_of_a_copy_is_the_hash_of_what_it_says():
    """The stamps are metadata, so they count in the hash; without them it is the original's."""
    nodes = found()
    reranked = postprocessor(top_n=1).postprocess_nodes(nodes, query_str=QUERY)[0]
    original = next(n.node for n in nodes if n.node_id == reranked.node_id)
    assert reranked.node.hash != original.hash
    for stamp in STAMPS:
        reranked.node.metadata.pop(stamp)
    assert reranked.node.hash == original.hash


# --- kinds of nodes ---------------------------------------------------------------------------


def test_every_kind_of_node_with_text_is_reranked():
    """TextNode, IndexNode, Document, Node and captioned images keep their kind."""
    behind = object()
    kinds = [
        TextNode(text="The river.", id_="text"),
        IndexNode(text="The museum opens.", id_="index", index_id="x", obj=behind),
        Document(text="When does the museum open? At nine.", id_="document"),
        Node(text_resource=MediaResource(text="Bread."), id_="node"),
        ImageNode(text="A museum.", image_url="https://example.org/a.png", id_="image"),
    ]
    nodes = [NodeWithScore(node=node, score=0.5) for node in kinds]
    reranked = {
        n.node_id: n.node for n in postprocessor().postprocess_nodes(nodes, query_str=QUERY)
    }
    assert {id_: type(node) for id_, node in reranked.items()} == {
        node.id_: type(node) for node in kinds
    }
    assert reranked["index"].obj is behind


@pytest.mark.parametrize(
    "node",
    [
        ImageNode(image="aGVsbG8=", id_="bare"),
        Document(image_resource=MediaResource(data=b"aGVsbG8="), id_="bare"),
        Node(audio_resource=MediaResource(data=b"aGVsbG8="), id_="bare"),
    ],
    ids=["image", "image document", "audio"],
)
async def test_a_node_with_no_text_keeps_its_place_below_the_others(node):
    """An image or a sound cannot be judged by its text: it is marked, and the rest reranked."""
    bare = NodeWithScore(node=node, score=0.9)
    other = NodeWithScore(node=ImageNode(image_url="https://x.org/b.png", id_="other"))
    given = found()
    mixed = [given[0], bare, *given[1:3], other, *given[3:]]
    plain = postprocessor().postprocess_nodes(given, query_str=QUERY)
    for reranked in (
        postprocessor().postprocess_nodes(mixed, query_str=QUERY),
        await postprocessor().apostprocess_nodes(mixed, query_str=QUERY),
    ):
        assert ids(reranked) == [*ids(plain), "bare", "other"]
        assert [n.score for n in reranked[:-2]] == [n.score for n in plain]
        assert [n.metadata["relevance_scale"] for n in reranked[-2:]] == ["first_stage"] * 2
        assert reranked[-2].metadata["retrieval_rank"] == 2
        scores = [n.score for n in reranked]
        assert scores == sorted(scores, reverse=True)
    assert len(postprocessor(top_n=3).postprocess_nodes(mixed, query_str=QUERY)) == 3
    assert ids(postprocessor(top_n=6).postprocess_nodes(mixed, query_str=QUERY))[-1] == "bare"
    assert ids(postprocessor().postprocess_nodes([bare, other], query_str=QUERY)) == [
        "bare",
        "other",
    ]


# --- queries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [f"\ninput is {QUERY}\n", f"{QUERY}\n\n", f"  {QUERY}"])
def test_the_words_of_a_tool_call_are_taken_off(query, recorded):
    """What RetrieverTool wraps around a query reaches neither the model nor the events."""
    plain = postprocessor().postprocess_nodes(found(), query_str=QUERY)
    wrapped = postprocessor().postprocess_nodes(found(), query_str=query)
    assert [n.score for n in wrapped] == [n.score for n in plain]
    starts = [e for e in recorded.events if e.class_name() == "ReRankStartEvent"]
    assert [event.query for event in starts] == [QUERY, QUERY]


def test_a_question_about_input_is_left_alone():
    """Only the tool's own wrapping goes; a query may begin with those words itself."""
    seen = []

    class Listening(OverlapScorer):
        def score(self, pairs, options):
            seen.extend(query for query, _ in pairs)
            return super().score(pairs, options)

    listening = postprocessor(reranker=Reranker(Listening()))
    listening.postprocess_nodes(found()[:1], query_str="input is not read, why?")
    listening.postprocess_nodes(found()[:1], query_str="\ninput is input is what?\n")
    assert seen == ["input is not read, why?", "input is what?"]


@pytest.mark.parametrize("query", [None, "", " \n", "\ninput is \n"])
def test_no_query_is_an_error(query):
    """Nothing can be relevant to nothing."""
    with pytest.raises(InvalidInputError, match="query"):
        postprocessor().postprocess_nodes(found(), query_str=query)


# --- failures ---------------------------------------------------------------------------------


def test_a_failing_model_raises_what_it_raised():
    """The default is to hand on the error."""
    failing = Reranker(OverlapScorer(error=ScoringError("the model fell over")))
    with pytest.raises(ScoringError, match="fell over"):
        postprocessor(reranker=failing).postprocess_nodes(found(), query_str=QUERY)


def test_a_failing_model_can_keep_the_first_stage_order(caplog):
    """on_error="first_stage" gives the old order, marked as such, and warns once."""
    failing = Reranker(OverlapScorer(error=ScoringError("down")), on_error="first_stage", top_n=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            kept = postprocessor(reranker=failing).postprocess_nodes(found(), query_str=QUERY)
    assert ids(kept) == ["id-0", "id-1"]
    assert {n.metadata["relevance_scale"] for n in kept} == {"first_stage"}
    assert [n.metadata["retrieval_score"] for n in kept] == [1.0, 0.9]
    assert caplog.text.count("first-stage order is kept") == 1


def test_nodes_without_a_wrapper_are_refused_by_position():
    """A bare TextNode has no score; the error names its place and kind."""
    with pytest.raises(InvalidInputError, match="number 1 is TextNode"):
        postprocessor().postprocess_nodes([found()[0], TextNode(text="x")], query_str=QUERY)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_n": -1}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"top_n": "3"}, "top_n"),
        ({"score_threshold": math.nan}, "score_threshold"),
        ({"details": "rerank_rank"}, "details"),
        ({"details": ["colour"]}, "colour"),
        ({"reranker": 3}, "reranker"),
        ({"device": "cpu"}, "device"),
        ({"model": "BAAI/bge-reranker-large"}, "model"),
    ],
)
def test_bad_options_are_refused_at_once(options, named):
    """Each rule is checked when the postprocessor is made, and the error names the option."""
    with pytest.raises(InvalidInputError, match=named):
        postprocessor(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scale": "percent"}, "scale"),
        ({"precision": "int3"}, "precision"),
        ({"top_k": 3}, "top_k"),
        ({"batch_tokens": 0}, "batch_tokens"),
    ],
)
def test_bad_options_of_a_named_model_are_refused_at_once(options, named):
    """Nothing is loaded to find that out, and a misspelt option is not silently dropped."""
    with pytest.raises(InvalidInputError, match=named):
        CrossEncoderPostprocessor(**options)


def test_a_wrong_name_lists_the_near_ones():
    """The error of load_reranker comes through as it is."""
    with pytest.raises(UnknownModelError, match="ARA-Reranker-V1"):
        CrossEncoderPostprocessor(model="ara-reranker")


# --- models -----------------------------------------------------------------------------------


def test_making_one_loads_nothing():
    """A postprocessor on a machine without the model can still be made and described."""
    named = CrossEncoderPostprocessor(model="nobody/has-this-model", local_files_only=True)
    assert named.model == "nobody/has-this-model"
    assert named.to_dict()["options"] == {"local_files_only": True}


def test_a_name_may_come_as_reranker_too():
    """The argument takes what model takes, as the LangChain adapter's does."""
    assert CrossEncoderPostprocessor(reranker="bundled").model == "bundled"


def test_postprocessors_of_one_model_share_its_weights(tiny_checkpoints):
    """A real checkpoint is read once, however many postprocessors use it."""
    folder = tiny_checkpoints["bge"]
    one = CrossEncoderPostprocessor(model=folder, device="cpu")
    two = CrossEncoderPostprocessor(model=str(folder), device="cpu", top_n=1)
    first = one.postprocess_nodes(found(), query_str=QUERY)
    second = two.postprocess_nodes(found(), query_str=QUERY)
    assert first[0].score == second[0].score
    assert one._reranker.scorer._load()[0] is two._reranker.scorer._load()[0]
    assert all(0.0 < node.score < 1.0 and type(node.score) is float for node in first)


async def test_the_event_loop_goes_on_meanwhile():
    """While a slow model scores, other coroutines get their turns."""
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Waiting(OverlapScorer):
        def score(self, pairs, options):
            # Only another coroutine can end this wait: a blocked loop would fail here.
            asyncio.run_coroutine_threadsafe(running.wait(), loop).result(timeout=30)
            return super().score(pairs, options)

    slow = postprocessor(reranker=Reranker(Waiting()))
    task = asyncio.create_task(slow.apostprocess_nodes(found(), query_str=QUERY))
    await asyncio.sleep(0)
    running.set()
    assert ids(await task) == expected_order(found())


async def test_sixty_four_coroutines_get_the_answers_of_one():
    """A shared postprocessor mixes up nothing."""
    shared = postprocessor(top_n=2)
    queries = [f"{QUERY} {text}" for text in TEXTS for _ in range(13)][:64]
    together = await asyncio.gather(
        *(shared.apostprocess_nodes(found(), query_str=query) for query in queries)
    )
    alone = [shared.postprocess_nodes(found(), query_str=query) for query in queries]
    assert [[(n.node_id, n.score) for n in some] for some in together] == [
        [(n.node_id, n.score) for n in some] for some in alone
    ]


def test_callbacks_of_the_caller_are_used():
    """A callback manager given at the start is the one that stays."""
    manager = CallbackManager([])
    assert postprocessor(callback_manager=manager).callback_manager is manager
