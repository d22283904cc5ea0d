"""From (query, passage) pairs to token ids: the query capped, the passage cut or windowed.

The procedure is FlagEmbedding's ``FlagReranker.compute_score`` (also the BGE card's): the
query alone is capped at three quarters of the length, then only the passage is cut. Where
nothing needs cutting the ids are those of ``tokenizer(query, passage)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._telemetry import traced
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.base import DEFAULT_WINDOWS, LongPassages
from rerank_plugins.scoring.long_texts import BLOCK
from rerank_plugins.scoring.pair_form import pair_form
from rerank_plugins.scoring.text_tokens import TextTokens
from rerank_plugins.scoring.token_cache import TokenCache
from rerank_plugins.scoring.windows import window_parts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What a tokenizer takes at most, as a guess of whether a text of megabytes is worth beginning.
_SECONDS_A_CHARACTER = 1e-6

# Pairs encoded at a time while the model works on those before: token lists of a long list of
# pairs never exist together, and sorting by length within so many leaves little padding.
_PAIRS_AHEAD = 1024


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Token rows of some pairs; a pair has one row, or one a window.

    Attributes:
        rows: Token ids of each row, special tokens included.
        types: Token type ids of each row, or None when the model takes none.
        owners: Shape (rows,), the pair that each row belongs to, ascending.
        truncated: Shape (pairs,), True where a part of the pair was left out.
        parts: Shape (rows, 2), the passage's tokens in the row, start and end.
        whole: Shape (rows,), True where these are all tokens of the passage.
        turns: Shape (rows,), 0 for the row of its pair to compute first, 1 for the second...
    """

    rows: list[list[int]]
    types: list[list[int]] | None
    owners: NDArray[np.intp]
    truncated: NDArray[np.bool_]
    parts: NDArray[np.int64]
    whole: NDArray[np.bool_]
    turns: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Shape (rows,), tokens per row."""
        return np.fromiter((len(row) for row in self.rows), dtype=np.int64, count=len(self.rows))


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded arrays of shape (rows, longest row), int64, as a model takes them."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


def _encoding_facts(
    encoded: EncodedPairs,
    encoder: object,  # noqa: ARG001
    pairs: Sequence[tuple[str, str]],
    *_: object,
) -> dict[str, int]:
    tokens = int(encoded.lengths.sum())
    return {"pairs": len(pairs), "rows": len(encoded.rows), "tokens": tokens}


class PairEncoder:
    """Encodes pairs for one checkpoint.

    Args:
        tokenizer: As `TextTokens` takes it.
        max_length: Tokens that the model can take, special tokens included.
        window_tokens: Passage tokens per window; None for as many as fit.
        pad_id: Id that fills short rows.
        with_types: Whether the model takes token type ids.
        cache: Token ids of texts seen before, by this same tokenizer; None for none.
        prompt: Text in front of every query.

    Raises:
        InvalidInputError: ``max_length`` leaves no room for text.
        UnsupportedModelError: If the tokenizer joins pairs in a form that is not
            specials, query, specials, passage, specials.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        window_tokens: int | None = None,
        pad_id: int = 0,
        with_types: bool = True,
        cache: TokenCache | None = None,
        prompt: str = "",
    ) -> None:
        self._texts = TextTokens(tokenizer, cache)
        self._pad_id = pad_id
        self._with_types = with_types
        self._prompt = prompt
        self._read_template()
        self._specials = len(self._prefix) + len(self._middle) + len(self._suffix)
        if max_length < self._specials + 4:
            raise InvalidInputError(
                f"max_length must be at least {self._specials + 4} for this model, "
                f"but got {max_length}"
            )
        self.max_length = max_length
        self._window_tokens = window_tokens

    def _read_template(self) -> None:
        """Learns from one encoded pair which special tokens stand where."""
        form = pair_form(self._texts.tokenizer)
        self._prefix, self._middle, self._suffix = (list(ids) for ids in form.ids)
        self._prefix_types = list(form.prefix_types)
        self._middle_types = list(form.middle_types)
        self._suffix_types = list(form.suffix_types)
        self._query_type, self._passage_type = form.query_type, form.passage_type

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, special tokens not counted."""
        return len(self._texts.of([text])[text])

    @traced("tokenize", _encoding_facts)
    def encode(
        self,
        pairs: Sequence[tuple[str, str]],
        long_passages: LongPassages = "truncate",
        windows: int = DEFAULT_WINDOWS,
    ) -> EncodedPairs:
        """Token rows of the pairs, in their order; a pair's windows in the passage's order."""
        pairs = [(self._prompt + query, passage) for query, passage in pairs]
        queries = self._texts.of([query for query, _ in pairs])
        passages = [passage for _, passage in pairs]
        read_whole = long_passages not in ("truncate", "first")
        ids = (
            self._texts.of(passages) if read_whole else self._texts.heads(passages, self.max_length)
        )
        rows: list[list[int]] = []
        types: list[list[int]] = []
        owners: list[int] = []
        parts: list[tuple[int, int]] = []
        turns: list[int] = []
        whole: list[bool] = []
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        for position, (query, passage) in enumerate(pairs):
            query_ids = queries[query][: self.max_length * 3 // 4]
            query_ids = query_ids[: self.max_length - self._specials - 1]
            passage_ids = ids[passage]
            chosen, complete = self._windows(query_ids, passage_ids, long_passages, windows)
            truncated[position] = not complete or len(query_ids) < len(queries[query])
            for (start, end), turn in sorted(zip(chosen, range(len(chosen)), strict=True)):
                window = passage_ids[start:end]
                rows.append(self._prefix + query_ids + self._middle + window + self._suffix)
                owners.append(position)
                parts.append((start, end))
                turns.append(turn)
                whole.append(end - start == len(passage_ids))
                if self._with_types:
                    types.append(self._types(len(query_ids), len(window)))
        return EncodedPairs(
            rows,
            types if self._with_types else None,
            np.asarray(owners, dtype=np.intp),
            truncated,
            np.asarray(parts, dtype=np.int64).reshape(-1, 2),
            np.asarray(whole, dtype=np.bool_),
            np.asarray(turns, dtype=np.int64),
        )

    def _windows(
        self, query: list[int], passage: list[int], long_passages: LongPassages, windows: int
    ) -> tuple[list[tuple[int, int]], bool]:
        """The parts of a passage to score, best first, and whether they are all of it."""
        tokens, room = len(passage), self.max_length - self._specials - len(query)
        if long_passages == "truncate":
            return [(0, min(tokens, room))], tokens <= room
        size = room if self._window_tokens is None else min(room, self._window_tokens)
        if tokens <= size:
            return [(0, tokens)], True
        return window_parts(query, passage, size, long_passages, windows)

    def encode_ahead(
        self,
        pairs: Sequence[tuple[str, str]],
        long_passages: LongPassages = "truncate",
        windows: int = DEFAULT_WINDOWS,
    ) -> Iterator[EncodedPairs]:
        """`encode` in parts, in order; a thread works on the next while one is used.

        Up to 1024 pairs are one part, encoded without a thread.
        """
        parts = [
            pairs[start : start + _PAIRS_AHEAD] for start in range(0, len(pairs), _PAIRS_AHEAD)
        ]
        if len(parts) < 2:
            yield from (self.encode(part, long_passages, windows) for part in parts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rerank-plugins-encode") as worker:
            # With the caller's context, where a trace has the span that this is a part of.
            context = copy_context()
            coming = worker.submit(context.run, self.encode, parts[0], long_passages, windows)
            for part in parts[1:]:
                ready = coming.result()
                coming = worker.submit(context.run, self.encode, part, long_passages, windows)
                yield ready
            yield coming.result()

    def _types(self, query: int, passage: int) -> list[int]:
        return (
            self._prefix_types
            + [self._query_type] * query
            + self._middle_types
            + [self._passage_type] * passage
            + self._suffix_types
        )

    def spans(
        self,
        pairs: Sequence[tuple[str, str]],
        encoded: EncodedPairs,
        rows: NDArray[np.intp],
    ) -> NDArray[np.int64]:
        """The characters of each pair's passage that a row of it holds.

        Passages that their row holds whole are not tokenized again.

        Args:
            pairs: What was encoded.
            encoded: What came of it.
            rows: Shape (pairs,), a row for each pair.

        Returns:
            Shape (pairs, 2), start and end, white space at both ends left out; -1, -1 where
            the tokenizer cannot tell.
        """
        passages = [pairs[owner][1] for owner in encoded.owners[rows].tolist()]
        spans = np.zeros((len(rows), 2), dtype=np.int64)
        spans[:, 1] = [len(passage) for passage in passages]
        for place in np.flatnonzero(~encoded.whole[rows]).tolist():
            start, end = encoded.parts[rows[place]].tolist()
            spans[place] = self._texts.characters(passages[place], start, end)
        return spans

    def pad(self, encoded: EncodedPairs, rows: NDArray[np.intp]) -> Batch:
        """The given rows as padded arrays, as long as the longest of them."""
        return pad_some(self, encoded, rows)

    def pad_rows(self, rows: Sequence[list[int]], types: Sequence[list[int]] | None) -> Batch:
        """Rows as padded arrays, as long as the longest of them."""
        return padded(rows, types, self._pad_id)


class Encoder(Protocol):
    """What makes rows of pairs, one way or another."""

    def encode(
        self, pairs: Sequence[tuple[str, str]], long_passages: LongPassages, windows: int
    ) -> EncodedPairs:
        """Rows of the pairs."""
        ...

    def pad_rows(self, rows: Sequence[list[int]], types: Sequence[list[int]] | None) -> Batch:
        """Rows as padded arrays."""
        ...


def encode_in_time(
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    long_passages: LongPassages,
    windows: int,
    stop_at: float,
) -> Iterator[EncodedPairs]:
    """Rows in parts of little text, until ``stop_at`` on ``time.perf_counter``.

    Ends before a text that would take longer to tokenize than there is time.
    """
    start = 0
    while start < len(pairs):
        stop, characters = start + 1, sum(map(len, pairs[start]))
        while stop < len(pairs) and characters + (more := sum(map(len, pairs[stop]))) <= BLOCK:
            stop, characters = stop + 1, characters + more
        begin = perf_counter()
        if begin >= stop_at or (
            characters > BLOCK and begin + characters * _SECONDS_A_CHARACTER > stop_at
        ):
            return
        yield encoder.encode(pairs[start:stop], long_passages, windows)
        start = stop


def pad_some(encoder: Encoder, encoded: EncodedPairs, rows: NDArray[np.intp]) -> Batch:
    """The given rows of these as padded arrays."""
    chosen = rows.tolist()
    types = None if encoded.types is None else [encoded.types[row] for row in chosen]
    return encoder.pad_rows([encoded.rows[row] for row in chosen], types)


def padded(rows: Sequence[list[int]], types: Sequence[list[int]] | None, pad_id: int) -> Batch:
    """Rows as arrays, as long as the longest of them."""
    input_ids = np.full((len(rows), max(map(len, rows))), pad_id, dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for place, ids in enumerate(rows):
        input_ids[place, : len(ids)] = ids
        mask[place, : len(ids)] = 1
    if types is None:
        return Batch(input_ids, mask, None)
    of_types = np.zeros_like(input_ids)
    for place, some in enumerate(types):
        of_types[place, : len(some)] = some
    return Batch(input_ids, mask, of_types)
