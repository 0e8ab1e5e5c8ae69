"""How many idle conversations move in a second."""

from __future__ import annotations

from gateway.admission import RateLimiter


class Moves:
    """A token bucket that holds one second's moves.  It goes on when the clock is set back."""

    __slots__ = ("_last", "_limiter", "_passed_s", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._limiter = RateLimiter(capacity=1)
        self._last = float("inf")
        self._passed_s = 0.0

    def allowed(self, now: float) -> bool:
        """Whether there is room for a move now; it takes it."""
        self._passed_s += max(0.0, now - self._last)
        self._last = now
        return self._limiter.take("moves", "", self._per_s, max(1.0, self._per_s), self._passed_s) == 0
