"""What a replica was told of leases a moment ago, and goes by for a while without asking again."""

from __future__ import annotations

from collections import OrderedDict

_AGED_PER_NOTE = 4


class NearLeases:
    """Owners by what stands for a conversation, as the shared store said lately.

    It is good only while news of every change comes in: between `begin` and `end`.
    """

    __slots__ = ("_capacity", "_fresh_s", "_known", "_listening", "changes")

    def __init__(self, fresh_s: float, capacity: int) -> None:
        """Nothing is known.

        Args:
            fresh_s: for how long what was told is gone by.
            capacity: leases; beyond it those noted first are forgotten.

        """
        self.changes = 0
        """Grows with each piece of news: an answer to a question from before it may be out of date."""
        self._fresh_s = fresh_s
        self._capacity = capacity
        self._listening = False
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        """The owner, and until when; those first that are over first."""

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def begin(self) -> None:
        """From now on, news come in."""
        self._listening = True

    def end(self) -> None:
        """News may be missed."""
        self._listening = False
        self.changes += 1
        self._known.clear()

    def owner(self, mark: bytes, now: float) -> str:
        """Whose the lease under `mark` is; empty when that has to be asked.

        Args:
            mark: what stands for the conversation.
            now: seconds, of a clock that only goes on.

        """
        known = self._known.get(mark)
        return known[0] if known is not None and known[1] > now else ""

    def note(self, mark: bytes, owner: str, now: float, changes: int) -> None:
        """The store said so; `changes` is what they were when it was asked."""
        if not self._listening or changes != self.changes:
            return
        self._known.pop(mark, None)
        self._known[mark] = owner, now + self._fresh_s
        for _ in range(_AGED_PER_NOTE):
            oldest = next(iter(self._known))
            if self._known[oldest][1] > now and len(self._known) <= self._capacity:
                break
            del self._known[oldest]

    def forget(self, mark: bytes) -> None:
        """News: the lease under `mark` is, or is about to be, another's."""
        self.changes += 1
        self._known.pop(mark, None)
