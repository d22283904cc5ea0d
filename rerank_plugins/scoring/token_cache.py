"""Token ids of the texts used last."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from rerank_plugins._threads import fork_safe_lock

# What `TokenCache` holds: some 20,000 passages of 130 tokens, in 16 MB and their own text.
CACHED_TOKENS = 1 << 22


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
        self._lock = fork_safe_lock()

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
