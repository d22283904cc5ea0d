"""From texts to token ids by a checkpoint's tokenizer, and back to characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from rerank_plugins.scoring.long_texts import BLOCK, blocks_of, head_of, readable
from rerank_plugins.scoring.token_cache import TokenCache

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts handed to the tokenizer at a time: enough to keep its threads busy, few enough that
# the intermediate encodings of ten thousand long passages never exist together.
_TEXTS_AT_A_TIME = 512

# A text that is cut may end in other tokens than it has there; so many are not looked at.
_TAIL = 8


class TextTokens:
    """Token ids of single texts, without special tokens.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``; one that truncates or pads is copied and the copy
            does neither. It must not change afterwards: threads share it.
        cache: Token ids of texts seen before, by this same tokenizer; None for none.
    """

    def __init__(self, tokenizer: Tokenizer, cache: TokenCache | None = None) -> None:
        if tokenizer.truncation is not None or tokenizer.padding is not None:
            tokenizer = type(tokenizer).from_str(tokenizer.to_str())
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self.tokenizer = tokenizer
        self._cache = cache

    def of(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Token ids of each distinct text, without special tokens."""
        distinct = list(dict.fromkeys(texts))
        if all(len(text) <= BLOCK for text in distinct):
            return self._of_short(distinct)
        blocks = {text: blocks_of(text) for text in distinct}
        ids = self._of_short(list(dict.fromkeys(chain.from_iterable(blocks.values()))))
        return {
            text: ids[own[0]] if len(own) == 1 else [one for block in own for one in ids[block]]
            for text, own in blocks.items()
        }

    def _of_short(self, texts: list[str]) -> dict[str, list[int]]:
        if self._cache is None:
            return self._of_new(texts)
        ids = self._cache.get(texts)
        new = self._of_new([text for text in texts if text not in ids])
        self._cache.put(new)
        return ids | new

    def _of_new(self, texts: list[str]) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            chunk = texts[start : start + _TEXTS_AT_A_TIME]
            encoded = self.tokenizer.encode_batch_fast(
                [readable(text) for text in chunk], add_special_tokens=False
            )
            ids.update(zip(chunk, (encoding.ids for encoding in encoded), strict=True))
        return ids

    def heads(self, texts: Sequence[str], tokens: int) -> dict[str, list[int]]:
        """More than so many token ids of each text's beginning, or all that there are."""
        heads = {text: head_of(text, tokens) for text in dict.fromkeys(texts)}
        ids = self.of(list(heads.values()))
        odd = [t for t, h in heads.items() if h is not t and len(ids[h]) <= tokens + _TAIL]
        whole = self.of(odd)
        return {text: whole[text] if text in whole else ids[heads[text]] for text in heads}

    def characters(self, text: str, start: int, end: int) -> tuple[int, int]:
        """Where the tokens from ``start`` to ``end`` stand in the text, white space left out.

        -1, -1 where the tokenizer cannot tell.
        """
        if end <= start:
            return 0, 0
        if readable(text) != text:  # positions in it are not positions in the text
            return -1, -1
        first, last = self._bounds(text, start, end)
        part = text[first:last]
        return last - len(part.lstrip()), first + len(part.rstrip())

    def _bounds(self, text: str, start: int, end: int) -> tuple[int, int]:
        """Characters from the first of these tokens to the last; little more is tokenized."""
        bounds: list[tuple[int, int]] = []
        at = tokens = 0
        for block in blocks_of(text):
            if len(text) > BLOCK and tokens + (count := len(self.of([block])[block])) <= start:
                at, tokens = at + len(block), tokens + count
                continue
            offsets = self.tokenizer.encode(block, add_special_tokens=False).offsets
            some = offsets[max(0, start - tokens) : end - tokens]
            bounds += [(at + some[0][0], at + max(stop for _, stop in some))] if some else []
            at, tokens = at + len(block), tokens + len(offsets)
            if tokens >= end:
                break
        return bounds[0][0], bounds[-1][1]
