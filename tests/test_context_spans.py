"""Contexts of parts: the sentences around what a score comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rerank_plugins import Candidate, ContextBuilder, Ranked, load_reranker
from rerank_plugins.context import ContextPassage
from rerank_plugins.errors import InvalidInputError

TEXT = "The first one. The second one is here. The third one. And the fourth."


def built(span: tuple[int, int] | None, text: str = TEXT, **options: object) -> object:
    """The context of one passage."""
    return ContextBuilder(passages="spans", **options).build([ContextPassage(text, span=span)])


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        ("second", "second", "[…] The second one is here. […]"),
        ("is here", "The third", "[…] The second one is here. The third one. […]"),
        ("The first", "one", "The first one. […]"),
        ("fourth", "fourth.", "[…] And the fourth."),
        ("The first", "fourth.", TEXT),
    ],
)
def test_whole_sentences_around_the_span_go_in(start: str, end: str, part: str) -> None:
    """What is left out is marked on its side."""
    first = TEXT.index(start)
    context = built((first, TEXT.index(end, first) + len(end)))
    assert context.passages[0].text == part
    assert context.passages[0].cut == (part != TEXT)
    assert part in context.text


@pytest.mark.parametrize("span", [None, (5, 5), (-1, -1), (3, 1000)])
def test_without_a_usable_span_the_passage_goes_in_whole(span: tuple[int, int] | None) -> None:
    """As it does by default."""
    assert built(span).passages[0].text == TEXT
    whole = ContextBuilder().build([ContextPassage(TEXT, span=(0, 3))])
    assert whole.passages[0].text == TEXT


def test_the_same_budget_holds_more_passages() -> None:
    """That is what it is for."""
    filler = "Something else is said here as well. " * 12
    passages = [ContextPassage(f"{filler}Answer {n}. {filler}") for n in range(6)]
    spans = [
        ContextPassage(p.text, span=(p.text.index("Answer"), p.text.index("Answer") + 8))
        for p in passages
    ]
    whole = ContextBuilder(max_tokens=300).build(spans)
    parts = ContextBuilder(max_tokens=300, passages="spans").build(spans)
    assert len(parts.passages) == 6 > len(whole.passages)
    assert parts.tokens <= 300
    assert all(f"Answer {n}." in parts.text for n in range(6))


def test_a_part_that_does_not_fit_is_cut_after_a_sentence() -> None:
    """The best one alone, within the budget."""
    text = "One two three four five. " * 20 + "The end."
    context = built((30, 400), text, max_tokens=40)
    assert context.passages[0].text.startswith("[…] One")
    assert context.passages[0].text.endswith("five. […]")
    assert context.tokens <= 40


def test_a_ranking_brings_its_spans(tiny_checkpoints: Mapping[str, Path]) -> None:
    """From the model's windows to the prompt."""
    reranker = load_reranker(
        tiny_checkpoints["bge"], max_length=48, long_passages="max", precision="fp32"
    )
    text = " ".join(f"Sentence number {n} is here." for n in range(40))
    ranking = reranker.rerank("number", [text])
    context = ContextBuilder(passages="spans").build(ranking)
    start, end = ranking[0].span
    assert text[start:end] in context.text
    assert len(context.text) < len(text) / 2
    ranked = Ranked(Candidate(0, text), 0.5, 0.0, 1)
    assert ContextBuilder(passages="spans").build([ranked]).passages[0].text == text


def test_an_unknown_way_is_named() -> None:
    """At once."""
    with pytest.raises(InvalidInputError, match="passages must be one of"):
        ContextBuilder(passages="parts")


def test_langchain_s_documents_bring_their_spans() -> None:
    """As the compressor stamped them; an invalid span is ignored."""
    from langchain_core.documents import Document

    from rerank_plugins.langchain.context import pack_context

    first = TEXT.index("second")
    builder = ContextBuilder(passages="spans")
    stamped = Document(TEXT, metadata={"relevance_span": [first, first + 6]})
    assert "[…] The second one is here. […]" in pack_context([stamped], builder=builder).text
    for wrong in ("x", [1], [None, 3], {"a": 1}):
        other = Document(TEXT, metadata={"relevance_span": wrong})
        assert TEXT in pack_context([other], builder=builder).text


def test_spans_count_in_the_document_where_metadata_is_scored_too(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """The title in front of the text is not part of it."""
    from langchain_core.documents import Document

    from rerank_plugins.langchain import CrossEncoderCompressor

    text = " ".join(f"Sentence number {n} is here." for n in range(40))
    reranker = load_reranker(
        tiny_checkpoints["bge"], max_length=48, long_passages="max", precision="fp32"
    )
    plain, titled = (
        CrossEncoderCompressor(reranker=reranker, metadata_fields=fields)
        for fields in ((), ("title",))
    )
    for title in ("A title", "number " * 60):
        document = Document(text, metadata={"title": title})
        for compressor in (plain, titled):
            (found,) = compressor.compress_documents([document], "number")
            span = found.metadata.get("relevance_span")
            if span is None:
                assert title != "A title"
                continue
            assert 0 <= span[0] < span[1] <= len(text)


@pytest.mark.parametrize(
    ("content", "text", "span", "expected"),
    [
        ("abc def", "abc def", (4, 7), [4, 7]),
        ("abc def", "title\nabc def", (6, 9), [0, 3]),
        ("abc def", "title\nabc def", (3, 9), [0, 3]),
        ("abc def", "title\nabc def", (0, 5), None),
        (" abc def\n", "title\nabc def", (10, 13), [5, 8]),
        (" abc def\n", "abc def", (0, 3), [1, 4]),
        ("abc", "something else", (0, 3), None),
    ],
)
def test_a_span_of_the_scored_text_is_moved_into_the_document(
    content: str, text: str, span: tuple[int, int], expected: list[int] | None
) -> None:
    """Behind metadata, stripped or not; none where it holds metadata alone."""
    from rerank_plugins._adapters import _span_of

    assert _span_of(Ranked(Candidate(0, text), 0.5, 0.0, 1, span=span), content) == expected
