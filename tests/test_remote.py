"""RemoteScorer against a real server on the loopback device."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_server import Handler, Server, overlap, refusing, results, right, scoring_server

from rerank_plugins import RemoteScorer, Reranker
from rerank_plugins.errors import (
    InvalidInputError,
    RemoteError,
    RemoteResponseError,
    RemoteStatusError,
)
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.remote.protocols import (
    KNOWN,
    PROTOCOLS,
    read_scores,
    request_body,
    shards,
    to_logits,
)
from rerank_plugins.testing import ScorerConformance

PASSAGES = ["the museum opens at nine", "the museum", "opens", "nothing of it", "يفتح المتحف"]
QUERY = "when does the museum open"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers right."""
    with scoring_server() as running:
        yield running


def scorer_of(server: Server, protocol: Any = "tei", **options: Any) -> RemoteScorer:
    """A scorer that asks this server."""
    return RemoteScorer(server.url, protocol=protocol, **{"model": "tiny", **options})


def scored(scorer: RemoteScorer, query: str = QUERY, passages: list[str] = PASSAGES) -> list[float]:
    """Logits of the passages."""
    return scorer.score([(query, text) for text in passages], ScoreOptions()).logits.tolist()


class TestConformance(ScorerConformance):
    """The contract of every scorer, in each protocol."""

    @pytest.fixture(params=PROTOCOLS)
    def scorer(self, request: pytest.FixtureRequest, server: Server) -> RemoteScorer:
        """With requests of three passages, so that most lists need several."""
        return scorer_of(server, request.param, max_texts=3)


# What is sent.

EXPECTED = {
    "tei": ("/rerank", {"texts": ["a", "b"], "raw_scores": True, "truncate": True}),
    "cohere": ("/v2/rerank", {"documents": ["a", "b"], "model": "tiny", "top_n": 2}),
    "jina": ("/v1/rerank", {"documents": ["a", "b"], "top_n": 2, "return_documents": False}),
    "vllm": ("/v1/rerank", {"documents": ["a", "b"], "top_n": 2, "truncate_prompt_tokens": -1}),
    "infinity": ("/rerank", {"documents": ["a", "b"], "top_n": 2, "raw_scores": True}),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_has_the_form_of_its_protocol(protocol: str, server: Server) -> None:
    """Path, the field with the passages, and the model's name are the protocol's own."""
    scored(scorer_of(server, protocol), "q", ["a", "b"])
    path, fields = EXPECTED[protocol]
    (asked,) = server.asked
    assert asked.path == path
    assert asked.headers["content-type"] == "application/json"
    assert asked.body == {**asked.body, **fields, "query": "q", "model": "tiny"}
    assert ("texts" in asked.body) == (protocol == "tei")


def test_vllm_is_asked_for_logits_only_by_name(server: Server) -> None:
    """Old servers ignore the wish, and their probabilities would pass for logits."""
    scored(scorer_of(server, "vllm"))
    scored(scorer_of(server, "vllm", raw_scores=True))
    assert "use_activation" not in server.asked[0].body
    assert server.asked[1].body["use_activation"] is False


@pytest.mark.parametrize(
    ("given_url", "path"),
    [
        ("", "/v1/rerank"),
        ("/", "/v1/rerank"),
        ("/proxy", "/proxy/v1/rerank"),
        ("/v1", "/v1/rerank"),
        ("/v1/", "/v1/rerank"),
        ("/v2", "/v2/rerank"),
        ("/proxy/v1//", "/proxy/v1/rerank"),
        ("/v1/rerank/", "/v1/rerank"),
        ("/v1beta", "/v1beta/v1/rerank"),
        ("/v2/rerank", "/v2/rerank"),
        ("/rerank/", "/rerank"),
    ],
)
def test_a_url_may_have_a_path(given_url: str, path: str, server: Server) -> None:
    """A prefix goes before the protocol's path; a whole address is taken as it is."""
    scored(RemoteScorer(server.url + given_url, protocol="vllm"))
    assert server.asked[0].path == path


def test_texts_go_out_as_utf_8_and_not_as_escapes(server: Server) -> None:
    """Arabic in JSON escapes would be three times as long, and a limit in bytes is a limit."""
    scored(scorer_of(server), "م", ["ب" * 1000])
    assert server.asked[0].size < 2000 + 200
    assert server.asked[0].passages == ["ب" * 1000]


# Requests within limits, scores in their places.


def test_more_passages_than_the_server_takes_go_in_several_requests(server: Server) -> None:
    """TEI refuses 33 texts; each request has 32 at most, and every score finds its place."""
    passages = [f"the museum {'x ' * n}" for n in range(100)]
    expected = [overlap(QUERY, passage) for passage in passages]
    assert scored(scorer_of(server), QUERY, passages) == expected
    assert sorted(len(asked.passages) for asked in server.asked) == [4, 32, 32, 32]


def test_a_request_stays_below_the_limit_in_bytes(server: Server) -> None:
    """Bytes of the body, the query's and the braces' among them."""
    passages = [letter * 300 for letter in "abcdefghijklm"] + ["ط" * 150]
    scored(scorer_of(server, max_bytes=3000), "q" * 500, passages)
    assert len(server.asked) > 2
    assert max(asked.size for asked in server.asked) <= 3000
    assert sorted(text for asked in server.asked for text in asked.passages) == sorted(passages)


def test_a_passage_that_is_too_large_goes_alone(server: Server) -> None:
    """Whether it is too large is the server's to say; the others do not suffer."""
    scored(scorer_of(server, max_bytes=3000), "q", ["a", "b" * 5000, "c", "d"])
    assert sorted(len(asked.passages) for asked in server.asked) == [1, 1, 2]


def test_pairs_of_many_queries_are_sent_by_query_and_put_back(server: Server) -> None:
    """Queries may alternate; a pair that comes twice is sent once."""
    pairs = [(query, text) for text in PASSAGES for query in ("museum", "opens", "nine")]
    pairs += pairs[:4]
    logits = scorer_of(server).score(pairs, ScoreOptions()).logits
    assert logits.tolist() == [overlap(*pair) for pair in pairs]
    assert [asked.body["query"] for asked in server.asked].count("museum") == 1
    assert sum(len(asked.passages) for asked in server.asked) == 15


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=40)), max_size=40),
    st.integers(1, 7),
    st.integers(1000, 1400),
)
def test_shards_hold_every_pair_once_within_the_limits(
    pairs: list[tuple[str, str]], max_texts: int, max_bytes: int
) -> None:
    """Whatever the pairs: none lost, none doubled, no request over a limit unless it has one."""
    pairs = [(query, text.encode("utf-8", "replace").decode()) for query, text in pairs]
    made = list(shards(pairs, max_texts=max_texts, max_bytes=max_bytes))
    placed = {
        place: (shard.query, text)
        for shard in made
        for place, text in zip(shard.places, shard.passages, strict=True)
    }
    assert [placed[place] for place in range(len(pairs))] == pairs
    assert sum(len(shard.places) for shard in made) == len(pairs)
    for shard in made:
        assert 1 <= len(shard.passages) <= max_texts
        for protocol in KNOWN.values():
            size = len(request_body(protocol, shard, model="m" * 500, raw=True))
            assert size <= max_bytes or len(shard.passages) == 1


# Scores.


def test_probabilities_become_logits() -> None:
    """The sigmoid undone, and no infinity for a server that is quite sure."""
    logits = np.asarray([-20.0, -3.0, 0.0, 0.5, 10.0])
    back = to_logits(1 / (1 + np.exp(-logits)), raw=False)
    np.testing.assert_allclose(back, logits, atol=1e-6)
    ends = to_logits(np.asarray([0.0, 1e-300, 1.0]), raw=False)
    np.testing.assert_allclose(ends, [-36.7368, -36.7368, 36.7368], atol=1e-4)
    assert to_logits(logits, raw=True) is logits


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_probabilities_keep_their_order_as_logits(values: list[float]) -> None:
    """A larger probability never becomes a smaller logit."""
    logits = to_logits(np.sort(np.asarray(values)), raw=False)
    assert np.isfinite(logits).all()
    assert (np.diff(logits) >= 0).all()


def test_logits_where_probabilities_should_be_are_noticed(server: Server) -> None:
    """A server that gives logits to who expects probabilities is told apart, and named."""
    scorer = scorer_of(server, "jina")
    server.logit = overlap

    def raw(handler: Handler, asked: Any) -> None:
        asked.body["raw_scores"] = True
        right(handler, asked)

    server.always = raw
    with pytest.raises(RemoteResponseError, match="raw_scores=True"):
        scored(scorer)
    assert scored(scorer_of(server, "jina", raw_scores=True)) == [
        overlap(QUERY, passage) for passage in PASSAGES
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["index", "score", "relevance_score", "results", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(PROTOCOLS),
    st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
    st.integers(1, 3),
)
def test_any_answer_is_scores_or_one_named_error(protocol: str, body: bytes, count: int) -> None:
    """Nothing but RemoteResponseError comes out of whatever bytes a server sends."""
    try:
        scores = read_scores(KNOWN[protocol], body, count)
    except RemoteResponseError:
        return
    assert len(scores) == count
    assert np.isfinite(scores).all()


# The API key.

KEY = "sk-5up3r-5ecret"


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not into logs at their most talkative, descriptions, copies, or the error that echoes it."""
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    scorer = scorer_of(server, api_key_env="MY_KEY", retries=0)
    scored(scorer)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"

    def echo(handler: Handler, asked: Any) -> None:
        handler.send(json.dumps(asked.headers).encode(), status=500)

    server.always = echo
    with pytest.raises(RemoteStatusError, match=r"\[API key\]") as caught:
        scored(scorer)
    kept = pickle.dumps(scorer) + repr(vars(scorer)).encode()
    shown = f"{scorer!r} {scorer.describe()} {caught.value!r} {caught.value.__cause__!r} {kept!r}"
    assert KEY not in shown + caplog.text
    assert KEY not in "".join(str(vars(record)) for record in caplog.records)


def test_the_key_is_read_anew_for_each_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was changed in the environment is used from the next request on."""
    monkeypatch.setenv("MY_KEY", "first")
    scorer = scorer_of(server, api_key_env="MY_KEY")
    scored(scorer)
    monkeypatch.setenv("MY_KEY", " second\n")
    scored(scorer)
    assert [asked.headers["authorization"] for asked in server.asked] == [
        "Bearer first",
        "Bearer second",
    ]
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InvalidInputError, match="MY_KEY"):
        scored(scorer)


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP libraries put such a header's value into their message."""
    for bad in ("two\nlines-5ecret", "nön-äscii-5ecret"):
        monkeypatch.setenv("MY_KEY", bad)
        with pytest.raises(InvalidInputError, match="MY_KEY") as caught:
            scorer_of(server, api_key_env="MY_KEY")
        assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "variable"), [("cohere", "CO_API_KEY"), ("jina", "JINA_API_KEY")]
)
def test_services_have_a_usual_variable(
    protocol: str, variable: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used when it is set; servers of one's own get no service's key."""
    monkeypatch.setenv("CO_API_KEY", "cohere-key")
    monkeypatch.setenv("JINA_API_KEY", "jina-key")
    scored(scorer_of(server, protocol))
    scored(scorer_of(server, "tei"))
    monkeypatch.delenv(variable)
    scored(scorer_of(server, protocol))
    sent = [asked.headers.get("authorization") for asked in server.asked]
    assert sent == [f"Bearer {protocol}-key", None, None]


# Options.


@pytest.mark.parametrize(
    "options",
    [
        {"url": "localhost:8080"},
        {"url": "ftp://localhost"},
        {"url": "http://"},
        {"url": "http://host:99999"},
        {"url": "http://ho st"},
        {"url": "http://host\n"},
        {"url": "http://user:pass-5ecret@host"},
        {"url": "http://host/?key=pass-5ecret"},
        {"url": "http://host/#pass-5ecret"},
        {"url": None},
        {"protocol": "soap"},
        {"protocol": "cohere"},
        {"model": " "},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": True},
        {"retries": -1},
        {"concurrency": 0},
        {"max_texts": 0},
        {"max_bytes": 1.5},
        {"api_key_env": "A_VARIABLE_THAT_IS_NOT_SET"},
        {"api_key_env": ""},
        {"api_key_env": "sk-5ecret"},
        {"api_key_env": "jina_5ecret"},
        {"api_key_env": "A5ecretOf40CharactersMixedAsCoheresKeys1"},
        {"api_key": "5ecret"},
    ],
    ids=str,
)
def test_an_option_that_breaks_its_rule_is_named_at_once(options: dict[str, Any]) -> None:
    """Before any query, and without showing what may be a password."""
    url = options.pop("url", "http://localhost:8080")
    with pytest.raises(InvalidInputError) as caught:
        RemoteScorer(url, **options)
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "ours"),
    [("api_key", "api_key_env"), ("cohere_api_key", "api_key_env"), ("max_retries", "retries")],
)
def test_an_option_of_another_library_has_its_name_here(option: str, ours: str) -> None:
    """Keys above all: they are not passed as values here."""
    with pytest.raises(InvalidInputError, match=f"'{option}' .did you mean '{ours}'"):
        RemoteScorer("http://localhost:8080", **{option: "x"})


def test_windows_are_refused(server: Server) -> None:
    """What becomes of long passages is the server's business; a wish it would not hear is wrong."""
    with pytest.raises(InvalidInputError, match="long_passages"):
        Reranker(scorer_of(server), long_passages="max").rerank(QUERY, PASSAGES)
    assert Reranker(scorer_of(server), long_passages="truncate").rerank(QUERY, PASSAGES)


def test_the_name_is_the_models_or_the_servers(server: Server) -> None:
    """Rankings always say who scored."""
    assert scorer_of(server).name == "tiny"
    assert RemoteScorer("http://gpu-7:8080/").name == "tei at gpu-7:8080"


def test_without_httpx_the_error_names_the_extra() -> None:
    """Importing works, and what is missing is said when a scorer is made."""
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from rerank_plugins import RemoteScorer\n"
        "try: RemoteScorer('http://localhost')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingDependencyError")
    assert "rerank-plugins[remote]" in done.stdout


# Threads, coroutines, processes.


def test_connections_are_kept_and_shared(server: Server) -> None:
    """Calls in a row, from several threads and loops, do not each open a connection."""
    scorer = scorer_of(server, concurrency=1)
    for _ in range(10):
        scored(scorer)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(scored, scorer).result()
    asyncio.run(scorer.ascore([("q", "a")], ScoreOptions()))
    # One, but for pauses so long that a kept connection is no longer trusted.
    assert server.connections <= 5


def slow(handler: Handler, asked: Any) -> None:
    """The right answer, after a moment in which others can come."""
    handler.server_state.stopping.wait(0.02)
    right(handler, asked)


def test_sixty_four_threads_stay_within_the_concurrency(server: Server) -> None:
    """Each gets its own scores, and the server never sees more requests at a time than allowed."""
    server.always = slow
    scorer = scorer_of(server, concurrency=3)

    def one(number: int) -> bool:
        query = f"the museum number {number}"
        return scored(scorer, query) == [overlap(query, passage) for passage in PASSAGES]

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(one, range(128)))
    assert server.most == 3
    assert server.connections <= 3


async def test_a_thousand_coroutines_get_their_own_scores(server: Server) -> None:
    """Through the reranker's own async method, and through the scorer's."""
    reranker = Reranker(scorer_of(server), scale="logit")

    async def one(number: int) -> bool:
        query = f"the museum number {number}"
        expected = sorted((overlap(query, passage) for passage in PASSAGES), reverse=True)
        if number % 2:
            return (await reranker.arerank(query, PASSAGES)).scores == expected
        pairs = [(query, passage) for passage in PASSAGES]
        scores = await reranker.scorer.ascore(pairs, ScoreOptions())
        return sorted(scores.logits.tolist(), reverse=True) == expected

    assert all(await asyncio.gather(*map(one, range(1000))))


@pytest.mark.parametrize("cache", [None, 100])
async def test_as_many_coroutines_ask_at_once_as_the_concurrency_allows(
    server: Server, cache: int | None
) -> None:
    """No answer comes before the last of twenty requests has: a smaller pool would hang."""
    all_there = threading.Barrier(20)

    def together(handler: Handler, asked: Any) -> None:
        all_there.wait(timeout=60)
        right(handler, asked)

    server.always = together
    reranker = Reranker(scorer_of(server, concurrency=20), cache=cache)
    asked = [reranker.arerank(f"museum {number}", PASSAGES) for number in range(20)]
    rankings = await asyncio.gather(*asked)
    assert all(ranking.scale == "probability" for ranking in rankings)
    assert server.most == 20


async def test_cancelling_stops_the_request_and_leaves_the_scorer_usable(server: Server) -> None:
    """With one slot only, a request still running after its cancellation would block the next."""
    arrived = threading.Event()

    def hang(handler: Handler, asked: Any) -> None:
        arrived.set()
        handler.server_state.stopping.wait()

    server.script = [hang]
    scorer = scorer_of(server, concurrency=1)
    waiting = asyncio.ensure_future(scorer.ascore([("q", "a")], ScoreOptions()))
    await asyncio.get_running_loop().run_in_executor(None, arrived.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await scorer.ascore([("the museum", "museum")], ScoreOptions())).logits[0] == overlap(
        "the museum", "museum"
    )


def test_a_failed_request_ends_the_others_of_its_call(server: Server) -> None:
    """Once a part of a list cannot be had, the rest of it is not asked for."""
    server.always = lambda handler, asked: handler.send(b"{}", status=400)
    with pytest.raises(RemoteStatusError):
        scored(scorer_of(server, concurrency=1, max_texts=1), "q", list("abcdefghij"))
    assert len(server.asked) <= 2


def late_after(seconds: float, texts: int) -> Any:
    """A server that keeps requests of more than so many texts for so long."""

    def behaviour(handler: Handler, asked: Any) -> None:
        if len(asked.passages) > texts:
            handler.server_state.stopping.wait(seconds)
        right(handler, asked)

    return behaviour


def test_a_deadline_ends_the_requests_that_are_under_way(server: Server) -> None:
    """What came in time is ranked, the rest stays below in its order; nobody waits longer."""
    server.always = late_after(3, texts=1)
    reranker = Reranker(scorer_of(server, max_texts=2, timeout=30), deadline_ms=600)
    start = time.perf_counter()
    ranking = reranker.rerank(QUERY, [*PASSAGES[:2], "alone"])
    assert time.perf_counter() - start < 2.5
    assert ranking.scored == 1
    assert [ranked.source for ranked in ranking] == ["model", "first_stage", "first_stage"]
    assert [ranked.candidate.text for ranked in ranking][1:] == PASSAGES[:2]
    server.always = right
    assert reranker.rerank(QUERY, PASSAGES).scored == len(PASSAGES)


def test_a_server_that_hangs_costs_the_deadline_and_no_more(server: Server) -> None:
    """Nothing was scored: the ranking says so, in the first stage's order."""
    server.always = late_after(3, texts=0)
    reranker = Reranker(scorer_of(server, timeout=30, retries=5), deadline_ms=300)
    start = time.perf_counter()
    ranking = reranker.rerank(QUERY, PASSAGES)
    assert time.perf_counter() - start < 2.5
    assert "deadline of 300" in (ranking.error or "")
    assert [ranked.candidate.text for ranked in ranking] == PASSAGES


def test_a_refusal_under_a_deadline_is_an_error_and_no_lateness(server: Server) -> None:
    """What fails is not taken for what is late."""
    server.always = refusing(400)
    reranker = Reranker(scorer_of(server), deadline_ms=5000)
    with pytest.raises(RemoteStatusError):
        reranker.rerank(QUERY, PASSAGES)


def _in_child(scorer: RemoteScorer, answer: Any) -> None:
    answer.put(scored(scorer))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_use_the_scorer_too(method: str, server: Server) -> None:
    """After a fork the parent's connections and thread are of no use; a spawn pickles it."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    scorer = scorer_of(server)
    expected = scored(scorer)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(scorer, answers))
    child.start()
    assert answers.get(timeout=60) == expected
    child.join()
    assert child.exitcode == 0
    assert scored(scorer) == expected


def test_a_copy_scores_alike(server: Server) -> None:
    """Frameworks copy their components."""
    scorer = scorer_of(server)
    expected = scored(scorer)
    assert scored(copy.copy(scorer)) == scored(copy.deepcopy(scorer)) == expected


def test_scorers_that_are_dropped_close_their_connections(server: Server) -> None:
    """Making one a request does not pile up sockets."""
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("counts open files in /proc")

    def sockets() -> int:
        scored(scorer_of(server))
        return len(list(open_files.iterdir()))

    before = max(sockets() for _ in range(5))
    after = [sockets() for _ in range(60)][-1]
    assert after <= before + 10


# Through the frameworks.


def test_it_reranks_inside_langchain(server: Server) -> None:
    """As the reranker of the compressor."""
    documents = pytest.importorskip("langchain_core.documents")
    from rerank_plugins.langchain import CrossEncoderCompressor

    compressor = CrossEncoderCompressor(reranker=Reranker(scorer_of(server), top_n=2))
    found = compressor.compress_documents(
        [documents.Document(text, id=text) for text in PASSAGES], "the museum opens"
    )
    assert [document.id for document in found] == [PASSAGES[0], PASSAGES[1]]
    assert found[0].metadata["rerank_model"] == "tiny"


def test_it_reranks_inside_llama_index(server: Server) -> None:
    """As the reranker of the postprocessor."""
    schema = pytest.importorskip("llama_index.core.schema")
    from rerank_plugins.llama_index import CrossEncoderPostprocessor

    postprocessor = CrossEncoderPostprocessor(reranker=Reranker(scorer_of(server), top_n=2))
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=1.0) for text in PASSAGES]
    found = postprocessor.postprocess_nodes(nodes, query_str="the museum opens")
    assert [node.node.get_content() for node in found] == [PASSAGES[0], PASSAGES[1]]


def test_one_except_catches_whatever_a_server_does() -> None:
    """The four remote errors hang on RemoteError."""
    from rerank_plugins import errors

    names = [name for name in vars(errors) if name.startswith("Remote")]
    assert len(names) == 5
    assert all(issubclass(getattr(errors, name), RemoteError) for name in names)


def test_the_server_here_is_no_mirror(server: Server) -> None:
    """Its results come sorted by score, so that placing them by position would show."""
    scored(scorer_of(server))
    found = results(server, server.asked[0])
    assert [result["index"] for result in found] != list(range(len(PASSAGES)))
