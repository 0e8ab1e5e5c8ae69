"""How a connection takes being turned away, and what is done about it.  Pure."""

from __future__ import annotations

import math
from enum import Enum

GRACE_S = 0.1
"""Requests that are turned away so soon after the first were on their way when its answer came."""
IGNORED_AT_MOST = 8
"""Requests within a `retry-after` that would have been turned away, too, until the connection is held."""
HOLDS_AT_MOST = 8
"""In a row, until the connection is closed."""
CALM_S = 30.0
"""After so long without being held, all is forgotten."""


class Push(Enum):
    """What is done about a connection."""

    NOTHING = "nothing"
    HOLD = "hold"
    """Read nothing of it for a while."""
    CLOSE = "close"
    """GOAWAY, or `connection: close`: it ends with its last answer."""


class Manners:
    """Of one connection."""

    __slots__ = ("_grace", "_held_at", "_holds", "_ignored", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        """Until then it was asked to send nothing."""
        self._grace = -math.inf
        self._ignored = 0
        self._holds = 0
        self._held_at = -math.inf

    def turned_away(self, now: float, retry_after_s: float) -> Push:
        """One of its requests was turned away, at `now`, and is told to come again after so long."""
        if now >= self.until:
            self.until = now + retry_after_s
            self._grace = now + GRACE_S
            self._ignored = 0
            return Push.NOTHING
        if now < self._grace:
            return Push.NOTHING
        self._ignored += 1
        if self._ignored < IGNORED_AT_MOST:
            return Push.NOTHING
        if now - self._held_at > CALM_S:
            self._holds = 0
        self._holds += 1
        self._held_at = now
        self._ignored = 0
        return Push.CLOSE if self._holds > HOLDS_AT_MOST else Push.HOLD

    def forgive(self) -> None:
        """The connection was held: what it sends from now on is looked at afresh."""
        self.until = -math.inf
