"""How many idle conversations move in a second."""

from __future__ import annotations

from gateway.admission import RateLimiter


class Moves:
    """A token bucket that holds one second's moves."""

    __slots__ = ("_limiter", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._limiter = RateLimiter(capacity=1)

    def allowed(self, now: float) -> bool:
        """Whether there is room for a move now; it takes it."""
        return self._limiter.take("moves", "", self._per_s, max(1.0, self._per_s), now) == 0
