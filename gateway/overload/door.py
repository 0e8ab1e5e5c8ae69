"""The door: who comes in now, who waits a moment, who is turned away.  Pure; time comes in.

What is scarce in a gateway is its event loop.  How many requests are under way says little: an agent may take
minutes.  So the door counts what a turn of the loop spends on new requests, and puts off what is beyond that to the
next turn, in a queue that is fair to callers.  It measures the queue in work: the processor time that the loop has used
while a request waited, which is the same whether others use the machine or not.

A queue that is short now and then is a burst, and is served; after a quiet while it may be a long one, as of an agent
that begins a thousand things at once.  A queue that is full, or has been long for a while, is overload.  Then all
that waits on one connection, of the caller with the most, is turned away before anything was done for it; and after a
while that of another one, at shorter and shorter intervals, until it is short again (CoDel, RFC 8289, with
connections for packets).  Callers that honour ``retry-after`` stay away with all that they have: turning requests
away from each of them would leave nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from gateway.admission.rates import RateLimiter
from gateway.overload.levels import Level
from gateway.overload.queue import FairQueue
from gateway.overload.spec import OverloadSpec

MAX_RETRY_AFTER_S = 30
SPREAD_S = 8
"""Over which callers are asked to come again, at least."""
LONG_FOR_S = 0.2
"""How long the queue must have been long until somebody is turned away (RFC 8289 section 4.2)."""
BURST = 8
"""So many times `max_waiting` may wait when nobody was turned away for `QUIET_S`, until the queue is too long."""
QUIET_S = 10.0
"""Longer than most who were turned away stay away."""
BURST_S = 1.0
"""How long the queue may be long then."""
FORGOTTEN_AFTER = 16
"""So many times that after the last one, the intervals begin anew (RFC 8289 section 4.3 does the same)."""
COUNTED_S = 1.0
"""Over which it is counted how far the demand is above what is served."""
MAX_TOLD = 1000
"""Callers turned away within a second that are told of by name."""
_OTHERS = "others"


class Entry(Enum):
    """What becomes of a request at the door."""

    IN = "in"
    WAIT = "wait"
    QUEUE = "queue"
    """The queue has been long for a while; its connection was chosen, of the caller that has the most in it."""
    LATE = "late"
    """It waited for too long."""
    STALE = "stale"
    """Its connection was held while it waited to be read."""
    FULL = "full"
    """The queue is full; its connection was chosen likewise."""
    CONCURRENCY = "concurrency"
    """Its caller has too many requests under way."""
    RATE = "rate"
    """Its caller sends too often."""
    LEVEL = "level"
    """Memory or the event loop is at its limit: nobody comes in."""
    RECORDER = "recorder"
    """What comes in could not be recorded, and has to be: nobody comes in."""
    GONE = "caller-gone"
    """Its caller, or its caller's permission, went while it waited."""


class Caller:
    """A principal, over all its connections."""

    __slots__ = ("connections", "in_flight", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = 0
        self.in_flight = 0


class Visitor(Protocol):
    """A request that waits at the door."""

    caller: Caller
    since: float
    """The door's own: what work had been done when it came."""

    @property
    def connection(self) -> object:
        """On which it came."""

    def enter(self) -> None:
        """Come in."""

    def turn_away(self, entry: Entry) -> None:
        """Go: `entry` says why."""


class Door:
    """Stands before everything; asked once for each request."""

    def __init__(
        self,
        spec: OverloadSpec,
        *,
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
        work: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """Stand before the work that is to be done.

        Args:
            spec: how much is taken on.
            soon: has something called in the next turn of the event loop.
            clock: seconds, of a clock that does not stand still within a turn.
            work: seconds of processor time that the event loop has used.
            random: 0 to 1.

        """
        self._soon = soon
        self._clock = clock
        self._work = work
        self._random = random
        self._turn_s = spec.turn_s
        self._max_waiting = spec.max_waiting
        self._max_wait_s = spec.max_wait_s
        self._target_wait_s = spec.target_wait_s
        self._max_in_flight = spec.max_in_flight_per_principal
        self._rate = spec.rate_per_principal
        self._rates = RateLimiter()
        self._rate_wait_s = 0.0
        """How long the caller that was asked about last has to wait for its rate."""
        self._level = Level.NORMAL
        self._unrecorded = False
        self._shut: Entry | None = None
        """Why nobody comes in."""
        self.queue: FairQueue[Visitor] = FairQueue(spec.max_waiting)
        self._waiting: dict[object, dict[Visitor, None]] = {}
        """The same by connection."""
        self._callers: dict[str, Caller] = {}
        self._in_turn = False
        """Something came in this turn of the loop, or waits for the next."""
        self._turn_began = 0.0
        self._worked = 0.0
        """What work had been done when this turn began, or the first came to wait in it."""
        self._long_since = math.inf
        """Since when the queue has been long."""
        self._next_at = math.inf
        """When the next one is turned away, while it is long."""
        self._in_a_row = 0
        self.turned_away_at = -math.inf
        """When somebody was turned away last because of the load."""
        self.shed: dict[Entry, int] = {}
        """How many were turned away, by why."""
        self._let_in = 0
        self._turned_away = 0
        self._over = 0.0
        """How many were turned away for each that was let in, lately."""
        self._counted_from = 0.0
        self._told: dict[str, int] = {}

    def retune(self, spec: OverloadSpec) -> None:
        """Go by other bounds; who waits stays."""
        self._turn_s = spec.turn_s
        self._max_waiting = spec.max_waiting
        self._max_wait_s = spec.max_wait_s
        self._target_wait_s = spec.target_wait_s
        self._max_in_flight = spec.max_in_flight_per_principal
        self._rate = spec.rate_per_principal
        self.queue.capacity = spec.max_waiting

    # -- when nobody comes in ---------------------------------------------------------------------------

    @property
    def level(self) -> Level:
        """What is no longer done, for want of memory or of time."""
        return self._level

    @level.setter
    def level(self, level: Level) -> None:
        self._level = level
        self._shut_or_open()

    @property
    def unrecorded(self) -> bool:
        """Whether what comes in could not be recorded, and has to be."""
        return self._unrecorded

    @unrecorded.setter
    def unrecorded(self, unrecorded: bool) -> None:
        self._unrecorded = unrecorded
        self._shut_or_open()

    def _shut_or_open(self) -> None:
        if self._level >= Level.NO_STREAMS:
            self._shut = Entry.LEVEL
        else:
            self._shut = Entry.RECORDER if self._unrecorded else None

    # -- callers ----------------------------------------------------------------------------------------

    def welcome(self, name: str) -> Caller:
        """A connection of the caller `name` asks for something for the first time."""
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = Caller(name)
        caller.connections += 1
        return caller

    def goodbye(self, caller: Caller) -> None:
        """A connection that was welcomed is gone."""
        caller.connections -= 1
        if not caller.connections:
            self._callers.pop(caller.name, None)

    # -- requests ---------------------------------------------------------------------------------------

    def knock(self, caller: Caller, now: float) -> Entry:
        """Whether a request comes in: `Entry.IN` now; `Entry.WAIT`, by `wait`; else not, and that is counted."""
        if caller.in_flight >= self._max_in_flight:
            return self.refuse(Entry.CONCURRENCY, caller, now)
        rate = self._rate
        if rate is not None:
            self._rate_wait_s = self._rates.take("", caller.name, rate.per_s, rate.count, now)
            if self._rate_wait_s:
                return self.refuse(Entry.RATE, caller, now)
        if self._shut is not None:
            return self.refuse(self._shut, caller, now)
        if not self._in_turn:
            self._in_turn = True
            self._turn_began = now
            self._soon(self._next_turn)
        elif self.queue or now - self._turn_began > self._turn_s:
            return Entry.WAIT
        self._let_in += 1
        return Entry.IN

    def wait(self, visitor: Visitor, now: float) -> None:
        """`visitor` waits: it is told once, later, to enter or to go, unless it leaves before; or now to go."""
        if not self.queue:
            self._worked = self._work()
            quiet = now - self.turned_away_at > QUIET_S
            self.queue.capacity = self._max_waiting * BURST if quiet else self._max_waiting
        visitor.since = self._worked
        self._waiting.setdefault(visitor.connection, {})[visitor] = None
        loser = self.queue.push(visitor.caller.name, visitor)
        if loser is not None:
            self._turn_all_away(loser, Entry.FULL, now)

    def leave(self, visitor: Visitor) -> None:
        """`visitor` waits no longer."""
        if self.queue.remove(visitor):
            self._waits_no_more(visitor)

    def _waits_no_more(self, visitor: Visitor) -> None:
        connection = visitor.connection
        waiting = self._waiting[connection]
        del waiting[visitor]
        if not waiting:
            del self._waiting[connection]

    def refuse(self, entry: Entry, caller: Caller, now: float) -> Entry:
        """Count one that does not come in."""
        self.shed[entry] = self.shed.get(entry, 0) + 1
        name = caller.name
        if name not in self._told and len(self._told) >= MAX_TOLD:
            name = _OTHERS
        self._told[name] = self._told.get(name, 0) + 1
        self._turned_away += 1
        if entry is Entry.QUEUE or entry is Entry.LATE or entry is Entry.FULL:
            self.turned_away_at = now
        return entry

    def _turn_away(self, visitor: Visitor, entry: Entry, now: float) -> None:
        self.refuse(entry, visitor.caller, now)
        visitor.turn_away(entry)

    def _next_turn(self) -> None:
        """The event loop has begun another turn: let in who waits, as far as the turn's time goes."""
        queue = self.queue
        if not queue:
            self._in_turn = False
            return
        self._soon(self._next_turn)
        began = now = self._turn_began = self._clock()
        self._worked = self._work()
        while queue and now - began <= self._turn_s:
            visitor = queue.pop()
            self._waits_no_more(visitor)
            waited = self._worked - visitor.since
            if waited > self._max_wait_s:
                self._turn_away(visitor, Entry.LATE, now)
            else:
                self._shorten(waited, now)
                self._let_in += 1
                visitor.enter()
            now = self._clock()

    def _shorten(self, waited: float, now: float) -> None:
        """Turn one away, if the queue has been long for long enough: in work, too."""
        queue, worked = self.queue, self._worked
        if waited < self._target_wait_s or not queue:
            self._long_since = math.inf
            return
        if self._long_since > worked:
            self._long_since = worked
            # Shortly after it was long before, it goes on where it was.
            lately = worked - self._next_at < LONG_FOR_S * FORGOTTEN_AFTER
            self._in_a_row = max(0, self._in_a_row - 2) if lately else 0
            self._next_at = worked + (LONG_FOR_S if queue.capacity == self._max_waiting else BURST_S)
        elif worked >= self._next_at:
            self._in_a_row += 1
            self._next_at = worked + LONG_FOR_S / math.sqrt(self._in_a_row)
            queue.capacity = self._max_waiting
            self._turn_all_away(queue.lose(), Entry.QUEUE, now)

    def _turn_all_away(self, loser: Visitor, entry: Entry, now: float) -> None:
        """Turn `loser` away, and with it all that waits on its connection, which is now asked to send nothing.

        So much room at once means that as few callers as possible have to stay away.
        """
        waiting = self._waiting.pop(loser.connection)
        for each in waiting:
            self.queue.remove(each)
        for each in waiting:
            self._turn_away(each, entry, now)

    # -- how far over -----------------------------------------------------------------------------------

    def retry_after_s(self, entry: Entry) -> int:
        """When who was just turned away may come again, in seconds.

        The more are turned away, the later; jittered, so that they do not come at once.
        """
        jitter_s = int(self._random() * (SPREAD_S + self._over))
        if entry is Entry.RATE:
            return math.ceil(self._rate_wait_s)
        return min(MAX_RETRY_AFTER_S, 1 + jitter_s)

    def sweep(self, now: float) -> dict[str, int]:
        """How many were turned away since the last time, by caller."""
        if now - self._counted_from >= COUNTED_S:
            self._over = self._turned_away / max(1, self._let_in)
            self._let_in = self._turned_away = 0
            self._counted_from = now
        told, self._told = self._told, {}
        return told
