"""How many exchanges of each conversation are open."""

from __future__ import annotations

from collections.abc import Set


class Holds:
    """Counts by what stands for a conversation; there are no more of them than open exchanges."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def __contains__(self, mark: bytes) -> bool:
        return mark in self._counts

    def marks(self) -> Set[bytes]:
        """Of which conversations one is open."""
        return self._counts.keys()

    def shared(self, mark: bytes) -> bool:
        """Whether more than one is open."""
        return self._counts.get(mark, 0) > 1

    def add(self, mark: bytes) -> None:
        """One more is open."""
        self._counts[mark] = self._counts.get(mark, 0) + 1

    def remove(self, mark: bytes) -> bool:
        """One is over; whether it was the last."""
        left = self._counts.pop(mark) - 1
        if left:
            self._counts[mark] = left
        return not left
