"""What is due when, to the second, at a constant cost an item."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Calendar(Generic[Item]):
    """Items by the second in which they are due.

    Adding and taking cost O(1) an item, and O(log n) for each distinct second.
    """

    __slots__ = ("_seconds", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, tuple[int, list[Item]]] = {}
        self._seconds: list[int] = []
        """A heap of the keys of `_slots`."""

    def add(self, item: Item, due_s: float) -> int:
        """Note `item` for `due_s`, rounded up to a whole second.

        The second is returned, as one object for all items of that second: a million of them cost no more than one.
        """
        second = math.ceil(due_s)
        slot = self._slots.get(second)
        if slot is None:
            slot = self._slots[second] = (second, [])
            heapq.heappush(self._seconds, second)
        slot[1].append(item)
        return slot[0]

    def take(self, now: float) -> Item | None:
        """Remove and return an item that is due at `now`, ``None`` when there is none."""
        while self._seconds and self._seconds[0] <= now:
            items = self._slots[self._seconds[0]][1]
            if items:
                return items.pop()
            del self._slots[heapq.heappop(self._seconds)]
        return None
