"""A gateway whose event loop, callers and agents are simulated; only the door is real."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from gateway.overload import Caller, Door, Entry, OverloadSpec

READ_S, BEGIN_S, RELAY_S, REFUSE_S = 40e-6, 60e-6, 50e-6, 20e-6
"""What the event loop spends on a request's head, on its way to the agent, on its answer, or on turning it away."""
AGENT_S = 0.02
CAPACITY_PER_S = 1 / (READ_S + BEGIN_S + RELAY_S)
ROUND_TRIP_S = 0.0005


@dataclass
class Found:
    """What came of a run, its beginning left out."""

    good_per_s: float = 0.0
    turned_away: int = 0
    latencies_s: list[float] = field(default_factory=list)

    def quantile_s(self, share: float) -> float:
        return sorted(self.latencies_s)[int(share * len(self.latencies_s))]


class Request:
    """One of a simulated caller's."""

    def __init__(self, world: World, caller: Caller, number: int, sent: float) -> None:
        self.world = world
        self.caller = caller
        self.number = number
        self.connection = world.connections[number]
        self.sent = sent
        self.since = 0.0

    def enter(self) -> None:
        world = self.world
        world.now += BEGIN_S
        heapq.heappush(world.coming, (world.now + AGENT_S, next(world.order), self.answered))

    def answered(self) -> None:
        world = self.world
        world.now += RELAY_S
        if self.sent >= world.measure_from:
            world.found.latencies_s.append(world.now - self.sent + ROUND_TRIP_S / 2)

    def turn_away(self, entry: Entry) -> None:
        world = self.world
        world.now += REFUSE_S
        if self.sent >= world.measure_from:
            world.found.turned_away += 1
        world.away_until[self.number] = world.now + ROUND_TRIP_S / 2 + world.door.retry_after_s(entry)


class World:
    """Runs; callers send as a Poisson process, and honour ``retry-after``."""

    def __init__(self, *, callers: int, times: float, seed: int, principals: int = 1, **settings: object) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.order = itertools.count()
        self.coming: list[tuple[float, int, Callable[[], None]]] = []
        self.soon: deque[Callable[[], None]] = deque()
        self.door = Door(
            OverloadSpec.model_validate(settings),
            soon=self.soon.append,
            clock=lambda: self.now,
            work=lambda: self.now - self.idle_s,
            random=self.random.random,
        )
        self.idle_s = 0.0
        self.found = Found()
        self.measure_from = 0.0
        self.away_until = [0.0] * callers
        self._callers = [self.door.welcome(f"caller-{number % principals}") for number in range(callers)]
        self.connections = [object() for _ in range(callers)]
        self._rate = times * CAPACITY_PER_S / callers
        for number in range(callers):
            self._next(number, 0.0)

    def _next(self, number: int, after: float) -> None:
        due = after + self.random.expovariate(self._rate)
        heapq.heappush(self.coming, (due + ROUND_TRIP_S / 2, next(self.order), lambda: self._arrive(number, due)))

    def _arrive(self, number: int, due: float) -> None:
        self._next(number, due)
        if due < self.away_until[number]:
            return
        self.now += READ_S
        caller = self._callers[number]
        request = Request(self, caller, number, due)
        entry = self.door.knock(caller, self.now)
        if entry is Entry.IN:
            request.enter()
        elif entry is Entry.WAIT:
            self.door.wait(request, self.now)
        else:
            request.turn_away(entry)

    def run(self, warm_up_s: float, seconds: float) -> Found:
        self.measure_from = warm_up_s
        swept = 0.0
        while self.now < warm_up_s + seconds:
            for _ in range(len(self.soon)):
                self.soon.popleft()()
            polled = self.now
            while self.coming and self.coming[0][0] <= polled:
                heapq.heappop(self.coming)[2]()
            if self.now - swept > 1:
                swept = self.now
                self.door.sweep(self.now)
            if not self.soon and self.coming[0][0] > self.now:
                self.idle_s += self.coming[0][0] - self.now
                self.now = self.coming[0][0]
        self.found.good_per_s = len(self.found.latencies_s) / seconds
        return self.found
