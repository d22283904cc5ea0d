"""Random inputs for every public entry: only the library's own errors may come out.

``python tests/faults/campaign.py --inputs 100000`` shares the inputs out over the targets
below, prints a line of JSON a target, and ends with 1 when one of them failed. The tests run
the same targets with few inputs.

Each input has a time limit. While it runs, nothing may be executed that came with it: what
Python audits is watched for unpickled names, new processes, code of checkpoints, connections
that leave this machine, and files written outside the folder of the trial.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import hashlib
import io
import json
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any
from unittest import mock

if __name__ == "__main__":  # as tests/conftest.py does for the suite
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.path.insert(0, str(Path(__file__).parents[2]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import hypothesis
import numpy as np
from hypothesis import strategies as st
from pydantic import ValidationError

from rerank_plugins import Cascade, ContextBuilder, Reranker, ScoreCache, load_reranker
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import RerankPluginsError
from rerank_plugins.first_stage import BM25, Dense, Hybrid, _dense_segments, storage
from rerank_plugins.testing import OverlapScorer

SECONDS_AN_INPUT = 60.0  # on busy cores; what hangs, hangs for longer

# Values.

SOME_WORDS = ("museum", "opens", "at nine", "متحف", "يَفْتَحُ", "musée", "muzeum", "l'été", "9", "🏛️")
ODD_VALUES = (
    0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.0, math.nan, math.inf, "auto", "", "../x", "a\0b",
    np.float32("nan"), np.int64(3), np.bool_(True), np.str_("x"), np.float64(0.5),
    np.array([1.0, 2.0]), np.array([]), np.array([[1]]), np.array(["a"]), np.array(None),
    object(), type, (), {1}, 1j, b"", b"\xff",
)  # fmt: skip
REALS = (0.0, -0.0, 0.5, 1.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, -1e308)
PLANES = ((0, 0x7F), (0, 0x7F), (0x600, 0x6FF), (0xA0, 0x2FF), (0x2000, 0x206F), (0, 0x10FFFF))


class Draw:
    """Draws values; the same ones for the same seed.

    From one seed of Hypothesis's, because drawing every value from it takes a hundred times
    as long, and a failure is told by its seed well enough.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def one(self, values: Sequence[Any]) -> Any:
        """One of them."""
        return values[self.whole(0, len(values) - 1)]

    def yes(self, one_in: int = 2) -> bool:
        """True that often."""
        return self.random.random() * one_in < 1

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.random.random() * (high - low + 1))

    def real(self, low: float, high: float) -> float:
        """A number in that range."""
        return self.random.uniform(low, high)

    def any_real(self) -> float:
        """Any number, and other values."""
        return self.one(REALS) if self.yes() else self.real(-10, 10)

    def characters(self, most: int) -> str:
        """Of all of Unicode, lone surrogates and controls among them."""
        low, high = self.one(PLANES)
        return "".join(chr(self.whole(low, high)) for _ in range(self.whole(0, most)))

    def plain(self) -> str:
        """A few words."""
        return " ".join(self.one(SOME_WORDS) for _ in range(self.whole(1, 8)))

    def text(self) -> str:
        """Words, or anything."""
        return self.plain() if self.yes() else self.characters(40)

    def simple(self) -> Any:
        """What JSON calls a value, but for lists and objects."""
        return self.one(
            (None, True, False, self.whole(-9, 99), self.any_real(), self.characters(6))
        )

    def odd(self) -> Any:
        """Of any type."""
        kind = self.whole(0, 5)
        if kind == 0:
            return [self.simple() for _ in range(self.whole(0, 3))]
        if kind == 1:
            return {self.characters(3): self.simple() for _ in range(self.whole(0, 2))}
        return self.simple() if kind == 2 else self.one(ODD_VALUES)

    def json(self, depth: int = 2) -> Any:
        """A JSON value."""
        kind = self.whole(0, 4)
        if depth and kind == 0:
            return self.many(lambda: self.json(depth - 1), 3)
        if depth and kind == 1:
            return {self.characters(4): self.json(depth - 1) for _ in range(self.whole(0, 3))}
        return self.one(("../x", "/etc/passwd", 10**30, -(2**63), 2**31, [], {}, self.simple()))

    def content(self, most: int) -> bytes:
        """Bytes."""
        return self.random.randbytes(self.whole(0, most))

    def many(self, make: Callable[[], Any], most: int) -> list[Any]:
        """A list of them, perhaps empty."""
        return [make() for _ in range(self.whole(0, most))]

    def mostly(self, make: Callable[[], Any], one_in: int = 10) -> Any:
        """The usual, and now and then something of any type."""
        return self.odd() if self.yes(one_in) else make()

    def some(self, **makes: Callable[[], Any]) -> dict[str, Any]:
        """Options: each may be missing, or something odd."""
        return {name: self.mostly(make) for name, make in makes.items() if self.yes(3)}

    def count(self) -> int:
        """How many to ask for."""
        return self.whole(0, 12)

    def query(self) -> Any:
        """Occasionally something other than text."""
        return self.mostly(self.text, 20)

    def candidate(self) -> Candidate:
        """With scores, ranks and keys that need not make sense."""
        return Candidate(
            key=self.mostly(lambda: self.whole(-3, 20), 20),
            text=self.mostly(self.text, 30),
            score=self.mostly(lambda: self.one((None, self.real(-100, 100))), 20),
            rank=self.mostly(lambda: self.whole(1, 20), 30),
        )

    def passages(self) -> Any:
        """What is to be reranked."""
        one = self.candidate if self.yes() else self.text
        return self.mostly(lambda: self.many(lambda: self.mostly(one, 40), 8), 20)

    def texts(self, most: int = 8) -> Any:
        """What is to be indexed."""
        return self.mostly(lambda: self.many(lambda: self.mostly(self.text, 40), most), 25)

    def metadata(self) -> dict[str, Any]:
        """Of a document, with names that mean something to the adapters."""
        names = ("retrieval_score", "retrieval_rank", "relevance_score", "title", "n")
        return {
            self.one(names): self.one((self.simple(), [self.simple()]))
            for _ in range(self.whole(0, 3))
        }

    def reranker_options(self) -> dict[str, Any]:
        """Of `Reranker`."""
        return self.some(
            top_n=self.count,
            score_threshold=lambda: self.real(-5, 5),
            scale=lambda: self.one(("probability", "logit")),
            deduplicate=self.yes,
            long_passages=lambda: self.one(("truncate", "max", "mean", "first")),
            batch_tokens=lambda: self.whole(1, 9999),
            first_stage_weight=lambda: self.real(0, 1),
            on_error=lambda: self.one(("raise", "first_stage")),
            deadline_ms=lambda: self.real(1, 1e6),
        )

    def call_options(self) -> dict[str, Any]:
        """Of one call of `Reranker.rerank`."""
        return self.some(
            top_n=self.count,
            score_threshold=lambda: self.real(-5, 5),
            deadline_ms=lambda: self.one((self.real(1, 1e6), math.inf)),
        )


@contextlib.contextmanager
def ours(*also: type[Exception]) -> Iterator[None]:
    """Errors of the library are answers; those of a framework's own field checks may be."""
    with contextlib.suppress(RerankPluginsError, *also):
        yield


# What is made once and used by many inputs.


LANGUAGES = ("auto", "ar", "fr", "pl", "en", "neutral")
CHECKPOINTS = ("bge", "rstar", "two_labels")
DETAILS = ("relevance_scale", "rerank_rank", "retrieval_score")


OVERLAP = Reranker(OverlapScorer())


class Bench:
    """A folder for files, and indexes and checkpoints to damage."""

    def __init__(self, folder: Path, checkpoints: Any) -> None:
        self.folder = folder
        self.checkpoints = checkpoints
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made under that name."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def fresh(self) -> Path:
        """An empty folder."""
        path = self.folder / "fresh"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def embed(given: list[str]) -> Any:
    """Vectors that the text alone decides."""
    return np.asarray([np.random.default_rng(len(text)).normal(size=4) for text in given])


# The targets: the core.


def sound(ranking: Ranking) -> None:
    """Finite, falling, ranks from 1, and ready for JSON."""
    assert all(math.isfinite(score) for score in ranking.scores)
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert [item.rank for item in ranking] == list(range(1, len(ranking) + 1))
    assert len(ranking) <= ranking.candidates
    assert ranking[:2].keys == ranking.keys[:2]


def rerank(draw: Draw, bench: Bench) -> None:
    """`Reranker`: its options, queries and passages."""
    with ours():
        reranker = Reranker(OverlapScorer(), **draw.reranker_options())
        query, passages = draw.query(), draw.passages()
        ranking = reranker.rerank(query, passages, **draw.call_options())
        sound(ranking)
        assert set(ranking.texts) <= {getattr(one, "text", one) for one in passages}


def rerank_many(draw: Draw, bench: Bench) -> None:
    """`Reranker.rerank_many`, and a cascade in its place."""
    with ours():
        reranker = Reranker(OverlapScorer(), **draw.reranker_options())
        if draw.yes():
            small = Reranker(OverlapScorer("small"), **draw.some(scale=lambda: "logit"))
            reranker = Cascade(small, reranker, head=draw.mostly(lambda: draw.whole(1, 5)))
        queries = draw.mostly(lambda: draw.many(draw.query, 3), 20)
        lists = draw.mostly(lambda: draw.many(draw.passages, 3), 20)
        for ranking in reranker.rerank_many(queries, lists, **draw.call_options()):
            sound(ranking)


def wrong_scorers(draw: Draw, bench: Bench) -> None:
    """Scorers that answer nonsense: an error or, when asked for, the first stage's order."""
    from scorers import AnsweringScorer

    logits = draw.one((draw.many(draw.any_real, 4), [draw.real(-5, 5), 0.5], draw.odd()))
    with ours():
        scorer = AnsweringScorer(logits, draw.mostly(lambda: [False, False]))
        on_error = draw.one(("raise", "first_stage"))
        ranking = Reranker(scorer, on_error=on_error).rerank("q", ["a", "b"])
        sound(ranking)
        assert len(ranking) == 2


def cache(draw: Draw, bench: Bench) -> None:
    """`ScoreCache` in memory and on files of any content: scores are right or refused."""
    path = bench.folder / "cache" / "scores.sqlite"
    path.parent.mkdir(exist_ok=True)

    def whole() -> bytes:
        made = bench.fresh() / "scores.sqlite"
        scorer = CachedScorer(OverlapScorer(), made, identity="x")
        Reranker(scorer).rerank("museum opens", ["a museum", "opens", "nine"])
        del scorer
        return made.read_bytes()

    from rerank_plugins.scoring.cache import CachedScorer

    with ours():
        if draw.yes():
            scorer = CachedScorer(OverlapScorer(), draw.mostly(lambda: draw.whole(1, 9), 3))
        else:
            for name in ("scores.sqlite", "scores.sqlite-wal", "scores.sqlite-shm"):
                (path.parent / name).unlink(missing_ok=True)
            path.write_bytes(damaged(draw, bench.once("cache", whole)))
            given = ScoreCache(draw.mostly(lambda: draw.whole(1, 9)), path=path)
            scorer = CachedScorer(OverlapScorer(), given, identity="x")
        found = Reranker(scorer).rerank("museum opens", ["a museum", "opens", "nine"])
        expected = Reranker(OverlapScorer()).rerank("museum opens", ["a museum", "opens", "nine"])
        assert found.scores == expected.scores


def context(draw: Draw, bench: Bench) -> None:
    """`ContextBuilder`: the budget holds."""

    def item() -> Any:
        if draw.yes():
            return draw.text()
        source, score = draw.one((None, draw.text())), draw.one((None, draw.any_real()))
        return draw.mostly(draw.text, 20), source, score

    with ours():
        builder = ContextBuilder(
            draw.mostly(lambda: draw.whole(0, 60)),
            **draw.some(
                count_tokens=lambda: lambda text: len(text.split()),
                min_score=lambda: draw.real(-1, 1),
                order=lambda: draw.one(("relevance", "edges")),
                near_duplicates=lambda: draw.real(0, 1),
                fence=draw.yes,
                strip_invisible=draw.yes,
            ),
        )
        built = builder.build(draw.mostly(lambda: draw.many(lambda: draw.mostly(item, 30), 6), 20))
        assert built.tokens <= built.max_tokens
        assert len(built.passages) + len(built.omitted) >= len(built.passages)
        json.dumps(built.to_dict())


def display(draw: Draw, bench: Bench) -> None:
    """What notebooks show: no text of a passage becomes markup."""
    mark = "<script>alert(1)</script>"
    with ours():
        ranking = Reranker(OverlapScorer()).rerank(
            draw.plain() + mark, [text + mark for text in draw.many(draw.text, 4)]
        )
        assert mark not in ranking._repr_html_()


def loading(draw: Draw, bench: Bench) -> None:
    """`load_reranker` by names and options of all kinds; no network."""
    names = ("bundled", "a/b", "../x/y", "~/x", "", ".", "/dev/null", "a/b/c", draw.text())
    with ours():
        reranker = load_reranker(
            draw.mostly(lambda: draw.one(names), 5),
            local_files_only=True,
            **draw.some(
                device=lambda: draw.one(("auto", "cpu", "cuda:99", "meta", "nowhere")),
                engine=lambda: draw.one(("auto", "torch", "openvino")),
                precision=lambda: draw.one(("auto", "fp32", "bf16", "fp16", "int8")),
                revision=lambda: draw.one(("main", "../..", "0" * 40, draw.text())),
                max_length=lambda: draw.whole(1, 9999),
                cache_folder=lambda: str(bench.folder / "hub"),
            ),
            **draw.reranker_options(),
        )
        if reranker.model != "bundled":
            reranker.describe()


# First stages.


def analysis(draw: Draw, bench: Bench) -> None:
    """Analyzers on any text."""
    from rerank_plugins.first_stage.analysis import analyzer_for

    with ours():
        language = draw.mostly(lambda: draw.one(LANGUAGES))
        analyzer = analyzer_for(language, texts=draw.many(draw.text, 4))
        text = draw.one((draw.characters(120), draw.text()))
        for terms in (analyzer(text), analyzer.query(text)):
            assert all(isinstance(term, str) and term for term in terms)


def change(draw: Draw, stage: Any, *, remove: bool = True) -> None:
    """Adds, removes and searches, in any order."""
    for _ in range(draw.whole(1, 4)):
        deed = draw.one(("add", "remove", "search", "masked"))
        with ours():
            if deed == "add":
                stage.add(draw.texts(3))
            elif deed == "remove" and remove:
                stage.remove(draw.mostly(lambda: draw.many(lambda: draw.whole(-1, 9), 3), 15))
            else:
                mask = None
                if deed == "masked":
                    size = stage.keys_given
                    bits = np.asarray([draw.yes() for _ in range(size)], dtype=np.bool_)
                    mask = draw.mostly(lambda bits=bits: bits, 5)
                count = draw.mostly(draw.count, 20)
                found = stage.search(draw.query(), count, mask=mask)
                assert len(found) <= count
                assert [one.rank for one in found] == list(range(1, len(found) + 1))
                scores = [one.score for one in found]
                assert scores == sorted(scores, reverse=True)
                assert len({one.key for one in found}) == len(found)


def bm25(draw: Draw, bench: Bench) -> None:
    """`BM25`: options, texts, changes, searches."""
    with ours():
        stage = BM25(
            draw.texts(),
            **draw.some(
                language=lambda: draw.one(LANGUAGES),
                engine=lambda: draw.one(("auto", "rank-bm25")),
                k1=lambda: draw.real(0, 5),
                b=lambda: draw.real(0, 1),
            ),
        )
        change(draw, stage)


def dense(draw: Draw, bench: Bench) -> None:
    """`Dense`: options, encoders that answer nonsense, changes, searches."""
    broken = draw.yes(10)

    def encode(given: list[str]) -> Any:
        if broken:
            return draw.one((draw.odd(), draw.many(lambda: draw.many(draw.any_real, 3), 3)))
        return embed(given)

    with ours():
        stage = Dense(
            draw.texts(),
            embed=object() if draw.yes(30) else encode,
            **draw.some(
                metric=lambda: draw.one(("cosine", "inner_product", "l2")),
                index=lambda: draw.one(("auto", "exact", "hnsw", "ivfpq")),
                batch_size=lambda: draw.whole(1, 9),
            ),
        )
        change(draw, stage)
        with ours():
            vector = draw.mostly(lambda: [draw.real(-9, 9) for _ in range(4)], 3)
            stage.search_by_vector(vector, draw.mostly(draw.count))


def hybrid(draw: Draw, bench: Bench) -> None:
    """`Hybrid`: options, changes, searches."""
    with ours():
        given = draw.many(draw.text, 6)
        stages: Any = [BM25(given), Dense(given, embed=embed)][: draw.whole(0, 2)]
        stage = Hybrid(
            draw.mostly(lambda: stages, 20),
            **draw.some(
                weights=lambda: draw.many(lambda: draw.real(-1, 5), 2),
                fusion=lambda: draw.one(("scores", "ranks")),
                rank_constant=lambda: draw.real(0, 100),
                candidates=lambda: draw.whole(1, 9),
            ),
        )
        change(draw, stage)


# The adapters.


def langchain_documents(draw: Draw, most: int = 6) -> Any:
    """Documents; seldom something else."""
    from langchain_core.documents import Document

    def one() -> Document:
        name = draw.one((None, "a", "b", "c"))
        return Document(page_content=draw.text(), metadata=draw.metadata(), id=name)

    return draw.mostly(lambda: draw.many(lambda: draw.mostly(one, 40), most), 25)


def langchain(draw: Draw, bench: Bench) -> None:
    """The compressor of LangChain, and its document forms."""
    from rerank_plugins.langchain import CrossEncoderCompressor, format_context, pack_context

    with ours(ValidationError):
        compressor = CrossEncoderCompressor(
            reranker=draw.one((OVERLAP,) * 30 + ("", "no/such", 3, [], object())),
            **draw.some(
                top_n=draw.count,
                score_threshold=lambda: draw.real(-5, 5),
                metadata_fields=lambda: draw.many(lambda: draw.one(("title", "n")), 2),
                details=lambda: draw.many(lambda: draw.one(DETAILS), 2),
            ),
        )
        given = langchain_documents(draw)
        query = draw.query()
        if draw.yes():
            out = compressor.compress_documents(given, query, **draw.some(top_n=draw.count))
            scores = [one.metadata["relevance_score"] for one in out]
            assert scores == sorted(scores, reverse=True)
            pack_context(out)
            format_context().invoke(out)
        else:
            compressor.rerank(given, query)


def embeddings() -> Any:
    """`embed` as LangChain's embeddings."""
    from langchain_core.embeddings import Embeddings

    class Ours(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embed(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return embed([text])[0].tolist()

    return Ours()


def langchain_retrievers(draw: Draw, bench: Bench) -> None:
    """The retrievers and the store of LangChain."""
    from rerank_plugins.langchain import (
        BM25Retriever,
        FaissVectorStore,
        HybridRetriever,
        RerankingRetriever,
    )

    with ours(ValidationError):
        given = langchain_documents(draw)
        which = draw.one(("bm25", "faiss", "hybrid", "reranking"))
        fields = draw.some(k=draw.count, filter=draw.metadata)
        retriever: Any
        if which == "faiss":
            store = FaissVectorStore.from_documents(given, embeddings())
            if draw.yes():
                store.delete(draw.mostly(lambda: draw.many(lambda: draw.one("abcd"), 2), 15))
            asked = draw.some(k=draw.count, filter=draw.metadata)
            retriever = store.as_retriever(search_kwargs=asked)
        else:
            retriever = BM25Retriever(documents=given, **fields)
            if draw.yes():
                retriever.add_documents(langchain_documents(draw, 2))
            if which == "hybrid":
                retriever = HybridRetriever(
                    retrievers=[retriever, retriever],
                    **draw.some(k=draw.count, candidates=draw.count),
                )
            elif which == "reranking":
                retriever = RerankingRetriever(
                    first_stage=retriever,
                    reranker=Reranker(OverlapScorer()),
                    **draw.some(k=draw.count, candidates=draw.count),
                )
        retriever.invoke(draw.query())


def nodes(draw: Draw, most: int = 6) -> Any:
    """Nodes; seldom something else."""
    from llama_index.core.schema import NodeWithScore, TextNode

    def one() -> NodeWithScore:
        node = TextNode(text=draw.text(), metadata=draw.metadata(), id_=draw.one("abcdefg"))
        return NodeWithScore(node=node, score=draw.one((None, draw.any_real())))

    return draw.mostly(lambda: draw.many(lambda: draw.mostly(one, 40), most), 25)


def llama_index(draw: Draw, bench: Bench) -> None:
    """The postprocessor of LlamaIndex."""
    from llama_index.core.schema import MetadataMode

    from rerank_plugins.llama_index import (
        CrossEncoderPostprocessor,
        format_context,
        pack_context,
    )

    with ours(ValidationError):
        postprocessor = CrossEncoderPostprocessor(
            reranker=draw.one((OVERLAP,) * 30 + ("", "no/such", 3, [], object())),
            **draw.some(
                top_n=draw.count,
                score_threshold=lambda: draw.real(-5, 5),
                metadata_mode=lambda: draw.one(list(MetadataMode)),
                details=lambda: draw.many(lambda: draw.one(DETAILS), 2),
            ),
        )
        given = nodes(draw)
        if not isinstance(given, list):
            return  # the framework reads it before we do
        out = postprocessor.postprocess_nodes(given, query_str=draw.query())
        scores = [one.score for one in out]
        assert scores == sorted(scores, reverse=True)
        format_context(out)
        pack_context(out)


def llama_index_retrievers(draw: Draw, bench: Bench) -> None:
    """The retrievers of LlamaIndex."""
    from rerank_plugins.llama_index import BM25Retriever, HybridRetriever, RerankingRetriever

    with ours(ValidationError):
        given = [getattr(one, "node", one) for one in listed(nodes(draw))]
        retriever: Any = BM25Retriever(given, **draw.some(similarity_top_k=draw.count))
        deed = draw.one(("search", "insert", "delete", "hybrid", "reranking"))
        if deed == "insert":
            retriever.insert_nodes([getattr(one, "node", one) for one in listed(nodes(draw, 2))])
        elif deed == "delete":
            retriever.delete_nodes(draw.many(lambda: draw.one("abcd"), 2))
        elif deed == "hybrid":
            retriever = HybridRetriever(
                [retriever, retriever],
                **draw.some(similarity_top_k=draw.count, candidates=draw.count),
            )
        elif deed == "reranking":
            retriever = RerankingRetriever(
                retriever,
                reranker=Reranker(OverlapScorer()),
                **draw.some(similarity_top_k=draw.count, candidates=draw.count),
            )
        query = draw.query()
        if isinstance(query, str):
            retriever.retrieve(query)


def listed(value: Any) -> list[Any]:
    """A list of it, unless it is one."""
    return value if isinstance(value, list) else [value]


# The command line, and files of data.


def command(draw: Draw, bench: Bench) -> None:
    """``rerank-plugins``: exit codes, whatever the arguments and the lines."""
    from rerank_plugins import cli
    from rerank_plugins.models import loading

    path = bench.folder / "corpus.jsonl"
    good = {"query": "museum", "passages": ["a museum", {"text": "nine"}], "text": "a museum"}
    lines = []
    for one in draw.many(lambda: draw.one((good, draw.json(), {"text": draw.text()})), 4):
        with contextlib.suppress(TypeError, ValueError):
            lines.append(json.dumps(one).encode("utf-8", "surrogatepass"))
    content = damaged(draw, b"\n".join(lines)) if draw.yes() else b"\n".join(lines)
    path.write_bytes(content)
    asked = draw.one(
        (
            ["rerank"],
            ["search", "--corpus", str(path), "--query", "museum"],
            ["search", "--corpus", str(path), "--query", "museum", "--json"],
            ["models", "--json"],
            ["evaluate", "--data", str(path)],
            [],
        )
    )
    words = ("--top-k", "--candidates", "--language", "ar", "0", "-1", "3", "--model", "bundled")
    asked = [*asked, *draw.many(lambda: draw.one((*words, draw.characters(5))), 2)]
    if "train" in asked or any(one.startswith(("--o", "--r")) for one in asked):
        return  # these write where they are told to
    out, real = io.StringIO(), loading.load_reranker
    stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    before = sys.stdin
    loading.load_reranker = lambda name="bundled", **options: (  # type: ignore[assignment]
        Reranker(OverlapScorer(), **options) if name == "bundled" else real(name, **options)
    )
    sys.stdin = stdin
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main(asked)
        assert code in (0, 1, 2, 3)
    except SystemExit as ended:  # argparse's way to refuse
        if ended.code not in (0, 2):
            raise AssertionError(ended.code) from ended
    finally:
        sys.stdin = before
        loading.load_reranker = real


def readers(draw: Draw, bench: Bench) -> None:
    """Question sets, judgements, runs and pairs, plain and packed, with damaged bytes."""
    from rerank_plugins.evaluation.data import read_pairs, read_qrels, read_run
    from rerank_plugins.training.data import read_question_set

    good = {
        "corpus.jsonl": b'{"_id": "p1", "text": "a museum"}\n{"id": "p2", "text": "nine"}\n',
        "queries.jsonl": b'{"_id": "q1", "text": "museum"}\n',
        "qrels.tsv": b"query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t0\n",
        "run.trec": b"q1 Q0 p1 1 0.5 x\nq1 Q0 p2 2 0.25 x\n",
        "pairs.jsonl": b'{"query": "q", "passage": "p", "label": 1}\n',
        "pairs.tsv": b"query\tpassage\tlabel\nq\tp\t1\nq\tx\t0\n",
        "pairs.csv": b'query,passage,label\nq,"p, a",1\n',
    }
    folder = bench.folder / "data"
    folder.mkdir(exist_ok=True)
    chosen = draw.one(sorted(good))
    packed = draw.yes()
    for name, content in good.items():
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.gz").unlink(missing_ok=True)
        if name == chosen:
            inner = damaged(draw, content) if draw.yes() else content
            whole = gzip.compress(inner, 1) if packed else inner
            (folder / (f"{name}.gz" if packed else name)).write_bytes(damaged(draw, whole))
        else:
            (folder / name).write_bytes(content)
    path = folder / (f"{chosen}.gz" if packed else chosen)
    with ours():
        if chosen == "run.trec":
            list(read_run(path))
        elif chosen.startswith("pairs"):
            read_pairs(path)
        elif chosen == "qrels.tsv" and packed:
            read_qrels(path)
        else:
            read_question_set(folder)


# Damage.


def damaged(draw: Draw, content: bytes) -> bytes:
    """Bits flipped, bytes cut off, put in, or replaced by digits and brackets; seldom nothing."""
    for _ in range(draw.whole(1, 3)):
        at = draw.whole(0, max(0, len(content) - 1))
        deed = draw.one(("flip", "cut", "insert", "digit", "repeat", "drop"))
        if deed == "flip" and content:
            changed = bytes([content[at] ^ (1 << draw.whole(0, 7))])
            content = content[:at] + changed + content[at + 1 :]
        elif deed == "cut":
            content = content[:at]
        elif deed == "insert":
            content = content[:at] + draw.content(6) + content[at:]
        elif deed == "digit":
            mark = draw.one((b"9", b"-", b"{", b"[", b'"', b"e9", b"null", b"\0"))
            content = content[:at] + mark + content[at + 1 :]
        elif deed == "repeat":
            content = content[:at] + content[at : at + 8] * 3 + content[at:]
        else:
            content = content[:at] + content[at + draw.whole(1, 9) :]
    return content


def data_files(path: Path) -> list[Path]:
    """The files that the manifest of an index names."""
    return sorted(file for folder in path.glob("data-*") for file in folder.iterdir())


def small_graph(given: list[str]) -> Dense:
    """A graph of so few vectors as otherwise are searched exactly."""
    with mock.patch.object(_dense_segments, "GRAPH_FROM", 0):
        return Dense(given, embed=embed, index="hnsw")


def saved_indexes(bench: Bench) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """An index of every kind that can be saved, and what loads it."""
    from langchain_core.documents import Document
    from llama_index.core.schema import TextNode

    from rerank_plugins import langchain, llama_index

    root = bench.folder / "saved"
    given = ["a museum opens", "at nine", "متحف", "", "a bus"]
    documents = [Document(page_content=text, metadata={"n": 1}) for text in given]
    fake = embeddings()
    made: dict[str, tuple[Any, Callable[[Path], Any]]] = {
        "bm25": (BM25(given), BM25.load),
        "rank-bm25": (BM25(given, engine="rank-bm25"), BM25.load),
        "dense": (Dense(given, embed=embed), lambda path: Dense.load(path, embed=embed)),
        "hnsw": (
            small_graph(given),
            lambda path: Dense.load(path, embed=embed),
        ),
        "hybrid": (
            Hybrid([BM25(given), Dense(given, embed=embed)]),
            lambda path: Hybrid.load(path, embed=embed),
        ),
        "langchain bm25": (
            langchain.BM25Retriever(documents=documents, filter={"n": 1}),
            langchain.BM25Retriever.load,
        ),
        "langchain faiss": (
            langchain.FaissVectorStore.from_documents(documents, fake),
            lambda path: langchain.FaissVectorStore.load(path, fake),
        ),
        "llama_index bm25": (
            llama_index.BM25Retriever([TextNode(text=text) for text in given]),
            llama_index.BM25Retriever.load,
        ),
    }
    for name, (index, _) in made.items():
        index.save(root / name)
    return {name: (root / name, load) for name, (_, load) in made.items()}


def search(index: Any) -> None:
    """Uses what was loaded."""
    if isinstance(index, (BM25, Dense, Hybrid)):
        index.search("museum nine", 3)
        index.add(["again"])
        index.remove([0])
        index.search("museum again", 3)
    elif hasattr(index, "retrieve"):
        index.retrieve("museum nine")
    elif hasattr(index, "invoke"):
        index.invoke("museum nine")
    else:
        index.similarity_search("museum nine", k=2)


def damaged_index(draw: Draw, bench: Bench) -> None:
    """A saved index with a damaged file: refused, and if it loads, unchanged."""
    from rerank_plugins.errors import StorageError

    indexes = bench.once("indexes", lambda: saved_indexes(bench))
    path, load = indexes[draw.one(sorted(indexes))]
    file = draw.one([path / "manifest.json", *data_files(path)])
    content = file.read_bytes()
    changed = damaged(draw, content)
    file.write_bytes(changed)
    try:
        load(path)
    except StorageError:
        assert changed != content
    else:
        assert changed == content, f"damage in {file.name} was not seen"
    finally:
        file.write_bytes(content)


def forged_index(draw: Draw, bench: Bench) -> None:
    """Damage with checksums that fit it, as an attacker makes it: our errors, or an index.

    Of faiss's own file this is not promised, so that stays.
    """
    indexes = bench.once("indexes", lambda: saved_indexes(bench))
    path, load = indexes[draw.one(sorted(indexes))]
    target = bench.fresh() / "index"
    shutil.copytree(path, target)
    manifest = json.loads((target / "manifest.json").read_bytes())
    del manifest["sha256"]
    if draw.yes():
        replace_a_value(draw, manifest)
    else:
        file = draw.one([one for one in data_files(target) if one.suffix != ".faiss"])
        changed = damaged(draw, file.read_bytes())
        file.write_bytes(changed)
        told = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
        manifest["files"][file.name] = told
    try:
        rendered = storage.rendered(manifest)
    except (ValueError, TypeError):
        return
    (target / "manifest.json").write_bytes(rendered)
    with ours():
        search(load(target))


def replace_a_value(draw: Draw, record: dict[str, Any]) -> None:
    """Somewhere in a JSON object, something else."""
    while record:
        name = draw.one(sorted(record))
        inner = record[name]
        if isinstance(inner, dict) and inner and draw.whole(0, 3):
            record = inner
            continue
        if draw.whole(0, 5):
            record[name] = draw.json()
        else:
            del record[name]
        return


def checkpoint(draw: Draw, bench: Bench) -> None:
    """Damaged config, tokenizer and weights of a checkpoint: refused, or it scores."""
    source = bench.checkpoints[draw.one(CHECKPOINTS)]
    target = bench.fresh() / "model"
    target.mkdir()
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    chosen = draw.one([*names, *names[:3]])
    for file in source.iterdir():
        if file.name == chosen:
            content = file.read_bytes()
            if file.suffix == ".json" and draw.yes():
                record = json.loads(content)
                replace_a_value(draw, record)
                with contextlib.suppress(ValueError, TypeError):
                    content = json.dumps(record).encode("utf-8", "surrogatepass")
            else:
                content = damaged(draw, content)
            (target / file.name).write_bytes(content)
        else:
            (target / file.name).symlink_to(file)
    with ours():
        ranking = load_reranker(target, device="cpu", engine="torch").rerank("museum", ["a", "b"])
        sound(ranking)


def remote_answer(draw: Draw, bench: Bench) -> None:
    """Answers of a scoring server: read right, or refused."""
    from rerank_plugins.errors import RemoteResponseError
    from rerank_plugins.scoring.remote.protocols import KNOWN, read_scores, to_logits

    name = draw.one(sorted(KNOWN))
    protocol = KNOWN[name]
    count = draw.whole(1, 4)
    given = [draw.real(0, 1) for _ in range(count)]
    found: Any = [{"index": at, protocol.score: score} for at, score in enumerate(given)]
    kind = draw.one(("right", "shuffled", "value", "bytes", "json"))
    if kind == "shuffled":
        draw.random.shuffle(found)
    if kind == "value":
        replace_a_value(draw, found[draw.whole(0, count - 1)])
    answer = draw.json() if kind == "json" else found
    if protocol.results is not None and kind != "json":
        answer = {protocol.results: answer}
    body = json.dumps(answer).encode("utf-8", "surrogatepass")
    if kind == "bytes":
        body = damaged(draw, body)
    try:
        scores = read_scores(protocol, body, count)
        assert len(scores) == count
        if kind in ("right", "shuffled"):
            assert scores == given
        assert np.isfinite(to_logits(np.asarray(scores), raw=draw.yes())).all()
    except RemoteResponseError:
        assert kind not in ("right", "shuffled")


def remote_server(draw: Draw, bench: Bench) -> None:
    """Answers over a real connection; a ranking is right or the first stage's."""
    from scoring_server import right, saying, scoring_server

    from rerank_plugins import RemoteScorer

    def start() -> tuple[Any, Any]:
        running = scoring_server()
        server = running.__enter__()
        bench.once("closing", list).append(running)
        return server, RemoteScorer(server.url, retries=0, timeout=20)

    server, scorer = bench.once("server", start)
    whole = b'[{"index": 1, "score": 0.5}, {"index": 0, "score": -0.5}]'
    body = damaged(draw, whole)
    server.script = [right if draw.whole(0, 5) == 0 else saying(body)]
    ranking = Reranker(scorer, on_error="first_stage").rerank("museum", ["a", "museum"])
    sound(ranking)
    assert len(ranking) == 2


Target = Callable[[Draw, Bench], object]


@dataclass(frozen=True)
class Share:
    """A target's share of a campaign's inputs: the slow ones have the smaller."""

    run: Target
    weight: float


TARGETS: dict[str, Share] = {
    "rerank": Share(rerank, 14),
    "rerank_many": Share(rerank_many, 8),
    "wrong_scorers": Share(wrong_scorers, 4),
    "cache": Share(cache, 3),
    "context": Share(context, 7),
    "display": Share(display, 2),
    "loading": Share(loading, 5),
    "analysis": Share(analysis, 10),
    "bm25": Share(bm25, 5),
    "dense": Share(dense, 5),
    "hybrid": Share(hybrid, 4),
    "langchain": Share(langchain, 4),
    "langchain_retrievers": Share(langchain_retrievers, 2),
    "llama_index": Share(llama_index, 4),
    "llama_index_retrievers": Share(llama_index_retrievers, 2),
    "command": Share(command, 4),
    "readers": Share(readers, 5),
    "damaged_index": Share(damaged_index, 5),
    "forged_index": Share(forged_index, 2),
    "checkpoint": Share(checkpoint, 0.8),
    "remote_answer": Share(remote_answer, 8),
    "remote_server": Share(remote_server, 1.2),
}


# Limits.


class TooLong(BaseException):
    """An input took longer than it may."""


class Executed(BaseException):
    """Something ran, or was written, that no input may cause."""


_watched: Path | None = None
_seen: list[str] = []
_FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
              "subprocess.Popen", "os.fork", "os.forkpty", "os.startfile", "pty.spawn"}  # fmt: skip


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in _FORBIDDEN:
        _seen.append(f"{event} {arguments!r:.200}")
    elif event == "import" and str(arguments[0]).startswith("transformers_modules"):
        _seen.append(f"code of a checkpoint: {arguments[0]}")
    elif event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            _seen.append(f"connection to {address!r}")
    elif event == "open" and _writes(arguments):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        inside = path.startswith((f"{_watched}{os.sep}", "/dev/"))
        if not inside and not {"__pycache__", ".hypothesis"} & set(Path(path).parts):
            _seen.append(f"written: {path}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if not isinstance(path, (str, bytes)):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


@contextlib.contextmanager
def limits(folder: Path) -> Iterator[Callable[[], None]]:
    """Gives a check to be called after each input: that nothing was executed.

    Within, a signal ends an input that takes too long in Python code; one that hangs in C ends
    the process, with a traceback.
    """
    global _watched  # noqa: PLW0603  (an audit hook stays for the life of the process)
    if not getattr(_audit, "hooked", False):
        sys.addaudithook(_audit)
        _audit.hooked = True  # type: ignore[attr-defined]
    in_main = threading.current_thread() is threading.main_thread()

    def ended(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"more than {SECONDS_AN_INPUT} s for one input")

    def check() -> None:
        if in_main:
            signal.setitimer(signal.ITIMER_REAL, SECONDS_AN_INPUT)
            faulthandler.dump_traceback_later(2 * SECONDS_AN_INPUT, exit=True)
        if _seen:
            told = list(_seen)
            _seen.clear()
            raise Executed(told)

    before = signal.signal(signal.SIGALRM, ended) if in_main else None
    _watched = Path(os.path.realpath(folder))
    try:
        check()
        yield check
        check()
    finally:
        _watched = None
        _seen.clear()
        if in_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            faulthandler.cancel_dump_traceback_later()


@dataclass
class Outcome:
    """What came of a target's inputs.

    Attributes:
        inputs: How many there were.
        failed: How many of them failed.
        failures: The seed of the first of each kind, by what happened and where.
    """

    inputs: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)


def fuzz(target: Target, bench: Bench, inputs: int, start: int = 0) -> Outcome:
    """Runs a target on so many inputs, however many of them fail.

    Args:
        target: One of `TARGETS`.
        bench: What it works on.
        inputs: How many.
        start: Other inputs for another number.
    """
    outcome = Outcome()

    @hypothesis.settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),  # a smaller seed does not mean a smaller input
    )
    @hypothesis.seed(start)
    @hypothesis.given(seed=st.integers(0, 2**64 - 1))
    def run(seed: int) -> None:
        outcome.inputs += 1
        try:
            target(Draw(seed), bench)
            check()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code does not derive from Exception
            outcome.failed += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            outcome.failures.setdefault(f"{type(error).__name__} at {place}: {error}"[:300], seed)

    with warnings.catch_warnings(), limits(bench.folder) as check:
        warnings.simplefilter("ignore")
        run()
    return outcome


@contextlib.contextmanager
def bench(checkpoints: Mapping[str, Path] | None = None) -> Iterator[Bench]:
    """A bench in a folder that goes away, and is meanwhile the one that names are looked up in."""
    from checkpoints import TinyCheckpoints

    before, kept = Path.cwd(), os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as name:
        made = Bench(Path(name), checkpoints or TinyCheckpoints(Path(name) / "checkpoints"))
        for one in CHECKPOINTS:  # made now: an input may write nothing elsewhere
            made.checkpoints[one]
        os.environ["XDG_CACHE_HOME"] = name  # where converted models are kept
        os.chdir(made.fresh().parent)
        try:
            yield made
        finally:
            os.chdir(before)
            os.environ.pop("XDG_CACHE_HOME")
            if kept is not None:
                os.environ["XDG_CACHE_HOME"] = kept
            for running in made.once("closing", list):
                running.__exit__(None, None, None)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="another number, other inputs")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), default=None)
    parser.add_argument("--seed", type=int, help="one input of the target in --only, again")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = options.only or list(TARGETS)
    whole = sum(TARGETS[one].weight for one in chosen)
    total = failed = 0
    with bench() as made:
        if options.seed is not None:
            TARGETS[chosen[0]].run(Draw(options.seed), made)
            return 0
        for one in chosen:
            inputs = math.ceil(options.inputs * TARGETS[one].weight / whole)
            begin = time.monotonic()
            outcome = fuzz(TARGETS[one].run, made, inputs, options.start)
            told = {"target": one, **asdict(outcome)}
            told["seconds"] = round(time.monotonic() - begin)
            sys.stdout.write(f"{json.dumps(told)}\n")
            sys.stdout.flush()
            total += outcome.inputs
            failed += outcome.failed
    told = {"inputs": total, "targets": len(chosen), "failed": failed}
    sys.stdout.write(f"{json.dumps(told)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
