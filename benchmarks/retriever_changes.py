"""What a change and a filter cost through both frameworks' BM25 retrievers.

For each size: milliseconds of processor time, median over the repeats, to add one document,
replace one and delete one; a query without a filter, with one on one of 50 values, and with an
ordering; and the seconds that the first filter takes, which indexes the field.

    python benchmarks/retriever_changes.py --data DIR --sizes 10000 100000 --out changes.json

DIR holds ``saudinewsnet-ar/train/corpus.jsonl.gz``; its texts are cut to 600 characters. Without
it, texts are made-up words. Past their number they are repeated with an added word. With
``--terms`` a repeated text is analyzed once, which builds a million in a tenth of the time::

    python benchmarks/retriever_changes.py --data DIR --sizes 1000000 --terms
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from first_stage_scale import lines


def texts(data: Path | None, count: int) -> Iterator[str]:
    """So many, all different."""
    source: list[str] = []
    if data is not None:
        corpus = lines(data / "saudinewsnet-ar" / "train" / "corpus.jsonl.gz")
        source = [record["text"][:600] for record in corpus]
    rng = random.Random(7)
    words = [f"word{number}" for number in range(20_000)]
    source = source or [" ".join(rng.choices(words, k=90)) for _ in range(5_000)]
    for number in range(count):
        yield (
            source[number % len(source)]
            if number < len(source)
            else f"{source[number % len(source)]}\n{words[number % len(words)]}"
        )


def remembering() -> Callable[[str], list[str]]:
    """Arabic's terms of a text, analyzed once, and the word added to it."""
    from rerank_plugins.first_stage.analysis import analyzer_for

    known = cache(analyzer_for("ar"))

    def analyze(text: str) -> list[str]:
        body, _, added = text.partition("\n")
        return [*known(body), added] if added else known(body)

    return analyze


def langchain(passages: list[str], **options: Any) -> dict[str, Callable[..., Any]]:
    """The doors of LangChain's retriever."""
    from langchain_core.documents import Document

    from rerank_plugins.langchain import BM25Retriever

    def documents(names: Any, some: Any) -> list[Document]:
        return [
            Document(id=str(name), page_content=text, metadata={"tenant": int(name) % 50})
            for name, text in zip(names, some, strict=True)
        ]

    found = documents(range(len(passages)), passages)
    retriever = BM25Retriever(documents=found, k=10, **options)
    return {
        "add": lambda name, text: retriever.add_documents(documents([name], [text])),
        "delete": lambda name: retriever.delete([str(name)]),
        "query": retriever.invoke,
        "equal": lambda query: retriever.invoke(query, filter={"tenant": 7}),
        "ordered": lambda query: retriever.invoke(query, filter={"tenant": {"$gte": 40}}),
    }


def llama_index(passages: list[str], **options: Any) -> dict[str, Callable[..., Any]]:
    """The doors of LlamaIndex's retriever."""
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import (
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )

    from rerank_plugins.llama_index import BM25Retriever

    def nodes(names: Any, some: Any) -> list[TextNode]:
        return [
            TextNode(
                id_=str(name),
                text=text,
                metadata={"tenant": int(name) % 50},
                excluded_embed_metadata_keys=["tenant"],
            )
            for name, text in zip(names, some, strict=True)
        ]

    def only(operator: FilterOperator, value: int) -> MetadataFilters:
        return MetadataFilters(
            filters=[MetadataFilter(key="tenant", operator=operator, value=value)]
        )

    found = nodes(range(len(passages)), passages)
    retriever = BM25Retriever(found, similarity_top_k=10, **options)
    equal, ordered = only(FilterOperator.EQ, 7), only(FilterOperator.GTE, 40)
    return {
        "add": lambda name, text: retriever.insert_nodes(nodes([name], [text])),
        "delete": lambda name: retriever.delete_nodes([str(name)]),
        "query": retriever.retrieve,
        "equal": lambda query: retriever.retrieve(query, filters=equal),
        "ordered": lambda query: retriever.retrieve(query, filters=ordered),
    }


FRAMEWORKS: dict[str, Callable[..., Any]] = {"langchain": langchain, "llama_index": llama_index}


def taken(call: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def row(
    framework: Callable[..., Any],
    data: Path | None,
    size: int,
    repeats: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    """One framework at one size."""
    passages = list(texts(data, size + repeats))
    start = time.process_time()
    doors = framework(passages[:size], **options)
    built = time.process_time() - start
    rng = random.Random(3)
    queries = [" ".join(rng.choice(passages).split()[5:9]) or "word1" for _ in range(repeats)]
    doors["query"](queries[0])
    first = taken(lambda: doors["equal"](queries[0]))
    # In turns, so that a busy machine slows all of them alike.
    times: dict[str, list[float]] = {name: [] for name in ("query", "equal", "ordered")}
    for query in queries:
        for name, measured in times.items():
            measured.append(taken(lambda name=name, query=query: doors[name](query)))  # type: ignore[misc]
    changes: dict[str, list[float]] = {"add": [], "replace": [], "delete": []}
    for number in range(repeats):
        text = passages[size + number]
        changes["add"].append(taken(lambda n=number, t=text: doors["add"](size + n, t)))  # type: ignore[misc]
        changes["replace"].append(taken(lambda n=number, t=text: doors["add"](n * 3, t)))  # type: ignore[misc]
        changes["delete"].append(taken(lambda n=number: doors["delete"](n * 3 + 1)))  # type: ignore[misc]
    times |= changes
    extra = [a - b for a, b in zip(times["equal"], times["query"], strict=True)]
    return {
        "framework": framework.__name__,
        "documents": size,
        "build_seconds": round(built, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "first_filter_ms": round(first, 2),
        "filter_adds_ms": round(median(extra), 3),
        **{f"{name}_ms": round(median(some), 3) for name, some in times.items()},
        **{
            f"{name}_p95_ms": round(sorted(some)[int(0.95 * len(some))], 3)
            for name, some in changes.items()
        },
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--terms", action="store_true", help="analyze repeated texts once")
    parser.add_argument("--frameworks", nargs="+", choices=list(FRAMEWORKS), default=[*FRAMEWORKS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    given = {"analyzer": remembering()} if options.terms else {}
    rows = []
    for size in options.sizes:
        for name in options.frameworks:
            rows.append(row(FRAMEWORKS[name], options.data, size, options.repeats, given))
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
