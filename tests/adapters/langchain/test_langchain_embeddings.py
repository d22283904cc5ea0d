"""BundledEmbeddings, over a tiny encoder made here."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from rerank_plugins.bundled import BundledEncoder, StaticEncoder
from rerank_plugins.langchain import BundledEmbeddings, FaissVectorStore, HybridRetriever

unit = pytest.importorskip("langchain_tests.unit_tests")
integration = pytest.importorskip("langchain_tests.integration_tests")

WORDS = ("museum", "opens", "nine", "bread", "cloth", "tram", "midnight", "متحف", "يفتح")


@pytest.fixture(autouse=True)
def tiny_encoder(tmp_path, monkeypatch):
    """An encoder of nine words in place of the one that ships."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0} | {word: number for number, word in enumerate(WORDS, start=1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(vocabulary), 16)).astype(np.float32)
    save_file({"embedding.weight": table}, tmp_path / "model.safetensors")
    encoder = StaticEncoder(tmp_path)
    monkeypatch.setattr(BundledEncoder, "default", staticmethod(lambda: encoder))
    return encoder


class TestStandard(unit.EmbeddingsUnitTests):
    """LangChain's own unit tests of embeddings."""

    embeddings_class = BundledEmbeddings


class TestStandardInUse(integration.EmbeddingsIntegrationTests):
    """LangChain's own integration tests of embeddings."""

    embeddings_class = BundledEmbeddings


async def test_gives_native_floats_as_the_encoder_does(tiny_encoder):
    """Sync and async, documents and queries alike."""
    texts = ["museum opens", "متحف", "", "unknown"]
    embeddings = BundledEmbeddings()
    vectors = embeddings.embed_documents(texts)
    np.testing.assert_array_equal(vectors, tiny_encoder.encode(texts).astype(float))
    assert {type(number) for vector in vectors for number in vector} == {float}
    assert await embeddings.aembed_documents(texts) == vectors
    assert await embeddings.aembed_query(texts[0]) == embeddings.embed_query(texts[0]) == vectors[0]
    assert embeddings.embed_documents([]) == []


def test_works_in_langchains_own_store():
    """Any vector store takes it."""
    store = InMemoryVectorStore.from_texts(["museum opens", "bread cloth"], BundledEmbeddings())
    assert store.similarity_search("bread", k=1)[0].page_content == "bread cloth"


def test_is_the_default_of_the_vector_store_and_the_hybrid(documents):
    """No embedding has to be chosen to begin with."""
    store = FaissVectorStore.from_texts(["museum opens", "bread cloth"])
    assert isinstance(store.embeddings, BundledEmbeddings)
    assert store.similarity_search("bread", k=1)[0].page_content == "bread cloth"
    hybrid = HybridRetriever.from_documents(documents)
    assert hybrid.invoke("museum opens", k=1)[0].page_content.startswith("The museum")
