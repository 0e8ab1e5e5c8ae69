"""How many lines a second the access log takes, and what is told of those that it does not.  Pure.

Enters: handoffs, the time.  Leaves: whether each gets a line; one `Suppressed` for those that got none.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.suppressed import Suppressed, SuppressedKind

WINDOW_S: Final = 1.0
MAX_FIRSTS: Final = 100
"""Callers and reasons that get a line of their own in each second, whatever the others do."""
MAX_KINDS: Final = 1000
"""Told apart while they are counted; then those told of by name, the most frequent ones."""
MAX_TOLD: Final = 20

_ENDED: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.OPEN)

Kind = tuple[str, str, str]
"""Outcome, reason, caller."""


class Flood:
    """Lets so many lines pass in each second."""

    def __init__(self, most: int, most_refused: int) -> None:
        """Take the bounds.

        Args:
            most: lines a second.
            most_refused: the same of handoffs that did not complete, beside the first of each caller and reason.

        """
        self.suppressed: dict[Outcome, int] = dict.fromkeys(_ENDED, 0)
        """All that got no line, by outcome."""
        self._most = most
        self._most_refused = most_refused
        self._until = 0.0
        self._lines = 0
        self._refused = 0
        self._firsts = 0
        self._told_of: set[Kind] = set()
        """Kinds of refused ones that have a line in this second."""
        self._untold: Counter[Kind] = Counter()
        self._others = 0

    def retune(self, most: int, most_refused: int) -> None:
        """Go by other bounds, as given to begin with."""
        self._most = most
        self._most_refused = most_refused

    def admits(self, handoff: Handoff, now: float) -> bool:
        """Whether it gets a line; `now` in seconds of a clock that does not go back."""
        if now >= self._until:
            self._until = now + WINDOW_S
            self._lines = self._refused = self._firsts = 0
            self._told_of.clear()
        completed = handoff.outcome is Outcome.COMPLETED
        if not (self._lines < self._most if completed else self._admits_refused(handoff)):
            self._count(handoff)
            return False
        self._lines += 1
        return True

    def _admits_refused(self, handoff: Handoff) -> bool:
        kind = _kind(handoff)
        if self._refused < min(self._most_refused, self._most - self._lines):
            self._refused += 1
        elif self._firsts < MAX_FIRSTS and kind not in self._told_of:
            self._firsts += 1
        else:
            return False
        self._told_of.add(kind)
        return True

    def _count(self, handoff: Handoff) -> None:
        self.suppressed[handoff.outcome] += 1
        kind = _kind(handoff)
        if kind in self._untold or len(self._untold) < MAX_KINDS:
            self._untold[kind] += 1
        else:
            self._others += 1

    def told(self, time: datetime) -> Suppressed | None:
        """What got no line since it was last told; ``None`` when all did."""
        untold, others = self._untold, self._others
        self._untold, self._others = Counter(), 0
        if not untold:
            return None
        most = untold.most_common(MAX_TOLD)
        kinds = tuple(SuppressedKind(outcome, count, reason, caller) for (outcome, reason, caller), count in most)
        total = untold.total() + others
        return Suppressed(time, total, kinds, total - sum(count for _, count in most))


def _kind(handoff: Handoff) -> Kind:
    return handoff.outcome.value, handoff.reason, handoff.caller
