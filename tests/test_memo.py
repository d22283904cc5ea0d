"""Memory that is bounded by bytes."""

from __future__ import annotations

import threading
import tracemalloc

from rerank_plugins._memo import ByteBoundedDict, Memo, size_of_texts


def test_what_is_kept_is_computed_once() -> None:
    """However often it is asked for."""
    asked: list[str] = []

    def compute(word: str) -> tuple[str, ...]:
        asked.append(word)
        return (word.upper(),)

    memo = Memo(compute, max_bytes=100_000)
    assert [memo["a"], memo["b"], memo["a"]] == [("A",), ("B",), ("A",)]
    assert asked == ["a", "b"]


def test_the_bound_holds_whatever_comes() -> None:
    """Two hundred words of 200,000 characters, then half a million short ones."""
    memo = Memo(lambda word: (word,), max_bytes=4_000_000)
    tracemalloc.start()
    try:
        for number in range(200):
            memo[f"{number}" + "x" * 200_000]
        for number in range(300_000):
            memo[f"word {number}"]
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 5_000_000
    assert len(memo) + len(memo._older) > 1000


def test_what_is_used_stays_and_the_rest_is_forgotten() -> None:
    """Through any number of generations."""
    asked: list[int] = []
    memo = Memo(lambda key: asked.append(key) or key, max_bytes=20_000)
    for number in range(5000):
        memo[-1]
        memo[number]
    assert asked.count(-1) == 1
    asked.clear()
    memo[0]
    assert asked == [0]


def test_one_value_does_not_push_out_the_others() -> None:
    """It is given, and not kept."""
    kept: ByteBoundedDict[str, str] = ByteBoundedDict(10_000)
    kept.keep("a", "b")
    kept.keep("large", "x" * 5000)
    assert kept.find("a") == "b"
    assert kept.find("large") is None


def test_a_key_that_is_kept_twice_counts_once() -> None:
    """As does one that comes again from the older generation."""
    kept: ByteBoundedDict[str, str] = ByteBoundedDict(100_000)
    for _ in range(10_000):
        kept.keep("a", "b")
    assert kept.find("a") == "b"
    assert kept._held == size_of_texts("a", "b") + 100
    assert not kept._older


def test_many_threads_share_one() -> None:
    """And the count of bytes stays that of what is held."""
    memo = Memo(str, max_bytes=50_000)

    def work(seed: int) -> None:
        for number in range(3000):
            assert memo[(number * seed) % 997] == str((number * seed) % 997)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memo._held == sum(size_of_texts(*item) + 100 for item in memo.items())
    assert 2 * memo._held <= memo.max_bytes
