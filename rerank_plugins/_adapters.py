"""What the adapters have in common: the reranker a user names, and the scores documents carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from rerank_plugins._names import check_options, own_options
from rerank_plugins._validation import check_count, check_iterable
from rerank_plugins.candidates import Ranked, Ranking
from rerank_plugins.context import ContextBuilder, ContextPassage
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models import loading
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.models.loading import ModelOptions
from rerank_plugins.reranking.reranker import Reranker

T = TypeVar("T")

RELEVANCE_SCORE: Final = "relevance_score"

Detail = Literal[
    "relevance_scale",
    "relevance_span",
    "retrieval_score",
    "retrieval_rank",
    "rerank_rank",
    "rerank_model",
]
DETAILS: Final[tuple[Detail, ...]] = get_args(Detail)


def as_reranker(
    owner: Callable[..., object],
    reranker: Any,
    model: str | Path,
    options: Mapping[str, Any],
) -> Reranker:
    """The reranker given, or one loaded by name.

    Args:
        owner: The class or function that was called; messages list its own parameters too.
        reranker: Whatever `loading.as_reranker` takes, or None for ``model``.
        model: A name that `load_reranker` takes.
        options: For `load_reranker`.

    Raises:
        InvalidInputError: ``reranker`` is something else, two models are named, an option is
            unknown, or options come beside a ready reranker, which has its own.
        UnknownModelError: If no model has that name.
    """
    check_options(owner.__name__, options, {*own_options(owner), *ModelOptions.__annotations__})
    if reranker is None:
        return loading.as_reranker(model, **options)
    if model != BUNDLED:
        raise InvalidInputError(
            f"reranker and model name two models: leave out one; model is {str(model)!r}"
        )
    return loading.as_reranker(reranker, **options)


def split_options(
    owner: type[Any],
    reranks: type[Any],
    options: dict[str, Any],
    *,
    fields: Iterable[str],
    ready: str | None,
) -> dict[str, Any]:
    """Takes the options of any retriever out of those of a retriever that reranks.

    Args:
        owner: The retriever that reranks.
        reranks: Whose options the others are.
        options: All that were given beside the owner's own; the others stay.
        fields: Options of any retriever of the framework.
        ready: Name of the option with a ready object of that class, if it is given.

    Raises:
        InvalidInputError: If an option is unknown, or stands beside a ready object.
    """
    known = {*own_options(owner), *own_options(reranks), *ModelOptions.__annotations__, *fields}
    check_options(owner.__name__, options, known)
    taken = {name: options.pop(name) for name in fields if name in options}
    if ready is not None and options:
        raise InvalidInputError(
            f"{', '.join(options)} cannot be given beside a ready {ready}: give them to the {ready}"
        )
    return taken


def context_builder(
    builder: ContextBuilder | None, options: Mapping[str, Any] | None = None
) -> ContextBuilder:
    """The builder given, or one with these options.

    Raises:
        InvalidInputError: If an option is invalid, or options come beside a builder.
    """
    if builder is None:
        check_options("ContextBuilder", options or (), own_options(ContextBuilder))
        return ContextBuilder(**(options or {}))
    if options:
        raise InvalidInputError(
            f"{', '.join(options)} cannot be given beside a ready builder: give them to the builder"
        )
    return builder


def context_passage(
    item: T,
    text: str,
    metadata: Mapping[str, Any],
    *,
    source: str | Callable[[T], object],
    score: float | None,
    content: str | None = None,
) -> ContextPassage:
    """A document or node as a context takes it.

    Args:
        item: The document or node.
        text: What goes into the context.
        metadata: Where rerankers left their details.
        source: What to cite it as: a metadata field, or a function of it.
        score: Counts if it is its model's.
        content: The part of the text that spans count from; None for all of it.
    """
    name = source(item) if callable(source) else metadata.get(source)
    span, place = relevance_span(metadata), 0 if content is None else place_of(content, text)
    judged = metadata.get("relevance_scale") not in ("first_stage", "small_model")
    return ContextPassage(
        text,
        None if name is None else str(name),
        score if judged else None,
        None if span is None or place is None else (max(0, span[0] + place), span[1] + place),
    )


def named(reranker: Reranker, top_n: int | None) -> list[tuple[str, object]]:
    """What the adapters show of themselves in ``repr``: model, engine, top_n."""
    return [
        ("model", reranker.model),
        ("engine", reranker.engine),
        ("top_n", reranker.top_n if top_n is None else top_n),
    ]


def one_count(name: str, count: object, top_n: object, default: int) -> int:
    """How many a retriever returns: by the framework's word, or by ``top_n``.

    Raises:
        InvalidInputError: If both are given, or it is not a whole number of at least 0.
    """
    if top_n is not None and count is not None:
        raise InvalidInputError(f"{name} and top_n mean the same: give one of them")
    given = count if top_n is None else top_n
    return check_count(name, default if given is None else given)


def blank(query: object) -> bool:
    """Whether a retriever has nothing to look for: agents call their tools with empty queries.

    Raises:
        InvalidInputError: If the query is not text.
    """
    if not isinstance(query, str):
        raise InvalidInputError(f"query must be text, but got {type(query).__name__}")
    return not query.strip()


def relevance_span(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """The characters that a document's score comes from, where a reranker left them."""
    span = metadata.get("relevance_span")
    if not isinstance(span, (list, tuple)) or len(span) != 2:
        return None
    start, end = span
    return (start, end) if isinstance(start, int) and isinstance(end, int) else None


def check_details(details: Iterable[str]) -> tuple[Detail, ...]:
    """The details, once each is sure to be known.

    Raises:
        InvalidInputError: If one is not.
    """
    given = [details] if isinstance(details, str) else list(check_iterable("details", details))
    known = all(isinstance(one, str) and one in DETAILS for one in given)
    if isinstance(details, str) or not known:
        raise InvalidInputError(f"details must be some of {list(DETAILS)}, but got {details!r}")
    return tuple(detail for detail in DETAILS if detail in given)


def place_of(content: str, text: str) -> int | None:
    """Where a document's own text begins in the text that was scored, behind its metadata.

    Negative where the scored text lacks the white space that the content begins with; None if
    the content is not there.
    """
    at = text.rfind(content.strip())
    return None if at < 0 else at - (len(content) - len(content.lstrip()))


def _span_of(item: Ranked, content: str) -> list[int] | None:
    """The characters of the content that the score comes from."""
    at = None if item.span is None else place_of(content, item.text)
    if item.span is None or at is None:
        return None
    start, end = max(0, item.span[0] - at), min(len(content), item.span[1] - at)
    return [start, end] if start < end else None


def score_metadata(
    item: Ranked, ranking: Ranking, details: Sequence[Detail], prefix: str, content: str
) -> dict[str, Any]:
    """What a reranked document carries: its relevance score and the details that are known.

    Native Python types only: documents go into JSON and into checkpoints.

    Args:
        item: The document's place and score.
        ranking: Of which it is one.
        details: Which are wanted.
        prefix: In front of their names.
        content: The document's own text, which spans count from; metadata may have been scored
            in front of it.
    """
    known: dict[Detail, Any] = {
        # A score that is not the model's only stands for a place: it is on no scale.
        "relevance_scale": ranking.scale if item.source == "model" else item.source,
        "relevance_span": _span_of(item, content),
        "retrieval_score": item.candidate.score,
        "retrieval_rank": item.candidate.rank,
        "rerank_rank": item.rank,
        "rerank_model": ranking.model,
    }
    written = {prefix + name: known[name] for name in details if known[name] is not None}
    return {RELEVANCE_SCORE: item.score, **written}
