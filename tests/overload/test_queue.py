"""The fair queue, beside a naive one: turns, bounds, and who loses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.overload import FairQueue

KEYS = "abcd"
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(KEYS)),
        st.tuples(st.just("pop"), st.none()),
        st.tuples(st.just("remove"), st.integers(0, 80)),
    ),
    max_size=120,
)


class Naive:
    """The same with lists, looked through from end to end."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.turns: list[tuple[str, list[int]]] = []

    def items(self) -> list[int]:
        return [item for _, items in self.turns for item in items]

    def _of(self, key: str) -> list[int]:
        return next((items for known, items in self.turns if known == key), [])

    def _tidy(self) -> None:
        self.turns = [turn for turn in self.turns if turn[1]]

    def push(self, key: str, item: int) -> set[int]:
        """Those of whom one loses; none when there is room."""
        losers: set[int] = set()
        if len(self.items()) >= self.capacity:
            longest = max(len(items) for _, items in self.turns)
            if len(self._of(key)) == longest:
                return {item}
            losers = {items[-1] for _, items in self.turns if len(items) == longest}
        if not self._of(key):
            self.turns.append((key, []))
        self._of(key).append(item)
        return losers

    def lose(self, item: int) -> None:
        for _, items in self.turns:
            if item in items:
                items.remove(item)
        self._tidy()

    def pop(self) -> int:
        key, items = self.turns.pop(0)
        item = items.pop(0)
        self.turns.append((key, items))
        self._tidy()
        return item


@given(st.integers(1, 12), steps)
def test_it_does_what_a_naive_queue_does(capacity: int, script: list[tuple[str, object]]) -> None:
    queue: FairQueue[int] = FairQueue(capacity)
    naive = Naive(capacity)
    for number, (what, argument) in enumerate(script):
        if what == "push":
            loser = queue.push(str(argument), number)
            may_lose = naive.push(str(argument), number)
            assert (loser is None) == (not may_lose)
            if loser is not None:
                assert loser in may_lose
                naive.lose(loser)
        elif what == "pop":
            if len(queue):
                assert queue.pop() == naive.pop()
            else:
                with pytest.raises(LookupError):
                    queue.pop()
        else:
            assert isinstance(argument, int)
            assert queue.remove(argument) == (argument in naive.items())
            naive.lose(argument)
        assert list(queue) == naive.items()
        assert len(queue) == len(naive.items()) <= capacity


@given(st.lists(st.integers(0, 30), min_size=1, max_size=10))
def test_a_caller_with_one_item_waits_for_one_of_each_other_caller_at_most(greed: list[int]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(1000)
    for caller, count in enumerate(greed):
        for number in range(count):
            queue.push(f"greedy-{caller}", (f"greedy-{caller}", number))
    queue.push("polite", ("polite", 0))
    before: list[str] = []
    while (popped := queue.pop()[0]) != "polite":
        before.append(popped)
        queue.push(popped, (popped, 1000 + len(before)))  # and the greedy ones go on
    assert len(before) == len(set(before)) <= len(greed)


@given(st.integers(1, 20), st.integers(1, 100))
def test_the_greedy_caller_loses_never_the_others(capacity: int, greed: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(capacity)
    for number in range(greed):
        queue.push("greedy", ("greedy", number))
    loser = queue.push("polite", ("polite", 0))
    assert loser is None or loser[0] == "greedy" or capacity == 1
    for number in range(greed):
        loser = queue.push("greedy", ("greedy", greed + number))
        assert loser is None or loser[0] == "greedy" or capacity == 1
    assert len(queue) <= capacity
