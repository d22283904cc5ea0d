"""From (query, passage) pairs to token ids: the query capped, the passage cut or windowed.

The procedure is FlagEmbedding's ``FlagReranker.compute_score`` (also the BGE card's): the
query alone is capped at three quarters of the length, then only the passage is cut. Where
nothing needs cutting the ids are those of ``tokenizer(query, passage)``.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._telemetry import traced
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.scoring.base import LongPassages
from rerank_plugins.scoring.pair_form import pair_form

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts handed to the tokenizer at a time: enough to keep its threads busy, few enough that
# the intermediate encodings of ten thousand long passages never exist together.
_TEXTS_AT_A_TIME = 512

# Pairs encoded at a time while the model works on those before: token lists of a long list of
# pairs never exist together, and sorting by length within so many leaves little padding.
_PAIRS_AHEAD = 1024

# What `TokenCache` holds: some 20,000 passages of 130 tokens, in 16 MB and their own text.
CACHED_TOKENS = 1 << 22


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
    """

    rows: list[list[int]]
    types: list[list[int]] | None
    owners: NDArray[np.intp]
    truncated: NDArray[np.bool_]
    parts: NDArray[np.int64]
    whole: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Shape (rows,), tokens a row."""
        return np.fromiter((len(row) for row in self.rows), dtype=np.int64, count=len(self.rows))


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded arrays of shape (rows, longest row), int64, as a model takes them."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


class TokenCache:
    """Token ids of the texts used last, so that a corpus queried again is tokenized once.

    For many threads. Ids of a text do not depend on its neighbours, so what is kept is what
    would be computed.

    Args:
        capacity: Tokens to hold, at most. A text counts for its tokens, a token for each four
            characters, and 32 for its place: texts of few tokens take memory too.
    """

    def __init__(self, capacity: int = CACHED_TOKENS) -> None:
        self._capacity = capacity
        self._held = 0
        self._ids: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def _cost(text: str, tokens: int) -> int:
        return tokens + len(text) // 4 + 32

    def get(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Ids of those of the texts that are held."""
        found: dict[str, array[int]] = {}
        with self._lock:
            for text in texts:
                ids = self._ids.get(text)
                if ids is not None:
                    self._ids.move_to_end(text)
                    found[text] = ids
        return {text: ids.tolist() for text, ids in found.items()}

    def put(self, ids: Mapping[str, list[int]]) -> None:
        """Holds these too; those used longest ago go."""
        # Compact: a list of numbers takes up to nine times the memory.
        compact = {
            text: array("i", some)
            for text, some in ids.items()
            if self._cost(text, len(some)) <= self._capacity
        }
        with self._lock:
            for text, new in compact.items():
                if text not in self._ids:
                    self._held += self._cost(text, len(new))
                    self._ids[text] = new
            while self._held > self._capacity:
                text, old = self._ids.popitem(last=False)
                self._held -= self._cost(text, len(old))


def _encoding_facts(
    encoded: EncodedPairs,
    encoder: object,  # noqa: ARG001
    pairs: Sequence[tuple[str, str]],
    long_passages: LongPassages = "truncate",  # noqa: ARG001
) -> dict[str, int]:
    tokens = int(encoded.lengths.sum())
    return {"pairs": len(pairs), "rows": len(encoded.rows), "tokens": tokens}


class PairEncoder:
    """Encodes pairs for one checkpoint.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``; a copy is kept, free of truncation and padding
            state, so that threads can share it.
        max_length: Tokens that the model can take, special tokens included.
        window_tokens: Passage tokens a window; None for as many as fit.
        pad_id: Id that fills short rows.
        with_types: Whether the model takes token type ids.
        cache: Token ids of texts seen before, by this same tokenizer; None for none.
        prompt: Text in front of every query.

    Raises:
        InvalidInputError: ``max_length`` leaves no room for text.
        UnsupportedModelError: The tokenizer joins pairs in a form that is not
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
        self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pad_id = pad_id
        self._with_types = with_types
        self._cache = cache
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
        form = pair_form(self._tokenizer)
        self._prefix, self._middle, self._suffix = (list(ids) for ids in form.ids)
        self._prefix_types = list(form.prefix_types)
        self._middle_types = list(form.middle_types)
        self._suffix_types = list(form.suffix_types)
        self._query_type, self._passage_type = form.query_type, form.passage_type

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, special tokens not counted."""
        return len(self._tokenize([text])[text])

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Token ids of each distinct text, without special tokens."""
        distinct = list(dict.fromkeys(texts))
        if self._cache is None:
            return self._tokenize_now(distinct)
        ids = self._cache.get(distinct)
        new = self._tokenize_now([text for text in distinct if text not in ids])
        self._cache.put(new)
        return ids | new

    def _tokenize_now(self, texts: list[str]) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            chunk = texts[start : start + _TEXTS_AT_A_TIME]
            encoded = self._tokenizer.encode_batch_fast(
                [well_formed(text) for text in chunk], add_special_tokens=False
            )
            ids.update(zip(chunk, (encoding.ids for encoding in encoded), strict=True))
        return ids

    @traced("tokenize", _encoding_facts)
    def encode(
        self, pairs: Sequence[tuple[str, str]], long_passages: LongPassages = "truncate"
    ) -> EncodedPairs:
        """Token rows of the pairs, in their order."""
        pairs = [(self._prompt + query, passage) for query, passage in pairs]
        queries = self._tokenize([query for query, _ in pairs])
        passages = self._tokenize([passage for _, passage in pairs])
        rows: list[list[int]] = []
        types: list[list[int]] = []
        owners: list[int] = []
        parts: list[tuple[int, int]] = []
        whole: list[bool] = []
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        for position, (query, passage) in enumerate(pairs):
            query_ids = queries[query][: self.max_length * 3 // 4]
            query_ids = query_ids[: self.max_length - self._specials - 1]
            passage_ids = passages[passage]
            windows, complete = self._windows(
                len(passage_ids), self.max_length - self._specials - len(query_ids), long_passages
            )
            truncated[position] = not complete or len(query_ids) < len(queries[query])
            for start, end in windows:
                window = passage_ids[start:end]
                rows.append(self._prefix + query_ids + self._middle + window + self._suffix)
                owners.append(position)
                parts.append((start, end))
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
        )

    def encode_ahead(
        self, pairs: Sequence[tuple[str, str]], long_passages: LongPassages = "truncate"
    ) -> Iterator[EncodedPairs]:
        """`encode` in parts, in order; a thread works on the next while one is used.

        Up to 1024 pairs are one part, encoded without a thread.
        """
        parts = [
            pairs[start : start + _PAIRS_AHEAD] for start in range(0, len(pairs), _PAIRS_AHEAD)
        ]
        if len(parts) < 2:
            yield from (self.encode(part, long_passages) for part in parts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rerank-plugins-encode") as worker:
            # With the caller's context, where a trace has the span that this is a part of.
            context = copy_context()
            coming = worker.submit(context.run, self.encode, parts[0], long_passages)
            for part in parts[1:]:
                ready = coming.result()
                coming = worker.submit(context.run, self.encode, part, long_passages)
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

    def _windows(
        self, tokens: int, room: int, long_passages: LongPassages
    ) -> tuple[list[tuple[int, int]], bool]:
        """The parts of a passage of so many tokens that are scored, and whether they are all of it.

        Windows are of nearly equal size: a last window of a few words would be scored
        without its context.
        """
        if long_passages == "truncate":
            return [(0, min(tokens, room))], tokens <= room
        size = room if self._window_tokens is None else min(room, self._window_tokens)
        if tokens <= size:
            return [(0, tokens)], True
        if long_passages == "first":
            return [(0, size)], False
        count = -(-tokens // size)
        return list(pairwise(tokens * part // count for part in range(count + 1))), True

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
            spans[place] = self._characters(passages[place], start, end)
        return spans

    def _characters(self, text: str, start: int, end: int) -> tuple[int, int]:
        if end <= start:
            return 0, 0
        if well_formed(text) != text:  # positions in it are not positions in the text
            return -1, -1
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        first, last = offsets[start][0], max(stop for _, stop in offsets[start:end])
        part = text[first:last]
        return last - len(part.lstrip()), first + len(part.rstrip())

    def pad(self, encoded: EncodedPairs, rows: NDArray[np.intp]) -> Batch:
        """The given rows as padded arrays, as long as the longest of them."""
        chosen = [encoded.rows[row] for row in rows]
        longest = max(len(ids) for ids in chosen)
        input_ids = np.full((len(chosen), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        types = np.zeros_like(input_ids) if encoded.types is not None else None
        for place, (row, ids) in enumerate(zip(rows, chosen, strict=True)):
            input_ids[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
            if types is not None and encoded.types is not None:
                types[place, : len(ids)] = encoded.types[row]
        return Batch(input_ids, mask, types)


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 can hold, made U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
