"""to_dict, from_dict, JSON and pickle of a postprocessor."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from helpers_llama_index import QUERY, found
from llama_index.core.schema import MetadataMode

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index import BundledEmbedding, CrossEncoderPostprocessor
from rerank_plugins.testing import OverlapScorer

EVERYTHING = {
    "model": "BAAI/bge-reranker-large",
    "top_n": 3,
    "score_threshold": 0.0,
    "metadata_mode": MetadataMode.LLM,
    "details": ("retrieval_rank", "rerank_model"),
    "prefix": "ce_",
    "device": "cpu",
    "precision": "bf16",
    "revision": "4f9f1a6e4d1d7e2e3f9c",
    "max_length": 256,
    "cache_folder": Path("somewhere/else"),
    "local_files_only": True,
    "trust_remote_code": False,
    "allow_pickle_weights": True,
    "scale": "logit",
    "deduplicate": False,
    "long_passages": "max",
    "batch_tokens": 4096,
    "first_stage_weight": 0.25,
    "on_error": "first_stage",
}


def settings_of(postprocessor: CrossEncoderPostprocessor) -> dict[str, object]:
    """What the reranker inside really uses; nothing here reads the adapter's own fields."""
    reranker = postprocessor._reranker
    model = reranker.scorer.settings
    return {
        "model": model.name,
        "device": model.device,
        "precision": model.precision,
        "revision": model.revision,
        "max_length": reranker.scorer._max_length,
        "cache_folder": model.cache_folder,
        "local_files_only": model.local_files_only,
        "trust_remote_code": model.trust_remote_code,
        "allow_pickle_weights": model.allow_pickle_weights,
        "scale": reranker.scale,
        "deduplicate": reranker.deduplicate,
        "long_passages": reranker.options.long_passages,
        "batch_tokens": reranker.options.batch_tokens,
        "first_stage_weight": reranker.first_stage_weight,
        "on_error": reranker.on_error,
    }


@pytest.mark.parametrize("way", ["dict", "json", "pickle"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["defaults", "everything set"])
def test_a_round_trip_keeps_every_setting(way, options):
    """The copy is equal, and the reranker inside it was made with the same settings."""
    before = CrossEncoderPostprocessor(**options)
    if way == "dict":
        after = CrossEncoderPostprocessor.from_dict(before.to_dict())
    elif way == "json":
        after = CrossEncoderPostprocessor.from_json(before.to_json())
    else:
        after = pickle.loads(pickle.dumps(before))
    assert after == before
    assert after.to_dict() == before.to_dict()
    assert settings_of(after) == settings_of(before)
    for field in ("top_n", "score_threshold", "metadata_mode", "details", "prefix"):
        assert getattr(after, field) == getattr(before, field)
    for name, value in options.items():
        given = str(value) if isinstance(value, Path) else value
        assert settings_of(after).get(name, given) == given


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_each_setting_counts_when_two_are_compared(name):
    """Postprocessors that differ in one setting are not equal."""
    fewer = {key: value for key, value in EVERYTHING.items() if key != name}
    if name == "trust_remote_code":
        fewer[name] = True
    assert CrossEncoderPostprocessor(**EVERYTHING) != CrossEncoderPostprocessor(**fewer)


def test_the_dict_is_json_and_names_its_class():
    """Stores keep components as JSON, found again by class name."""
    data = CrossEncoderPostprocessor(**EVERYTHING).to_dict()
    assert data["class_name"] == "CrossEncoderPostprocessor"
    assert json.loads(json.dumps(data))["options"]["cache_folder"] == str(Path("somewhere/else"))


def test_from_dict_leaves_the_dict_alone():
    """The same dict serves twice."""
    data = CrossEncoderPostprocessor(**EVERYTHING).to_dict()
    before = json.dumps(data)
    assert CrossEncoderPostprocessor.from_dict(data) == CrossEncoderPostprocessor.from_dict(data)
    assert json.dumps(data) == before


def test_a_used_postprocessor_survives_pickling(tiny_checkpoints):
    """Weights stay behind; the copy loads them again and scores the same."""
    before = CrossEncoderPostprocessor(model=str(tiny_checkpoints["bge"]), device="cpu", top_n=2)
    scores = [node.score for node in before.postprocess_nodes(found(), query_str=QUERY)]
    after = pickle.loads(pickle.dumps(before))
    assert after == before
    assert [n.score for n in after.postprocess_nodes(found(), query_str=QUERY)] == scores


def test_a_ready_reranker_cannot_be_written_down():
    """Losing its settings without a word would be worse than the error."""
    with pytest.raises(InvalidInputError, match="model="):
        CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer())).to_dict()


def test_ready_rerankers_are_compared_by_identity():
    """Two objects may score differently, whatever their names."""
    one, other = Reranker(OverlapScorer()), Reranker(OverlapScorer())
    assert CrossEncoderPostprocessor(reranker=one) == CrossEncoderPostprocessor(reranker=one)
    assert CrossEncoderPostprocessor(reranker=one) != CrossEncoderPostprocessor(reranker=other)
    assert CrossEncoderPostprocessor(reranker=one) != "overlap"


def test_an_embedding_comes_back_from_its_dict():
    """BundledEmbedding is known by class name and keeps its batch size."""
    data = BundledEmbedding(embed_batch_size=7).to_dict()
    assert data["class_name"] == "BundledEmbedding"
    assert BundledEmbedding.from_dict(data).embed_batch_size == 7
