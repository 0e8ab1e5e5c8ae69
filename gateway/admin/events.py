"""Events for those who look on: what they say, and streams of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec

from gateway.admin.filters import Filter

MAX_QUEUED: Final = 200
"""Handoffs that wait for one reader; of more the oldest are dropped, and counted.  With `GATHER_S` it bounds what a
reader costs, however many handoffs there are: 2,000 a second."""
GATHER_S: Final = 0.1
"""How long events are gathered after a reader was sent some."""
RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser that lost the stream asks again."""


class State(msgspec.Struct, frozen=True):
    """The event ``state``."""

    time: datetime
    ready: bool
    revision: str
    in_flight: int
    connections: int
    handoffs_per_s: float
    refused_per_s: float
    failed_per_s: float
    loop_lag_ms: float
    overload_level: int
    approvals: int = 0
    """Packets that wait for one."""
    dropped: int = 0
    """Handoffs that this reader has missed, being too slow for them."""


class Reader:
    """One stream of events."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.dropped = 0
        self._handoffs: deque[bytes] = deque()
        self._state: State | None = None
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, event: bytes) -> None:
        """A handoff, as an event."""
        if len(self._handoffs) >= MAX_QUEUED:
            self._handoffs.popleft()
            self.dropped += 1
        self._handoffs.append(event)
        self._wake.set()

    def tell(self, state: State) -> None:
        """How things are now; what was told before and has not been sent is no news."""
        self._state = state
        self._wake.set()

    def close(self) -> None:
        """Send what is left, and end."""
        self._closed = True
        self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """The events, several at a time."""
        yield RETRY
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            pieces = [*self._handoffs]
            self._handoffs.clear()
            if self._state is not None:
                pieces.append(
                    event("state", msgspec.structs.replace(self._state, dropped=self._state.dropped + self.dropped))
                )
                self._state = None
            yield b"".join(pieces)
            await asyncio.sleep(GATHER_S)


def event(name: str, value: msgspec.Struct) -> bytes:
    """A server-sent event (WHATWG HTML, section 9.2): JSON has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(value))
