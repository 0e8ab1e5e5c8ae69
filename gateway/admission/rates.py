"""Token buckets: how much of something a subject may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.admission.calendar import Calendar

DEFAULT_CAPACITY: Final = 100_000
WAIT_WHEN_FULL_S: Final = 1.0
_LOOKED_AT_PER_CALL = 4
_CLOCK_ERROR_S = 1e-6
"""By which floating-point seconds since the epoch may be off; the bucket owes the difference, so it never adds up."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    """When it had so many."""
    full_at: float


class RateLimiter:
    """Token buckets by rule and subject.

    A full bucket is as good as none, and goes.  At `capacity` buckets that are not full, subjects without one wait.
    """

    __slots__ = ("_buckets", "_calendar", "_capacity")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._calendar: Calendar[tuple[str, str]] = Calendar()
        """When to look whether a bucket is full; each bucket stands in it once."""

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def take(self, rule: str, subject: str, rate_per_s: float, burst: float, now: float) -> float:
        """Take a token out of the bucket of `subject` under `rule`.

        Args:
            rule: what limits.
            subject: who is limited.
            rate_per_s: how many tokens come back in a second; above 0.
            burst: how many there are at most; at least 1.
            now: seconds, of any clock that does not go back.

        Returns:
            0.0 when there was one, else the seconds until there is.

        """
        self._drop_full(now)
        key = (rule, subject)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                return WAIT_WHEN_FULL_S
            bucket = self._buckets[key] = _Bucket(burst, now, now)
            self._calendar.add(key, now)
        tokens = min(burst, bucket.tokens + (now - bucket.at) * rate_per_s)
        wait = (1 - tokens) / rate_per_s
        if wait <= _CLOCK_ERROR_S:
            tokens, wait = tokens - 1, 0.0
        bucket.tokens, bucket.at, bucket.full_at = tokens, now, now + (burst - tokens) / rate_per_s
        return wait

    def _drop_full(self, now: float) -> None:
        """Drop buckets that are full: more than a call adds, yet never so many that it takes long."""
        turns = _LOOKED_AT_PER_CALL
        while turns > 0 or len(self._buckets) >= self._capacity:
            key = self._calendar.take(now)
            if key is None:
                return
            turns -= 1
            full_at = self._buckets[key].full_at
            if full_at > now:
                self._calendar.add(key, full_at)
            else:
                del self._buckets[key]
