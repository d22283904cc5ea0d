"""ContextBuilder: which passages go into the prompt, in which order, and where one is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

from rerank_plugins._validation import check_choice, check_count, check_flag, check_number
from rerank_plugins.candidates import Ranking
from rerank_plugins.context.duplicates import Seen, shingles_of
from rerank_plugins.context.hygiene import fenced, strip_invisible
from rerank_plugins.context.packing import Packing
from rerank_plugins.context.records import (
    Context,
    ContextItem,
    ContextPassage,
    OmittedPassage,
    PackedPassage,
    Reason,
    context_passages,
)
from rerank_plugins.context.sentences import (
    last_that_fits,
    sentence_ends,
    whole_sentences,
    word_ends,
)
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import bundled_folder
from rerank_plugins.scoring.long_texts import blocks_of

Order: TypeAlias = Literal["relevance", "edges"]
Parts: TypeAlias = Literal["whole", "spans"]

CUT_MARK = " […]"


@dataclass(frozen=True, slots=True)
class ContextBuilder:
    """Packs a ranking into a token budget.

    Passages are taken best first. Each goes in whole or not at all: one that does not fit is
    left out, and later, shorter ones may still go in. Only when none fits whole is the best
    one cut, after the last sentence that fits (or, when not even one sentence does, the last
    word), marked with ``[…]``; when not even a word fits, the context is empty.

    Passages are labelled by their order in the text, counting from 1, so that the labels a
    reader or a model meets always ascend, whatever ``order`` is.

    Attributes:
        max_tokens: The budget. It covers the whole text, with labels and separators, and is
            never exceeded.
        count_tokens: Number of tokens of a text; None counts with the tokenizer of the model
            that ships, an estimate for any other. Give the LLM's own for an exact budget.
        min_score: Passages with a lower score are left out; None keeps all. A passage
            without a score is kept, for nothing is known against it.
        order: ``relevance`` puts the best first. ``edges`` puts the best at both ends and the
            least in the middle, where long-context models overlook most (Liu et al., Lost in
            the Middle, TACL 2024): ranks 1, 3, 5, ..., 6, 4, 2.
        near_duplicates: A passage is left out when its resemblance to one already in the
            context is at least this, in (0, 1]; None keeps all. Resemblance is the Jaccard
            index of the sets of three-word shingles (Broder, On the resemblance and
            containment of documents, 1997), blind to case, accents, Arabic vowel signs and
            punctuation. The default 1.0 drops only what says nothing else; 0.8 also drops
            lightly edited copies, but with them a long passage that differs from another in
            one number only.
        label: The label of the passage with that number. The header line is the label and the
            source; if both are empty, it is left out.
        separator: What stands between two passages.
        fence: Put each passage between two lines of backticks that nothing in it can close,
            with label and source on the first of them. It shows a model where text that nobody
            vouches for begins and ends; it does not make the model heed it.
        strip_invisible: Take out bidi overrides, zero-width, tag and control characters, which
            can hide from a reader what a model is told. Passages are then compared and counted
            without them, too.
        passages: ``whole``, or ``spans``: of a passage that the model read in windows, the
            sentences around the window that its score comes from, so that the same budget
            holds more passages. What is left out is marked with ``[…]``.
    """

    max_tokens: int = 2000
    _: KW_ONLY
    count_tokens: Callable[[str], int] | None = None
    min_score: float | None = None
    order: Order = "relevance"
    near_duplicates: float | None = 1.0
    label: Callable[[int], str] = "[{}]".format
    separator: str = "\n\n"
    fence: bool = False
    strip_invisible: bool = False
    passages: Parts = "whole"

    def __post_init__(self) -> None:
        check_count("max_tokens", self.max_tokens)
        check_choice("passages", self.passages, get_args(Parts))
        if not isinstance(self.order, str) or self.order not in get_args(Order):
            raise InvalidInputError(f"order must be 'relevance' or 'edges', but got {self.order!r}")
        check_flag("fence", self.fence)
        check_flag("strip_invisible", self.strip_invisible)
        for name in ("count_tokens", "label"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidInputError(f"{name} must be a function, but got {value!r}")
        if self.min_score is not None:
            check_number("min_score", self.min_score)
        if self.near_duplicates is not None and not (
            0 < check_number("near_duplicates", self.near_duplicates) <= 1
        ):
            raise InvalidInputError(
                "near_duplicates must be above 0 and at most 1, or None, but got "
                f"{self.near_duplicates!r}"
            )

    def build(self, items: Ranking | Iterable[ContextItem]) -> Context:
        """The context of these passages.

        Args:
            items: Best first; whatever `context_passages` takes.

        Raises:
            InvalidInputError: As `context_passages`, or ``count_tokens`` gave something other
                than a whole number of at least 0.
        """
        packing = Packing(self._whole, self._alone, self.max_tokens)
        seen = None if self.near_duplicates is None else Seen(self.near_duplicates)
        omitted: list[OmittedPassage] = []
        for position, passage in enumerate(context_passages(items)):
            packed = self._packed(passage, position)
            own = frozenset() if seen is None else shingles_of(packed.text)
            reason = self._objection(packed)
            if reason is None and seen is not None and seen.resembles(own):
                reason = "duplicate"
            if reason is None and not packing.add(packed):
                reason = "budget"
            if reason is not None:
                omitted.append(OmittedPassage(passage, position, reason))
            elif seen is not None:
                seen.add(own)
        tokens, removed = packing.finish()
        omitted += [OmittedPassage(left.passage, left.position, "budget") for left in removed]
        omitted.sort(key=lambda left: left.position)
        chosen = packing.chosen
        if not chosen and (cut := self._cut_best(omitted)) is not None:
            chosen = [cut]
            omitted = [left for left in omitted if left.position != cut.position]
            tokens = self._whole(chosen)
        return Context(
            text=self._text(chosen),
            passages=tuple(self._laid_out(chosen)),
            omitted=tuple(omitted),
            tokens=tokens,
            max_tokens=int(self.max_tokens),
        )

    def _packed(self, passage: ContextPassage, position: int) -> PackedPassage:
        """The passage, or the sentences around its span."""
        text, span = passage.text, passage.span
        if self.passages == "whole" or span is None or not 0 <= span[0] < span[1] <= len(text):
            return PackedPassage("", passage, position, self._cleaned(text))
        start, end = whole_sentences(text, *span)
        before, after = self._cleaned(text[:start]), self._cleaned(text[end:])
        part = self._cleaned(text[start:end])
        part = f"{CUT_MARK.strip()} {part}" if before else part
        part = part + CUT_MARK if after else part
        return PackedPassage("", passage, position, part, cut=bool(before or after))

    def _objection(self, packed: PackedPassage) -> Reason | None:
        """Why the passage is left out whatever the others are; None when it may go in."""
        score = packed.passage.score
        if not packed.text:
            return "empty"
        if self.min_score is not None and score is not None and score < self.min_score:
            return "score"
        return None

    def _cut_best(self, omitted: list[OmittedPassage]) -> PackedPassage | None:
        """The beginning of the best passage that did not fit, or None when no word fits."""
        best = next((left for left in omitted if left.reason == "budget"), None)
        if best is None:
            return None
        text = self._packed(best.passage, best.position).text.removesuffix(CUT_MARK)

        def cut(end: int) -> PackedPassage:
            beginning = text[:end].rstrip() + CUT_MARK
            return PackedPassage("", best.passage, best.position, beginning, cut=True)

        def fits(end: int) -> bool:
            return self._count(self._text([cut(end)])) <= self.max_tokens

        for ends in (sentence_ends(text), word_ends(text)):
            end = last_that_fits(ends, fits)
            if end is not None:
                return cut(end)
        return None

    def _laid_out(self, chosen: list[PackedPassage]) -> list[PackedPassage]:
        """The passages, given by relevance, in the order of the text and labelled."""
        if self.order == "edges":
            chosen = chosen[::2] + chosen[1::2][::-1]
        return [replace(p, label=self.label(number)) for number, p in enumerate(chosen, start=1)]

    def _text(self, chosen: list[PackedPassage]) -> str:
        return self.separator.join(self._block(packed) for packed in self._laid_out(chosen))

    def _cleaned(self, text: str) -> str:
        return (strip_invisible(text) if self.strip_invisible else text).strip()

    def _block(self, packed: PackedPassage) -> str:
        """Header line and text; a source of several lines is put on one."""
        source = self._cleaned(packed.passage.source or "")
        header = " ".join([packed.label, *source.split()]).strip()
        if self.fence:
            return fenced(header, packed.text)
        return f"{header}\n{packed.text}" if header else packed.text

    def _whole(self, chosen: list[PackedPassage]) -> int:
        return self._count(self._text(chosen))

    def _alone(self, packed: PackedPassage, number: int) -> int:
        return self._count(self._block(replace(packed, label=self.label(number))))

    def _count(self, text: str) -> int:
        if not text:
            return 0  # a counter that adds special tokens gives more, but nothing is sent
        if self.count_tokens is None:
            return _count_with_bundled(text, int(self.max_tokens))
        return check_count("what count_tokens returns", self.count_tokens(text))


def _count_with_bundled(text: str, enough: int) -> int:
    """Tokens of the text for the model that ships, special tokens left out.

    Once they are more than ``enough``, what the rest of the text has is not counted.
    """
    # A tokenizer (or an HTTP client) cannot encode a lone surrogate.
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    tokenizer = _bundled_tokenizer()
    tokens = 0
    # In blocks: of a word of a million characters, it would take more than linear time.
    for block in blocks_of(encodable):
        (encoded,) = tokenizer.encode_batch_fast([block], add_special_tokens=False)
        tokens += len(encoded)
        if tokens > enough:
            break
    return tokens


@cache
def _bundled_tokenizer() -> Any:
    return _whole_text_tokenizer(str(bundled_folder() / "tokenizer.json"))


def _whole_text_tokenizer(path: str) -> Any:
    """The tokenizer of that file, told not to stop at the model's length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
