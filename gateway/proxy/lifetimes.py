"""How long connections may live, and what the clocks on them came to.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

JITTER = 0.1
"""A connection's age may be this much less or more, so that those made together do not end together."""


CALLER, AGENT = "caller", "agent"
"""Whose connection it is."""


class Clock(Enum):
    """What ended a connection, or asked it to end."""

    HEADERS = "headers"
    """A caller began a request head and did not finish it in time."""
    IDLE = "idle"
    AGE = "age"
    SILENCE = "silence"
    """An agent with requests under way answered no PING."""


class Lifetimes:
    """Ends of connections, of callers and of agents."""

    __slots__ = ("_entropy", "counts")

    def __init__(self, entropy: Callable[[int], int]) -> None:
        """Args: `entropy` gives as many random bits as it is asked for."""
        self._entropy = entropy
        self.counts: dict[tuple[str, Clock], int] = {}
        """By whose connection it was."""

    def fired(self, side: str, clock: Clock) -> None:
        """Count one."""
        key = side, clock
        self.counts[key] = self.counts.get(key, 0) + 1

    def age_s(self, max_age_s: float) -> float:
        """How old this connection may become: `max_age_s`, more or less by up to `JITTER`."""
        return max_age_s * (1 + JITTER * (self._entropy(16) / 32768 - 1))


class Heading:
    """When the head that a peer is sending was first seen to be unfinished; looked at now and then."""

    __slots__ = ("_since", "_stream")

    def __init__(self) -> None:
        self._stream = 0
        self._since = 0.0

    def unfinished_s(self, stream: int, now: float) -> float:
        """For how long the head of `stream` is known to be unfinished; 0 when `stream` is 0, or another than before."""
        if stream != self._stream:
            self._stream, self._since = stream, now
        return now - self._since if stream else 0.0


class Unread:
    """Since when a peer has taken nothing of what waits for it; looked at now and then, while nothing is added."""

    __slots__ = ("_bytes", "_since")

    def __init__(self) -> None:
        self._bytes = 0
        self._since = 0.0

    def untaken_s(self, waiting: int, now: float) -> float:
        """For how long none of the `waiting` bytes is known to have been taken; 0 when there are none."""
        if not self._bytes or waiting < self._bytes:
            self._since = now
        self._bytes = waiting
        return now - self._since
