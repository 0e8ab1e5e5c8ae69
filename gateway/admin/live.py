"""What happens now: rates, and streams of events for those who look on.

Fed by telemetry on the event loop, for each handoff once; what there is to encode is encoded once for all readers,
and only while there are any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Final, NamedTuple

from gateway.admin.events import Reader, State, event
from gateway.admin.filters import Filter
from gateway.admin.hits import Hits
from gateway.handoff import Handoff, Outcome
from gateway.verdict import Decided

MAX_READERS: Final = 32
"""Streams at a time; who comes later is told to come again."""
TICK_S: Final = 1.0
"""How often readers are told the state."""


class Now(NamedTuple):
    """How the gateway is."""

    ready: bool
    revision: str
    in_flight: int
    connections: int
    loop_lag_s: float
    overload_level: int
    approvals: int
    """Packets that wait for one."""


class Live:
    """Takes each handoff that ends."""

    def __init__(self, now: Callable[[], Now]) -> None:
        """Nobody looks on yet; `now` tells how the gateway is."""
        self._now = now
        self._readers: set[Reader] = set()
        self.hits = Hits()
        self._total = self._refused = self._failed = 0
        self._rates = (0.0, 0.0, 0.0)

    def add(self, handoff: Handoff, decided: Decided, record: bytes) -> None:
        """A handoff has ended; a sink of telemetry's."""
        self._total += 1
        if handoff.outcome is Outcome.REFUSED:
            self._refused += 1
        elif handoff.outcome is Outcome.FAILED:
            self._failed += 1
        self.hits.add(handoff, decided.verdict.shadow)
        if self._readers:
            self._show(handoff)

    def _show(self, handoff: Handoff) -> None:
        encoded = b""
        for reader in self._readers:
            if reader.wanted.wants(handoff):
                encoded = encoded or event("handoff", handoff)
                reader.offer(encoded)

    def state(self) -> State:
        """How the gateway is, and how much it has done in the last second."""
        now = self._now()
        return State(
            datetime.now(UTC),
            now.ready,
            now.revision,
            now.in_flight,
            now.connections,
            *self._rates,
            round(now.loop_lag_s * 1000, 3),
            now.overload_level,
            now.approvals,
        )

    def join(self, wanted: Filter) -> Reader | None:
        """A new reader, who is told the state at once; ``None`` where there are `MAX_READERS`."""
        if len(self._readers) >= MAX_READERS:
            return None
        reader = Reader(wanted)
        reader.tell(self.state())
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """A reader is gone."""
        self._readers.discard(reader)

    async def run(self) -> None:
        """Tell readers the state every now and then, until cancelled; then all streams end."""
        try:
            at, before = monotonic(), (self._total, self._refused, self._failed)
            while True:
                await asyncio.sleep(TICK_S)
                now, counts = monotonic(), (self._total, self._refused, self._failed)
                handoffs, refused, failed = (
                    round((count - was) / (now - at), 1) for count, was in zip(counts, before, strict=True)
                )
                self._rates = handoffs, refused, failed
                at, before = now, counts
                if self._readers:
                    state = self.state()
                    for reader in self._readers:
                        reader.tell(state)
        finally:
            for reader in self._readers:
                reader.close()
