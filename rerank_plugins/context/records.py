"""What goes into a context and what comes out, and how other objects become passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from rerank_plugins._validation import check_iterable, check_number
from rerank_plugins.candidates import Ranked
from rerank_plugins.errors import InvalidInputError

Reason: TypeAlias = Literal["budget", "score", "duplicate", "empty"]


@dataclass(frozen=True, slots=True)
class ContextPassage:
    """A passage that may go into a context.

    Attributes:
        text: The passage.
        source: What to cite it as, such as a title or a file name; None when unknown.
        score: Higher is better; None when no model judged it.
        span: The characters that the score comes from, as `Ranked.span`; None when unknown.
    """

    text: str
    source: str | None = None
    score: float | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PackedPassage:
    """A passage that is in the context.

    Attributes:
        label: What the model can cite, such as ``[1]``.
        passage: As it came in.
        position: Its place in the input, from 0: how a caller finds its own object again.
        text: What of it is in the context: all but surrounding white space, or less if cut.
        cut: Whether only a part of it is there.
    """

    label: str
    passage: ContextPassage
    position: int
    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class OmittedPassage:
    """A passage that was left out.

    Attributes:
        passage: As it came in.
        position: Its place in the input, from 0.
        reason: ``score`` (below the minimum), ``duplicate`` (of one in the context),
            ``budget`` (it did not fit) or ``empty`` (nothing but white space).
    """

    passage: ContextPassage
    position: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Context:
    """Text for a prompt, and an account of every passage that came in.

    Attributes:
        text: Ready for the prompt; empty when nothing could go in.
        passages: What is in it, in the order of the text.
        omitted: What is not, in the order of the input.
        tokens: Tokens of ``text``, labels and separators included.
        max_tokens: The budget.
    """

    text: str
    passages: tuple[PackedPassage, ...]
    omitted: tuple[OmittedPassage, ...]
    tokens: int
    max_tokens: int

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Native Python types only, ready for JSON."""
        return {
            "text": self.text,
            "tokens": self.tokens,
            "max_tokens": self.max_tokens,
            "passages": [
                {
                    "label": packed.label,
                    "position": packed.position,
                    "source": packed.passage.source,
                    "score": packed.passage.score,
                    "text": packed.text,
                    "cut": packed.cut,
                }
                for packed in self.passages
            ],
            "omitted": [
                {
                    "position": left.position,
                    "source": left.passage.source,
                    "score": left.passage.score,
                    "reason": left.reason,
                }
                for left in self.omitted
            ],
        }


ContextItem: TypeAlias = Ranked | ContextPassage | str | tuple[str, str | None, float | None]


def context_passages(
    items: Iterable[ContextItem], *, sources: Sequence[str | None] | None = None
) -> list[ContextPassage]:
    """Passages for a `ContextBuilder`, in the order given.

    Args:
        items: A `Ranking`, or any mix of `Ranked`, `ContextPassage`, plain texts and
            ``(text, source, score)``. A `Ranked` whose score stands for a first-stage rank,
            because the model failed, is given no score: it cannot be held to a minimum that
            was meant for the model.
        sources: One source for each item, in place of the items' own; None to keep those.

    Raises:
        InvalidInputError: If an item is something else, a text or source is not a string, a score
            is not a finite number, or there are more or fewer sources than items.
    """
    if isinstance(items, str):
        raise InvalidInputError(
            "passages must be a list, a ranking or another iterable, but got one string: "
            "put it in a list"
        )
    passages = [
        _passage(item, position) for position, item in enumerate(check_iterable("passages", items))
    ]
    if sources is None:
        return passages
    sources = list(check_iterable("sources", sources))
    if len(sources) != len(passages):
        raise InvalidInputError(
            f"sources must have one element for each passage, but got {len(sources)} sources "
            f"for {len(passages)} passages"
        )
    return [
        _checked(replace(passage, source=source), position)
        for position, (passage, source) in enumerate(zip(passages, sources, strict=True))
    ]


def _passage(item: ContextItem, position: int) -> ContextPassage:
    if isinstance(item, Ranked):
        judged = item.source == "model"
        score = item.score if judged else None
        return _checked(ContextPassage(item.text, None, score, item.span), position)
    if isinstance(item, ContextPassage):
        return _checked(item, position)
    if isinstance(item, str):
        return ContextPassage(item)
    if isinstance(item, tuple) and len(item) == 3:
        return _checked(ContextPassage(*item), position)
    raise InvalidInputError(
        "every passage must be text, (text, source, score), a ContextPassage or a Ranked, "
        f"but number {position} is {type(item).__name__}"
    )


def _checked(passage: ContextPassage, position: int) -> ContextPassage:
    """The passage with its score as a native float."""
    if not isinstance(passage.text, str):
        raise InvalidInputError(
            f"a passage's text must be a string, but that of number {position} is "
            f"{type(passage.text).__name__}"
        )
    if passage.source is not None and not isinstance(passage.source, str):
        raise InvalidInputError(
            f"a passage's source must be a string or None, but that of number {position} is "
            f"{type(passage.source).__name__}"
        )
    if passage.score is None:
        return passage
    score = check_number(f"the score of passage {position}", passage.score)
    return replace(passage, score=score)
