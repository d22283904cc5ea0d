"""Candidate, Ranked and Ranking: the only records that pass between stages.

Framework objects (LangChain documents, LlamaIndex nodes) never enter the core: an adapter
converts them to candidates and maps results back by ``Candidate.key``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal, overload

from rerank_plugins._validation import check_iterable, text_of
from rerank_plugins.errors import InvalidInputError

Scale = Literal["probability", "logit", "first_stage"]
Source = Literal["model", "small_model", "first_stage"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that a first stage found.

    Attributes:
        key: Position in the input (or in the indexed corpus). Candidates are identified by key,
            so that passages with the same text or the same id cannot collide.
        text: The passage.
        score: First-stage score, higher is better; None if the first stage returned no score.
        rank: First-stage rank, from 1.
    """

    key: int
    text: str
    score: float | None = None
    rank: int = 1


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its position after reranking.

    Attributes:
        candidate: The first stage's candidate.
        score: Higher is better and always finite; on the scale that ``Ranking.scale`` names.
        logit: The model's output before activation and blending; None if the model did not
            score this candidate.
        rank: Rank after reranking, from 1.
        truncated: Whether the model read only part of the query or the passage.
        source: What decided the rank: the ``model``; the ``first_stage``, if the model failed and
            that fallback was requested, or a deadline passed; or the ``small_model`` of a
            cascade, if the large one did not score this candidate. A score that is not the
            model's merely continues the sequence of those above it.
        span: The part of the passage that the score comes from, ``text[start:end]``: the window
            that won, or what truncation left. None when the scorer does not say, or the model
            did not score this candidate.
    """

    candidate: Candidate
    score: float
    logit: float | None
    rank: int
    truncated: bool = False
    source: Source = "model"
    span: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Serializers such as msgpack give lists for tuples.
        if isinstance(self.span, list):
            object.__setattr__(self, "span", tuple(self.span))

    @property
    def text(self) -> str:
        """The passage."""
        return self.candidate.text

    def to_dict(self) -> dict[str, Any]:
        """Native Python types only, ready for JSON."""
        return {
            "key": int(self.candidate.key),
            "text": self.candidate.text,
            "score": self.score,
            "logit": self.logit,
            "rank": self.rank,
            "retrieval_score": None
            if self.candidate.score is None
            else float(self.candidate.score),
            "retrieval_rank": int(self.candidate.rank),
            "truncated": self.truncated,
            "source": self.source,
            "span": None if self.span is None else list(self.span),
        }


@dataclass(frozen=True, slots=True)
class Ranking(Sequence[Ranked]):
    """The reranked candidates of one query, best first.

    Iterates, indexes and slices like a tuple of `Ranked`; a slice is a Ranking again.

    Attributes:
        query: The query as given.
        items: Best first.
        model: Name of the scoring model.
        scale: ``probability`` (in [0, 1]), ``logit`` (unbounded), or ``first_stage`` if
            nothing was scored and the first-stage order was kept (score is then 1 / rank).
        candidates: Number of candidates received.
        truncated: Number of candidates that were truncated.
        deduplicated: Number of candidates dropped because an earlier one has the same text.
        scored: Number of candidates that the model scored; a deadline, a cascade or a failure
            leaves some out.
        first_stage_seconds: Wall time of the first stage; None if unknown.
        scoring_seconds: Wall time of scoring.
        error: Why scores are missing, if ``scale`` is ``first_stage``.
    """

    query: str
    items: tuple[Ranked, ...]
    model: str
    scale: Scale
    candidates: int
    truncated: int = 0
    deduplicated: int = 0
    scored: int = 0
    first_stage_seconds: float | None = None
    scoring_seconds: float = 0.0
    error: str | None = field(default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.items, tuple):
            object.__setattr__(self, "items", tuple(self.items))

    @overload
    def __getitem__(self, index: int) -> Ranked: ...
    @overload
    def __getitem__(self, index: slice) -> Ranking: ...
    def __getitem__(self, index: int | slice) -> Ranked | Ranking:
        """One ranked candidate, or a Ranking of some of them."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.items)

    def _repr_html_(self) -> str:
        """HTML for notebooks; see `rerank_plugins.display.ranking_html`."""
        # By name: records do not depend on the display package.
        html: str = import_module("rerank_plugins.display").ranking_html(self)
        return html

    @property
    def texts(self) -> list[str]:
        """The passages, best first."""
        return [item.text for item in self.items]

    @property
    def scores(self) -> list[float]:
        """The scores, best first."""
        return [item.score for item in self.items]

    @property
    def keys(self) -> list[int]:
        """The candidates' keys, best first."""
        return [item.candidate.key for item in self.items]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict a passage, best first, native Python types only."""
        return [item.to_dict() for item in self.items]

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Ranking:
        """The ranking that `to_dict` wrote, or `dataclasses.asdict`.

        LangGraph's checkpoints give the latter for a ranking in a state whose type they were
        not told (annotate it as `Ranking`, and they give the ranking).

        Raises:
            InvalidInputError: If a field is missing or unknown.
        """
        told = dict(given)
        try:
            items = [_ranked(one) for one in told.pop("results" if "results" in told else "items")]
            return cls(**told, items=tuple(items))
        except (AttributeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"a ranking must be a dict as Ranking.to_dict() gives it, but: {error!r}"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The whole ranking as native Python types, ready for JSON."""
        return {
            "query": self.query,
            "model": self.model,
            "scale": self.scale,
            "candidates": self.candidates,
            "truncated": self.truncated,
            "deduplicated": self.deduplicated,
            "scored": self.scored,
            "first_stage_seconds": self.first_stage_seconds,
            "scoring_seconds": self.scoring_seconds,
            "error": self.error,
            "results": self.to_dicts(),
        }


def _ranked(given: Mapping[str, Any]) -> Ranked:
    told = dict(given)
    if "candidate" in told:
        return Ranked(**{**told, "candidate": Candidate(**told["candidate"])})
    first = {name: told.pop(f"retrieval_{name}") for name in ("score", "rank")}
    candidate = Candidate(told.pop("key"), told.pop("text"), **first)
    return Ranked(candidate=candidate, **told)


def check_query(query: object) -> str:
    """The query, after checking that it is non-blank text.

    Raises:
        InvalidInputError: If it is not a string, or blank.
    """
    if not isinstance(query, str):
        raise InvalidInputError(f"query must be text, but got {type(query).__name__}")
    if not query.strip():
        raise InvalidInputError(f"query must not be blank, but got {query!r}")
    return query


def as_candidates(passages: Iterable[Candidate | str]) -> list[Candidate]:
    """Candidates from candidates or plain texts, in the order given.

    A text's key is its position and its rank the position from 1.

    Raises:
        InvalidInputError: If an element is neither, a candidate's text is not a string, or the
            argument is not iterable.
    """
    if isinstance(passages, str):
        raise InvalidInputError(
            "passages must be a list of texts or candidates, but got one string: put it in a list"
        )
    candidates = []
    for position, passage in enumerate(check_iterable("passages", passages)):
        if isinstance(passage, str):
            candidates.append(Candidate(position, passage, None, position + 1))
        elif isinstance(passage, Candidate) and isinstance(passage.text, str):
            candidates.append(passage)
        else:
            shown = passage.text if isinstance(passage, Candidate) else passage
            raise InvalidInputError(
                f"every passage must be text, but number {position} is {type(shown).__name__}"
                f"{text_of(shown)}"
            )
    return candidates
