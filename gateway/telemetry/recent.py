"""The latest decisions, to be explained by a packet's id."""

from __future__ import annotations

from collections import deque

from gateway.recorded import Decided, Recorded
from gateway.recording import record

MAX_RECENT = 1_000
"""Older ones are forgotten.  The heads of these packets stay in memory, each within ``maxHeaderBytes``."""


class Recent:
    """The last `MAX_RECENT` decisions."""

    def __init__(self) -> None:
        self._decisions: deque[Decided] = deque(maxlen=MAX_RECENT)
        self.add = self._decisions.append

    def latest(self) -> tuple[Decided, ...]:
        """All of them, the oldest first; may be called in any thread, since copying is one step of the interpreter."""
        return tuple(self._decisions)

    def find(self, flight_id: str) -> Recorded | None:
        """The latest decision on the packet with this id."""
        for decided in reversed(self._decisions):
            packet = decided.verdict.packet
            if packet is not None and packet.id == flight_id:
                return record(decided)
        return None
