"""Whether a packet is sent once more, how soon, and how many of such there may be at a time.  Pure.

Enters: how an agent failed, what is under way, the time, randomness.  Leaves: yes or no, and a delay.  Knows no socket
and no timer; see docs/retries.md.
"""

from __future__ import annotations

from calendar import timegm
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from email.utils import parsedate_tz
from enum import Enum
from typing import NamedTuple

from gateway.headers import field_value, opens_tunnel
from gateway.messages import RequestHead
from gateway.packet import fields as names

MAX_KEPT_BYTES = 65536
"""A body up to here is kept, so that it can be sent again."""
MAX_WAITING = 256
"""Retries that wait for the budget; beyond it there is none for a packet."""
BUDGET_WAIT_S = 1.0
"""How long a retry waits for the budget: an agent that dies under load fails many packets at once."""
MAX_BENCH_S = 60.0
"""The longest ``retry-after`` that is believed: no agent benches itself for good by a mistake."""
MAX_BENCHED = 1024
UNTIMED_WAIT_S = 5.0
"""How long the retry of a packet without a deadline waits for the one agent that there is."""
CAP_FACTOR = 10
"""The longest delay, in base delays; as Envoy has it."""
RETRIED_STATUSES = frozenset({502, 503, 504})
"""Answers for which another agent may have a better one.  Not 429 or 500: they speak of the packet."""

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 section 9.2.2."""
_MAX_RETRY_AFTER_BYTES = 64


class Cause(Enum):
    """How an agent failed a packet."""

    UNREACHABLE = "unreachable"
    """No connection could be had."""
    UNTOUCHED = "untouched"
    """It did nothing with the request: not written yet, REFUSED_STREAM, or beyond a GOAWAY's last stream."""
    BROKEN_OFF = "broken-off"
    """Its connection or stream ended before an answer began."""
    ANSWERED = "answered"
    """By one of `RETRIED_STATUSES`."""


class Failure(NamedTuple):
    """An attempt that came to nothing; times of `time.perf_counter`."""

    agent: str
    cause: Cause
    asked_at: float
    """When a connection was asked for."""
    sent_at: float
    """When the request's head was on its way; 0 when it never was."""
    ended_at: float


UNTAKEN = frozenset({Cause.UNREACHABLE, Cause.UNTOUCHED})
"""Nobody has done anything with the request: whatever it is, it may be sent again."""


class Fate(Enum):
    """What came of a packet that an agent has failed."""

    RETRIED = "retried"
    NOT_SAFE = "not-safe"
    """It may have been done, and may not be done twice; or its body is kept no more."""
    ATTEMPTS_USED = "attempts-used"
    NO_TIME = "no-time"
    """Its deadline is over, or before the time at which the only agent takes packets again."""
    NOBODY_ELSE = "nobody-else"
    """No other agent is there for it."""
    BUDGET_EXHAUSTED = "budget-exhausted"


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """What retries may cost."""

    attempts: int = 3
    """Agents that are sent one packet, the first of them included."""
    budget_percent: int = 20
    """Of the packets under way, how many may be retries."""
    budget_floor: int = 3
    """So many may be, however few packets there are."""
    backoff_s: float = 0.025
    """The most that a first retry waits; doubled for the next, up to `CAP_FACTOR` times."""


class RetryBudget:
    """How many retries are under way, of how many packets: Envoy's ``retry_budget``.

    A retry counts from when it is granted, its delay included, until its packet ends or fails again.  One that is not
    granted may wait its turn: an agent that dies fails at once what it had, and these are sent on one after the other.
    """

    __slots__ = ("_active", "_floor", "_percent", "_waiting", "under_way")

    def __init__(self, active: Callable[[], int], *, percent: int = 20, floor: int = 3) -> None:
        """Args: `active` counts the packets under way, retries and those that wait for one included."""
        self.under_way = 0
        self._active = active
        self._percent = percent
        self._floor = floor
        self._waiting: deque[Callable[[], None]] = deque()

    def retune(self, *, percent: int, floor: int) -> None:
        """Go by another share."""
        self._percent = percent
        self._floor = floor

    @property
    def allowed(self) -> int:
        """How many retries may be under way now; those that wait make no room for themselves."""
        active = self._active() - len(self._waiting)
        return max(self._floor, active * self._percent // 100)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def take(self) -> bool:
        """Count one more, if there may be one, to be given back."""
        if self.under_way >= self.allowed:
            return False
        self.under_way += 1
        return True

    def wait(self, granted: Callable[[], None]) -> bool:
        """Have `granted` called when there may be one more, counted already; ``False`` when none is to be expected."""
        if not self.under_way or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(granted)
        return True

    def leave(self, granted: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.remove(granted)

    def give_back(self) -> None:
        """A retry is over: whoever has waited longest is next."""
        self.under_way -= 1
        while self._waiting and self.take():
            self._waiting.popleft()()


class Benches:
    """Agents that said when to come back (``retry-after``), by name, at most `MAX_BENCHED`."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def bench(self, name: str, seconds: float, now: float) -> None:
        """Pass the agent over for so long, at most `MAX_BENCH_S`.

        Args:
            name: the agent's.
            seconds: as it said.
            now: any clock's, the same in every call.

        """
        until = self._until
        until.pop(name, None)
        if seconds <= 0:
            return
        if len(until) >= MAX_BENCHED:
            self.out(now)
            if len(until) >= MAX_BENCHED:
                del until[min(until, key=until.__getitem__)]  # the one that would be back first
        until[name] = now + min(seconds, MAX_BENCH_S)

    def out(self, now: float) -> Collection[str]:
        """Names of those that are passed over."""
        until = self._until
        for name in [name for name, end in until.items() if end <= now]:
            del until[name]
        return until.keys()

    def soonest(self, names: Iterable[str]) -> tuple[float, str] | None:
        """Who of `names` is back first, and when; ``None`` when none of them is out."""
        until = self._until
        return min(((until[name], name) for name in names if name in until), default=None)


class Retries:
    """What all packets' retries share: their limits, the budget, who is passed over, and what came of them."""

    __slots__ = ("benches", "budget", "counts", "limits")

    def __init__(self, limits: RetryLimits, active: Callable[[], int]) -> None:
        self.limits = limits
        self.budget = RetryBudget(active, percent=limits.budget_percent, floor=limits.budget_floor)
        self.benches = Benches()
        self.counts: dict[tuple[Cause, Fate], int] = {}

    def retune(self, limits: RetryLimits) -> None:
        """Go by other limits."""
        self.limits = limits
        self.budget.retune(percent=limits.budget_percent, floor=limits.budget_floor)

    def count(self, cause: Cause, fate: Fate) -> None:
        """An agent has failed a packet."""
        key = cause, fate
        self.counts[key] = self.counts.get(key, 0) + 1


def repeatable(head: RequestHead) -> bool:
    """Whether the request may be done twice: by its method, or because its sender marked it so; a tunnel never.

    The mark is that of draft-ietf-httpapi-idempotency-key-header.
    """
    marked = bool(field_value(head.fields, names.IDEMPOTENCY_KEY))
    return not opens_tunnel(head) and (head.method in _IDEMPOTENT or marked)


def backoff_s(retry: int, base_s: float, random: float, left_s: float) -> float:
    """Seconds before a packet's `retry`-th retry: the "full jitter" of AWS's "Exponential Backoff And Jitter".

    Args:
        retry: from 1.
        base_s: the most that the first one waits.
        random: in [0, 1).
        left_s: what is left until the packet's deadline, which is not waited away.

    """
    longest: float = base_s * min(CAP_FACTOR, 1 << min(retry - 1, CAP_FACTOR))
    return random * min(longest, left_s)


def retry_after_s(value: bytes, now: float) -> float | None:
    """What a ``retry-after`` field says, in seconds from now, 0 or more; ``None`` when it says nothing.

    Args:
        value: delay-seconds, or an HTTP-date of any form (RFC 9110 sections 10.2.3 and 5.6.7).
        now: seconds since the epoch.

    """
    if len(value) > _MAX_RETRY_AFTER_BYTES:
        return None
    if value.isdigit():
        return float(value)
    try:
        parsed = parsedate_tz(value.decode("ascii"))
        # The form of asctime has no zone, and is UTC all the same.
        return max(0.0, timegm(parsed[:9]) - (parsed[9] or 0) - now) if parsed is not None else None
    except (ValueError, OverflowError):  # not ASCII, or no day that there is
        return None
