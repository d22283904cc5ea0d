"""Fills a token budget passage by passage, in time linear in the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rerank_plugins.context.records import PackedPassage

# Up to so many characters the whole text is counted with each passage.
_SHORT: Final = 20_000
# Beyond, whenever it has doubled; or, when a passage found no room, grown by a sixteenth. All
# counts together are then some twice the last one, and at the worst 17 times.
_DOUBLED: Final = 2.0
_GROWN: Final = 1 + 1 / 16


class Packing:
    """The passages that are in, and the tokens that they take.

    Tokens can merge or split where passages meet, so what holds is the count of the whole
    text. Counting it with each passage takes quadratic time, so in a long text the passages'
    own counts are added up between two whole ones, and the end is a whole one again.

    Args:
        whole: Tokens of the text of some passages.
        alone: Tokens of a passage by itself, under that number's label.
        max_tokens: The budget.
    """

    def __init__(
        self,
        whole: Callable[[list[PackedPassage]], int],
        alone: Callable[[PackedPassage, int], int],
        max_tokens: int,
    ) -> None:
        self.chosen: list[PackedPassage] = []
        self._whole, self._alone, self._max_tokens = whole, alone, max_tokens
        self._tokens = 0
        self._length = 0  # characters of the chosen passages
        self._counted = 0  # as many of them when all was last counted

    def add(self, packed: PackedPassage) -> bool:
        """Puts the passage in, if it fits into what is left of the budget."""
        # Alone first, so that thousands of passages that have no place cost a short count each.
        alone = self._alone(packed, len(self.chosen) + 1)
        if self._tokens + alone > self._max_tokens and self._due(self._length, _GROWN):
            self._count()  # what was added up may have been too much
        if self._tokens + alone > self._max_tokens:
            return False
        before = self._tokens, self._length, self._counted
        self.chosen.append(packed)
        self._length += len(packed.text)
        if len(self.chosen) == 1:  # alone, it is the whole text
            self._tokens, self._counted = alone, self._length
            return True
        if not self._due(self._length, _DOUBLED):
            self._tokens += alone
            return True
        self._count()
        if self._tokens > self._max_tokens:
            self.chosen.pop()
            self._tokens, self._length, self._counted = before
            return False
        return True

    def finish(self) -> tuple[int, list[PackedPassage]]:
        """Tokens of the whole text, and what had to go so that they are within the budget.

        Nothing goes unless passages count more together than apart.
        """
        removed: list[PackedPassage] = []
        if self._length != self._counted:
            self._count()
        while self._tokens > self._max_tokens:
            held = len(self.chosen)
            kept = min(held - 1, held * self._max_tokens // self._tokens)
            removed += self.chosen[kept:]
            del self.chosen[kept:]
            self._count()
        return self._tokens, removed

    def _due(self, length: int, growth: float) -> bool:
        """Whether a text of so many characters is to be counted whole."""
        if length == self._counted:
            return False
        return length <= _SHORT or length >= self._counted * growth

    def _count(self) -> None:
        self._tokens, self._counted = self._whole(self.chosen), self._length
