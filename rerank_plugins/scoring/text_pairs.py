"""Pairs that are rendered as one text: windows are cut from the passage's text, not its tokens.

For checkpoints with a chat template or another custom form, where the ids of a pair are
not those of its texts with special tokens between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring.base import DEFAULT_WINDOWS, LongPassages
from rerank_plugins.scoring.encoding import Batch, EncodedPairs, pad_some
from rerank_plugins.scoring.long_texts import readable
from rerank_plugins.scoring.windows import shared_weights

if TYPE_CHECKING:
    from rerank_plugins.scoring.causal_engine import Prefixes

_PAIRS_AT_A_TIME = 256
# Tokens left free in a window: where texts meet, they may be cut into others than alone.
_SLACK = 4

Rows = list[list[int]]
Pair = tuple[str, str]


class TextPairEncoder(ABC):
    """Encodes pairs by rendering both texts together.

    A pair that fits is one row. Of one that does not, ``truncate`` gives what the checkpoint's
    own code would; other modes cap the query at three quarters of the length and cut the
    passage into windows of nearly equal size.

    Args:
        tokenizer: A transformers tokenizer.
        max_length: Tokens per row.
        window_tokens: Passage tokens per window; None for as many as fit.
        prefixes: Where the common beginning of a query's rows is noted; None for nowhere.

    Raises:
        InvalidInputError: ``max_length`` leaves no room for text.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        window_tokens: int | None,
        prefixes: Prefixes | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._prefixes = prefixes
        self._lock = fork_safe_lock()
        # One call pads a fast tokenizer's rows, and one counts more tokens than fit: meant so.
        for warning in (
            "Asking-to-pad-a-fast-tokenizer",
            "sequence-length-is-longer-than-the-specified-maximum",
        ):
            getattr(tokenizer, "deprecation_warnings", {})[warning] = True
        self.max_length = max_length
        self._window_tokens = window_tokens
        self._overhead = len(self._rows([("a", "a")])[0][0]) - 2
        if max_length < self._overhead + _SLACK + 4:
            raise InvalidInputError(
                f"max_length must be at least {self._overhead + _SLACK + 4} for this model, "
                f"but got {max_length}"
            )

    @abstractmethod
    def _rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        """Token ids and types of whole pairs, whatever their length; without padding."""

    @abstractmethod
    def _cut_rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        """The same, cut to ``max_length`` as the checkpoint's own code cuts."""

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, special tokens not counted."""
        return len(self._ids(readable(text)))

    def _ids(self, text: str) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(
        self,
        pairs: Sequence[Pair],
        long_passages: LongPassages = "truncate",
        windows: int = DEFAULT_WINDOWS,
    ) -> EncodedPairs:
        """Token rows of the pairs, in their order."""
        texts = [(readable(query), readable(passage)) for query, passage in pairs]
        whole, whole_types = self._rows(texts)
        rows: Rows = []
        types: Rows | None = None if whole_types is None else []
        owners: list[int] = []
        turns: list[int] = []
        parts: list[tuple[int, int]] = []
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        for number, row in enumerate(whole):
            if len(row) <= self.max_length:
                new, new_types = [row], None if whole_types is None else [whole_types[number]]
                spans = [(0, len(pairs[number][1]))]
            else:
                (new, new_types), spans, truncated[number] = self._parts(
                    texts[number], len(row), long_passages, windows
                )
            rows += new
            if types is not None and new_types is not None:
                types += new_types
            owners += [number] * len(new)
            turns += range(len(new))
            parts += spans
        if self._prefixes is not None:
            self._note(self._prefixes, pairs, rows, owners)
        lengths = np.asarray([len(passage) for _, passage in pairs], dtype=np.int64)
        ends = np.asarray(parts, dtype=np.int64).reshape(-1, 2)
        places = np.asarray(owners, dtype=np.intp)
        complete = (ends[:, 0] == 0) & (ends[:, 1] == lengths[places])
        return EncodedPairs(
            rows, types, places, truncated, ends, complete, np.asarray(turns, dtype=np.int64)
        )

    @staticmethod
    def _note(prefixes: Prefixes, pairs: Sequence[Pair], rows: Rows, owners: Sequence[int]) -> None:
        by_query: dict[str, Rows] = {}
        for row, owner in zip(rows, owners, strict=True):
            by_query.setdefault(pairs[owner][0], []).append(row)
        for query, some in by_query.items():
            prefixes.note(query, some)

    def encode_ahead(
        self,
        pairs: Sequence[Pair],
        long_passages: LongPassages = "truncate",
        windows: int = DEFAULT_WINDOWS,
    ) -> Iterator[EncodedPairs]:
        """`encode` in parts, in order."""
        for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
            yield self.encode(pairs[start : start + _PAIRS_AT_A_TIME], long_passages, windows)

    def _parts(
        self, pair: Pair, length: int, long_passages: LongPassages, windows: int
    ) -> tuple[tuple[Rows, Rows | None], list[tuple[int, int]], bool]:
        """Rows of a pair that does not fit, the passage's characters in each, whether it is cut."""
        query, passage = pair
        offsets = self._offsets(passage)
        if long_passages == "truncate":
            # Where the passage is the longer text, it alone is cut; else what is left of each
            # depends on the tokenizer.
            kept = len(offsets) - (length - self.max_length)
            told = kept > 0 and kept >= len(self._offsets(query))
            span = (0, offsets[kept - 1][1]) if told else (-1, -1)
            return self._cut_rows([pair]), [span], True
        if not offsets:
            raise UnsupportedModelError(
                f"long_passages={long_passages!r} needs a tokenizer that gives offsets, and "
                f"{type(self._tokenizer).__name__} gives none: use long_passages='truncate'"
            )
        asked = self._offsets(query)
        limit = min(self.max_length * 3 // 4, self.max_length - self._overhead - _SLACK - 1)
        capped = query if len(asked) <= limit else query[: asked[limit - 1][1]]
        used = len(self._rows([(capped, "a")])[0][0]) - 1
        room = max(1, self.max_length - used - _SLACK)
        size = room if self._window_tokens is None else min(room, self._window_tokens)
        count = -(-len(offsets) // size)
        edges = [len(offsets) * part // count for part in range(count + 1)]
        spans = [(offsets[a][0], offsets[b - 1][1]) for a, b in pairwise(edges)]
        if long_passages == "first":
            spans = [(offsets[0][0], offsets[min(size, len(offsets)) - 1][1])]
        elif long_passages == "best" and count > windows:
            weights = shared_weights(self._ids(query), self._ids(passage), edges)
            spans = [spans[place] for place in np.argsort(-weights, kind="stable")[:windows]]
        rows = self._cut_rows([(capped, passage[start:end]) for start, end in spans])
        return (
            rows,
            spans,
            capped != query or (long_passages in ("first", "best") and len(spans) < count),
        )

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters of each token; none from a tokenizer that does not tell."""
        if not self._tokenizer.is_fast:
            return []
        with self._lock:
            told = self._tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, truncation=False
            )
        return [(int(start), int(end)) for start, end in told["offset_mapping"]]

    def spans(
        self, pairs: Sequence[Pair], encoded: EncodedPairs, rows: NDArray[np.intp]
    ) -> NDArray[np.int64]:
        """The characters of each pair's passage that a row of it holds; shape (pairs, 2)."""
        spans = encoded.parts[rows].copy()
        for place, owner in enumerate(encoded.owners[rows].tolist()):
            start, end = spans[place].tolist()
            passage = pairs[owner][1]
            if readable(passage) != passage:
                spans[place] = -1
            elif not encoded.whole[rows[place]] and start >= 0:
                part = passage[start:end]
                spans[place] = end - len(part.lstrip()), start + len(part.rstrip())
        return spans

    def pad(self, encoded: EncodedPairs, rows: NDArray[np.intp]) -> Batch:
        """The given rows as padded arrays, on the side and with the ids of the tokenizer."""
        return pad_some(self, encoded, rows)

    def pad_rows(self, rows: Sequence[list[int]], types: Sequence[list[int]] | None) -> Batch:
        """Rows as padded arrays, on the side and with the ids of the tokenizer."""
        columns = {"input_ids": list(rows)}
        if types is not None:
            columns["token_type_ids"] = list(types)
        with self._lock:
            padded = self._tokenizer.pad(
                columns, padding=True, return_attention_mask=True, return_tensors="np"
            )
        return Batch(
            padded["input_ids"].astype(np.int64),
            padded["attention_mask"].astype(np.int64),
            padded["token_type_ids"].astype(np.int64) if "token_type_ids" in padded else None,
        )
