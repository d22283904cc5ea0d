"""A real search server as the first stage: PostgreSQL's full-text search, then the reranker.

The retrievers here are what a user writes over his own database; the library knows nothing of
PostgreSQL. The server runs in a separate folder, on a Unix socket, for these tests alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import Candidate, load_reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.samples import SamplePassage, load_passages, load_questions

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

CONFIGURATIONS = {"ar": "arabic", "en": "english"}
PASSAGES = [passage for language in CONFIGURATIONS for passage in load_passages(language)]

SEARCH = """
SELECT id, body, metadata, ts_rank(words, wanted) AS score
FROM passages,
     -- any of the words, as a search engine does; plainto_tsquery alone wants all of them
     CAST(replace(CAST(plainto_tsquery(%(configuration)s, %(query)s) AS text), '&', '|')
          AS tsquery) AS wanted
WHERE words @@ wanted AND metadata @> %(filter)s
ORDER BY score DESC, id
LIMIT %(k)s
"""


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, which Debian keeps off the path."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def server_user() -> str | None:
    """Who runs the server, which refuses to be run by root; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A server with the sample passages in Arabic and English; gives what to connect to."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server programs are not installed (Debian: postgresql)")
    user = server_user()
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 107 bytes at most
    if user is not None:
        shutil.chown(home, user)

    def run(program: str, *arguments: str | Path) -> None:
        result = subprocess.run(
            [str(found / program), *map(str, arguments)],
            cwd=home,
            user=user,
            stdout=subprocess.DEVNULL,  # a pipe would stay open in the server
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if result.returncode:
            log = home / "log"
            told = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} ended with {result.returncode}: {told}")

    data = home / "data"
    try:
        run("initdb", "-D", data, "-U", "tests", "-E", "UTF8", "--locale=C", "-A", "trust", "-N")
        settings = f"-k {home} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        run("pg_ctl", "-D", data, "-l", home / "log", "-o", settings, "-w", "-t", "120", "start")
        try:
            address = f"host={home} user=tests dbname=postgres"
            fill(address)
            yield address
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def fill(address: str) -> None:
    """The table of passages, each analysed as its language wants."""
    with psycopg.connect(address) as connection:
        connection.execute(
            "CREATE TABLE passages (id text PRIMARY KEY, body text, metadata jsonb, words tsvector)"
        )
        connection.cursor().executemany(
            "INSERT INTO passages "
            "SELECT id, body, metadata, to_tsvector(configuration, body) "
            "FROM (VALUES (%s, %s, CAST(%s AS jsonb), CAST(%s AS regconfig))) "
            "AS new (id, body, metadata, configuration)",
            [
                (one.id, one.text, json.dumps(metadata(one)), CONFIGURATIONS[one.language])
                for one in PASSAGES
            ],
        )
        connection.execute("CREATE INDEX ON passages USING gin (words)")


def metadata(passage: SamplePassage) -> dict[str, Any]:
    """What is kept beside a passage."""
    return {"language": passage.language, "topic": passage.topic, "title": passage.title}


def search(address: str, query: str, k: int, wanted: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Id, text, metadata and score of what the server finds, best first."""
    language = "ar" if any("\u0600" <= letter <= "\u06ff" for letter in query) else "en"
    values = {"configuration": CONFIGURATIONS[language], "query": query, "k": k}
    with psycopg.connect(address) as connection:
        found = connection.execute(SEARCH, values | {"filter": json.dumps(wanted)})
        return found.fetchall()


def questions() -> list[Any]:
    """Two of each language."""
    return [one for language in CONFIGURATIONS for one in load_questions(language)[:2]]


def expected(address: str, query: str, k: int, keep: int, wanted: dict[str, Any]) -> list[str]:
    """Ids in the order that a Reranker gives, with no framework between it and the server."""
    rows = search(address, query, k, wanted)
    candidates = [
        Candidate(key=place, text=body, score=score, rank=place + 1)
        for place, (_, body, _, score) in enumerate(rows)
    ]
    return [rows[key][0] for key in load_reranker(top_n=keep).rerank(query, candidates).keys]


def test_the_server_knows_both_languages(database: str) -> None:
    """Inflected forms are found: the analysis is the language's, not ``simple``."""
    with psycopg.connect(database) as connection:
        (stem,) = connection.execute("SELECT to_tsvector('english', 'museums')").fetchone()
        assert stem == "'museum':1"
        (one,) = connection.execute("SELECT to_tsvector('arabic', 'المتاحف')").fetchone()
        (other,) = connection.execute("SELECT to_tsvector('arabic', 'متاحف')").fetchone()
        assert one == other
    for question in questions():
        assert search(database, question.text, 50, {}), question.text


class TestLangChain:
    """Through a retriever for LangChain."""

    @pytest.fixture
    def retriever(self, database: str) -> Any:
        """A retriever over the table, written as a user would."""
        core = pytest.importorskip("langchain_core.retrievers", reason="LangChain is absent")
        from langchain_core.documents import Document

        class PostgresRetriever(core.BaseRetriever):  # type: ignore[misc, name-defined]
            """Full-text search."""

            address: str
            k: int = 4

            def _get_relevant_documents(
                self,
                query: str,
                *,
                run_manager: Any,
                k: int | None = None,
                filter: dict[str, Any] | None = None,  # noqa: A002
            ) -> list[Document]:
                rows = search(self.address, query, self.k if k is None else k, filter or {})
                return [
                    Document(id=name, page_content=body, metadata=kept | {"retrieval_score": score})
                    for name, body, kept, score in rows
                ]

        return PostgresRetriever(address=database)

    def test_what_the_server_finds_is_reranked(self, retriever: Any, database: str) -> None:
        """The order is the reranker's; ids and metadata are the server's; async is the same."""
        from rerank_plugins.langchain import RerankingRetriever

        ours = RerankingRetriever(first_stage=retriever, k=5, candidates=10)
        kept = {one.id: metadata(one) for one in PASSAGES}
        moved = 0
        for question in questions():
            first = retriever.invoke(question.text, k=5)
            found = ours.invoke(question.text)
            order = expected(database, question.text, 10, 5, {})
            assert [one.id for one in found] == order
            moved += [one.id for one in found] != [one.id for one in first]
            for document in found:
                assert kept[document.id].items() <= document.metadata.items()
                assert 0.0 <= document.metadata["relevance_score"] <= 1.0
            later = asyncio.run(ours.ainvoke(question.text))
            assert [one.id for one in later] == [one.id for one in found]
        assert moved

    def test_a_filter_reaches_the_server_and_nothing_leaks(self, retriever: Any) -> None:
        """A filter of the call, and an unknown option refused and not dropped."""
        from rerank_plugins.langchain import RerankingRetriever

        ours = RerankingRetriever(first_stage=retriever, k=10, candidates=10)
        for question in questions():
            topic = ours.invoke(question.text)[-1].metadata["topic"]
            found = ours.invoke(question.text, filter={"topic": topic})
            assert found
            assert {one.metadata["topic"] for one in found} == {topic}
            assert ours.invoke(question.text, filter={"topic": "no such topic"}) == []
        with pytest.raises(InvalidInputError, match="takes no where"):
            ours.invoke(question.text, where={"topic": topic})


class TestLlamaIndex:
    """Through a retriever for LlamaIndex."""

    @pytest.fixture
    def make(self, database: str) -> Any:
        """Makes a retriever over the table, written as a user would."""
        core = pytest.importorskip("llama_index.core.retrievers", reason="LlamaIndex is absent")
        from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
        from llama_index.core.vector_stores import MetadataFilters

        class PostgresRetriever(core.BaseRetriever):  # type: ignore[misc, name-defined]
            """Full-text search; filters are equalities, all of which must hold."""

            def __init__(self, filters: MetadataFilters | None = None) -> None:
                self.similarity_top_k = 4
                self.filters = filters
                super().__init__()

            def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
                wanted = (
                    {one.key: one.value for one in self.filters.filters} if self.filters else {}
                )
                rows = search(database, query_bundle.query_str, self.similarity_top_k, wanted)
                return [
                    NodeWithScore(node=TextNode(id_=name, text=body, metadata=kept), score=score)
                    for name, body, kept, score in rows
                ]

        return PostgresRetriever

    def test_what_the_server_finds_is_reranked(self, make: Any, database: str) -> None:
        """The order is that of a Reranker on the same rows, first-stage scores blended in."""
        from llama_index.core.schema import MetadataMode

        from rerank_plugins.llama_index import RerankingRetriever

        ours = RerankingRetriever(
            make(), similarity_top_k=5, candidates=10, metadata_mode=MetadataMode.NONE
        )
        kept = {one.id: metadata(one) for one in PASSAGES}
        for question in questions():
            found = ours.retrieve(question.text)
            order = expected(database, question.text, 10, 5, {})
            assert [one.node_id for one in found] == order
            assert all(one.node.metadata.items() >= kept[one.node_id].items() for one in found)

    def test_a_filter_reaches_the_server_and_nothing_leaks(self, make: Any, database: str) -> None:
        """The first stage keeps its filters, also as a postprocessor's source."""
        from llama_index.core.schema import MetadataMode
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

        from rerank_plugins.llama_index import CrossEncoderPostprocessor, RerankingRetriever

        question = load_questions("ar")[0]
        topic = next(one.topic for one in PASSAGES if one.id in question.relevant)
        only = MetadataFilters(filters=[MetadataFilter(key="topic", value=topic)])
        found = RerankingRetriever(
            make(only), similarity_top_k=20, metadata_mode=MetadataMode.NONE
        ).retrieve(question.text)
        assert {one.node.metadata["topic"] for one in found} == {topic}
        order = expected(database, question.text, 50, 20, {"topic": topic})
        assert [one.node_id for one in found] == order
        first = make(only).retrieve(question.text)
        again = CrossEncoderPostprocessor(top_n=2).postprocess_nodes(first, query_str=question.text)
        assert {one.node_id for one in again} <= {one.node_id for one in first}
        assert len(again) == min(2, len(first))
