"""LangChain's ``index()`` and ``aindex()`` over our store, beside LangChain's own store."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain import FaissVectorStore

CLEANUPS = [None, "incremental", "full", "scoped_full"]


class Loader(BaseLoader):
    """Gives the documents one by one, in both ways."""

    def __init__(self, documents):
        self.documents = documents

    def lazy_load(self):
        """An iterator."""
        yield from self.documents

    async def alazy_load(self):
        """An asynchronous one."""
        for document in self.documents:
            yield document


class Clock(InMemoryRecordManager):
    """A record manager whose time advances by a second at each look, however fast the machine."""

    def __init__(self):
        super().__init__("museum")
        self._ticks = itertools.count(1)
        self.create_schema()

    def get_time(self):
        """Seconds."""
        return float(next(self._ticks))

    async def aget_time(self):
        """The same."""
        return self.get_time()


def stores():
    """Ours and LangChain's own, each with its record manager."""
    embedding = DeterministicFakeEmbedding(size=5)
    return [(Clock(), FaissVectorStore(embedding)), (Clock(), InMemoryVectorStore(embedding))]


def held(store):
    """What the store has, by id."""
    if isinstance(store, FaissVectorStore):
        return {one.id: (one.page_content, one.metadata) for one in store.documents}
    return {name: (one["text"], one["metadata"]) for name, one in store.store.items()}


def documents(pairs):
    """From (text, source) pairs."""
    return [Document(page_content=text, metadata={"source": source}) for text, source in pairs]


PAIRS = st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abc")), max_size=8)
RUNS = st.lists(
    st.tuples(PAIRS, st.sampled_from(CLEANUPS), st.booleans(), st.integers(1, 9)), max_size=6
)


@pytest.mark.parametrize("way", ["sync", "async"])
@settings(max_examples=40, deadline=None)
@given(runs=RUNS)
async def test_any_runs_leave_what_they_leave_in_langchain_s_own_store(way, runs):
    """The same counts are told and the same documents held, whatever is cleaned up."""
    results = []
    for manager, store in stores():
        results.append([])
        for pairs, cleanup, force_update, batch_size in runs:
            options = {
                "cleanup": cleanup,
                "source_id_key": "source",
                "force_update": force_update,
                "batch_size": batch_size,
                "cleanup_batch_size": 2,
                "key_encoder": "sha256",
            }
            loader = Loader(documents(pairs))
            if way == "sync":
                told = index(loader, manager, store, **options)
            else:
                told = await aindex(loader, manager, store, **options)
            results[-1].append((told, held(store)))
    assert results[0] == results[1]


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_more_documents_than_a_batch_are_replaced_by_others(way):
    """A thousand out, a thousand and one in, seventeen deleted at a time."""
    manager, store = stores()[0]

    async def write(count, text):
        many = documents((text, str(number)) for number in range(count))
        options = {"cleanup": "full", "cleanup_batch_size": 17, "key_encoder": "sha256"}
        if way == "sync":
            return index(many, manager, store, **options)
        return await aindex(many, manager, store, **options)

    assert (await write(1000, "old"))["num_added"] == 1000
    told = await write(1001, "new")
    assert (told["num_added"], told["num_deleted"]) == (1001, 1000)
    assert {one.page_content for one in store.documents} == {"new"}


async def test_a_document_without_a_source_is_refused_and_nothing_is_written():
    """Incremental cleaning up goes by sources."""
    manager, store = stores()[0]
    options = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
    with pytest.raises(ValueError, match="Source IDs are required"):
        index(documents([("a", "1"), ("b", None)]), manager, store, **options)
    with pytest.raises(ValueError, match="Source IDs are required"):
        await aindex(documents([("a", "1"), ("b", None)]), manager, store, **options)
    assert len(store) == 0


def test_arguments_that_the_store_does_not_take_are_an_error():
    """Passed over, they would do nothing without a word."""
    manager, store = stores()[0]
    with pytest.raises(InvalidInputError, match="unknown option: vector_field"):
        index(
            documents([("a", "1")]),
            manager,
            store,
            key_encoder="sha256",
            upsert_kwargs={"vector_field": "embedding"},
        )
    assert len(store) == 0
