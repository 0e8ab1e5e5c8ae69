"""From success and latency to a number: an agent's reliability, in eighths.  Pure."""

from __future__ import annotations

import math
from typing import Final

STEP: Final = 1 / 8
"""A share is a whole number of these, at least one: the ring changes seldom, and what gets no packets shows nothing."""

_HYSTERESIS: Final = 0.75 * STEP
"""A value has to be so far from the step it stands on to leave it."""

_BENEFIT_OF_THE_DOUBT: Final = 10
"""Successes that each agent is taken to have had: one failure of a few packets says little."""

_BATCH: Final = 20
"""Answers that make one latency: their geometric mean, so that one long packet makes no slow agent."""

_TOLERATED: Final = 2.0
"""An agent may take so many times as long as its peers' median."""

_SLOWEST: Final = 0.25
"""However slow, an agent is not worth less."""

_FORGOTTEN: Final = 5
"""Half-lives after which a latency that no answer has renewed is not known any more."""

MIN_PEERS: Final = 3
"""Agents of a capability whose latencies are known, for their median to mean anything."""


class Evidence:
    """What was observed of an agent, older things counting for less."""

    __slots__ = (
        "_at",
        "_bad",
        "_batch_good",
        "_batch_log",
        "_good",
        "_seen_bad",
        "_seen_good",
        "latency_at",
        "latency_s",
    )

    def __init__(self, now: float) -> None:
        self.begin(now, 0, 0, 0.0)

    def begin(self, now: float, good: int, bad: int, log_latency: float) -> None:
        """Know nothing; what is observed from here on is what goes beyond these counters."""
        self._at = now
        self._good = self._bad = 0.0
        self._seen_good, self._seen_bad = good, bad
        self._batch_good, self._batch_log = good, log_latency
        self.latency_s = 0.0
        """A peak EWMA; 0 when it is not known."""
        self.latency_at = now

    def observe(self, now: float, good: int, bad: int, log_latency: float, half_life_s: float) -> None:
        """Take in how far the counters have come since.

        The latency rises to a peak at once and comes down slowly, as that of Finagle's ``PeakEwma``.
        """
        if self.latency_s and now - self.latency_at > _FORGOTTEN * half_life_s:
            self.latency_s = 0.0
        if good == self._seen_good and bad == self._seen_bad and not self._bad:
            return  # nothing to add; what there is can decay later
        kept = 2 ** ((self._at - now) / half_life_s)
        self._good = self._good * kept + good - self._seen_good
        self._bad = self._bad * kept + bad - self._seen_bad
        self._seen_good, self._seen_bad, self._at = good, bad, now
        count = good - self._batch_good
        if count >= _BATCH:
            latency_s = math.exp((log_latency - self._batch_log) / count)
            if latency_s < self.latency_s:
                kept = 2 ** ((self.latency_at - now) / half_life_s)
                latency_s = self.latency_s * kept + latency_s * (1 - kept)
            self.latency_s, self.latency_at = latency_s, now
            self._batch_good, self._batch_log = good, log_latency

    @property
    def success(self) -> float:
        """The share of packets that fared well, 0 to 1."""
        if not self._bad:
            return 1.0
        return (self._good + _BENEFIT_OF_THE_DOUBT) / (self._good + self._bad + _BENEFIT_OF_THE_DOUBT)

    def speed(self, now: float, usual_s: float, half_life_s: float) -> float:
        """1 for an agent no slower than twice `usual_s`, less in proportion; what is long ago fades."""
        if not usual_s or self.latency_s <= _TOLERATED * usual_s:
            return 1.0
        slow = max(_SLOWEST, _TOLERATED * usual_s / self.latency_s)
        return 1 - (1 - slow) * 2 ** ((self.latency_at - now) / half_life_s)


def settle(value: float, current: float) -> float:
    """The eighth for `value`: still `current`, unless `value` is well away from it."""
    if abs(value - current) < _HYSTERESIS:
        return current
    return max(STEP, round(value / STEP) * STEP)


def ramp(reliability: float, passed_s: float, duration_s: float) -> float:
    """The share of an agent `passed_s` into its slow start: from a tenth to the whole, in eighths, rounded down."""
    if passed_s >= duration_s:
        return reliability
    share = reliability * (0.1 + 0.9 * passed_s / duration_s)
    return max(STEP, math.floor(share / STEP) * STEP)
