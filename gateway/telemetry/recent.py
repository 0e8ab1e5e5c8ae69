"""The latest handoffs, for those who look on and to be explained by a packet's id.

They are kept as text: a handoff as it was is dozens of objects with the head of its packet, and a thousand such push
out of the processor's caches what the next handoffs need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from gateway.handoff import Handoff
from gateway.recorded import Recorded
from gateway.recorder import Record
from gateway.recorder.compose import recorded
from gateway.recorder.record import record_in

MAX_RECENT = 1_000
"""Older ones are forgotten.  A record tells of its packet, and is bounded by ``maxHeaderBytes`` as that is."""

_handoff = msgspec.json.Decoder(Handoff).decode


class Recent:
    """The records of the last `MAX_RECENT` handoffs that ended, as `gateway.recorder.compose` makes them.

    May be read in any thread: copying all of them is one step of the interpreter.
    """

    def __init__(self) -> None:
        self._records: deque[bytes] = deque(maxlen=MAX_RECENT)
        self.add = self._records.append

    def handoffs(self) -> Iterator[Handoff]:
        """All of them, the newest first."""
        return map(_handoff, reversed(tuple(self._records)))

    def records(self) -> list[Record]:
        """All of them, the oldest first."""
        return [record_in(text) for text in tuple(self._records)]

    def find(self, flight_id: str) -> Recorded | None:
        """The latest decision on the packet with this id."""
        wanted = msgspec.json.encode(flight_id)
        for text in reversed(tuple(self._records)):
            if wanted in text:
                found = record_in(text)
                if found.flight_id == flight_id:
                    return recorded(found)
        return None
