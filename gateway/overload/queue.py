"""A queue in which nobody can starve the rest: each key has its turn.  Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by key, first in first out; the keys take turns.

    What is pushed while k other keys have items is popped after at most k others for each item of its own key before
    it.  At `capacity` items the newest of the longest key loses: whoever asks for most is who is turned away.  Every
    operation takes the same time, whatever the queue holds.
    """

    __slots__ = ("_by_length", "_keys", "_longest", "_turns", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """How many items there may be; may be changed, and what is there stays."""
        self._keys: dict[T, str] = {}
        """Of the items."""
        self._turns: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        """Each key's items, the oldest first; the key whose turn it is stands first."""
        self._by_length: dict[int, OrderedDict[str, None]] = {}
        """Keys by how many items they have, those that came to it first standing first."""
        self._longest = 0

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._keys)

    def __contains__(self, item: object) -> bool:
        """Whether `item` is there."""
        return item in self._keys

    def __iter__(self) -> Iterator[T]:
        """All items, key by key."""
        for items in self._turns.values():
            yield from items

    def push(self, key: str, item: T) -> T | None:
        """Put `item` at the end of what `key` has.

        Args:
            key: whose it is.
            item: hashable, and not there yet.

        Returns:
            The item that lost its place, if one had to: perhaps `item` itself, which then was not put in.

        """
        loser: T | None = None
        items = self._turns.get(key)
        held = len(items) if items is not None else 0
        if len(self._keys) >= self.capacity:
            if held >= self._longest:
                return item
            loser = self.lose()
        if items is None:
            items = self._turns[key] = OrderedDict()
        items[item] = None
        self._keys[item] = key
        if held:
            self._leave(key, held)
        self._by_length.setdefault(held + 1, OrderedDict())[key] = None
        self._longest = max(self._longest, held + 1)
        return loser

    def pop(self) -> T:
        """Take the oldest item of the key whose turn it is.

        Raises:
            LookupError: there is none.

        """
        if not self._turns:
            raise LookupError("the queue is empty")
        key, items = next(iter(self._turns.items()))
        item, _ = items.popitem(last=False)
        del self._keys[item]
        self._turns.move_to_end(key)
        self._shrunk(key)
        return item

    def lose(self) -> T:
        """Take the newest item of the key with the most of them.

        Raises:
            LookupError: there is none.

        """
        if not self._longest:
            raise LookupError("the queue is empty")
        greedy = next(iter(self._by_length[self._longest]))
        item, _ = self._turns[greedy].popitem()
        del self._keys[item]
        self._shrunk(greedy)
        return item

    def remove(self, item: T) -> bool:
        """Take `item` out, wherever it stands; ``False`` when it is not there."""
        key = self._keys.pop(item, None)
        if key is None:
            return False
        del self._turns[key][item]
        self._shrunk(key)
        return True

    def _shrunk(self, key: str) -> None:
        """`key` has one item less."""
        left = len(self._turns[key])
        self._leave(key, left + 1)
        if left:
            self._by_length.setdefault(left, OrderedDict())[key] = None
        else:
            del self._turns[key]
        while self._longest and self._longest not in self._by_length:
            self._longest -= 1

    def _leave(self, key: str, length: int) -> None:
        """`key` no longer has `length` items."""
        keys = self._by_length[length]
        del keys[key]
        if not keys:
            del self._by_length[length]
