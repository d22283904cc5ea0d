"""Filling a budget: what is counted with a passage, when all is counted, and what has to go."""

from __future__ import annotations

from collections.abc import Callable

from rerank_plugins.context.packing import Packing
from rerank_plugins.context.records import ContextPassage, PackedPassage
from rerank_plugins.context.sentences import sentence_ends


def passage(length: int) -> PackedPassage:
    """One of so many characters."""
    text = "x" * length
    return PackedPassage("[1]", ContextPassage(text), 0, text)


class Counter:
    """A token per character, and more of all together; notes what it was asked."""

    def __init__(self, extra: Callable[[int], int] = lambda passages: 0) -> None:
        self.numbers: list[int] = []
        self.wholes = 0
        self.extra = extra

    def alone(self, packed: PackedPassage, number: int) -> int:
        """Of one passage, under its number."""
        self.numbers.append(number)
        return len(packed.text)

    def whole(self, chosen: list[PackedPassage]) -> int:
        """Of all that are in."""
        self.wholes += 1
        return sum(len(one.text) for one in chosen) + self.extra(len(chosen))


def test_a_passage_is_counted_under_the_number_that_it_would_have() -> None:
    """The next one; a passage without a place leaves its number to the one after."""
    counter = Counter()
    packing = Packing(counter.whole, counter.alone, max_tokens=25)
    assert [packing.add(passage(length)) for length in (10, 20, 15, 1)] == [
        True,
        False,
        True,
        False,
    ]
    assert counter.numbers == [1, 2, 2, 3]
    assert packing.finish() == (25, [])


def test_what_fits_exactly_needs_no_count_of_all() -> None:
    """A long text is counted again only where a passage would be too much."""
    counter = Counter()
    packing = Packing(counter.whole, counter.alone, max_tokens=23_000)
    for length in (12_000, 10_000):
        assert packing.add(passage(length))
    assert packing.add(passage(1_000))
    assert counter.wholes == 0  # the first passage alone is the whole text
    assert not packing.add(passage(1))
    assert counter.wholes == 1


def test_all_that_has_to_go_is_told() -> None:
    """In several rounds, where what goes first takes little with it."""
    counter = Counter(lambda passages: 45_000 if passages > 10 else 0)
    packing = Packing(counter.whole, counter.alone, max_tokens=60_000)
    some = [passage(15_000), *(passage(700) for _ in range(60))]
    kept = [one for one in some if packing.add(one)]
    before = list(packing.chosen)
    assert all(one is other for one, other in zip(kept, before, strict=True))
    tokens, removed = packing.finish()
    assert tokens <= 60_000
    assert len(packing.chosen) + len(removed) == len(before)
    assert {id(one) for one in packing.chosen + removed} == {id(one) for one in before}


def test_a_name_with_a_small_first_letter_continues_a_sentence() -> None:
    """Its first letter tells, whatever follows."""
    assert sentence_ends("The new version. iPhone and the rest. Then more") == [37]
