"""The door, with an event loop and clocks of a test's own: who comes in, who waits, who is turned away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from gateway.overload import Caller, Door, Entry, Level, OverloadSpec
from gateway.overload.door import BURST, QUIET_S
from tests.overload.simulation import CAPACITY_PER_S, World

COST_S = 0.0001
"""What a request costs the loop once it is let in."""


class Loop:
    """An event loop whose only work is what comes through the door."""

    def __init__(self, **settings: object) -> None:
        self.now = 100.0
        self.due: list[Callable[[], None]] = []
        self.door = Door(
            OverloadSpec.model_validate(settings),
            soon=self.due.append,
            clock=lambda: self.now,
            work=lambda: self.now,
            random=lambda: 0.5,
        )
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}
        self.turned_away: Counter[Entry] = Counter()

    def turn(self) -> None:
        due, self.due[:] = list(self.due), []
        for call in due:
            call()
        self.now += COST_S

    def come(self, caller: Caller, connection: object = None) -> None:
        entry = self.door.knock(caller, self.now)
        request = Request(self, caller, connection or object())
        if entry is Entry.IN:
            request.enter()
        elif entry is Entry.WAIT:
            self.door.wait(request, self.now)
        else:
            self.turned_away[entry] += 1


class Request:
    """One that comes to the door."""

    def __init__(self, loop: Loop, caller: Caller, connection: object) -> None:
        self.loop = loop
        self.caller = caller
        self.connection = connection
        self.since = 0.0
        self.came = loop.now

    def enter(self) -> None:
        self.loop.served[self.caller.name] += 1
        self.loop.waits.setdefault(self.caller.name, []).append(self.loop.now - self.came)
        self.loop.now += COST_S

    def turn_away(self, entry: Entry) -> None:
        self.loop.turned_away[entry] += 1


def test_whoever_comes_to_an_idle_gateway_comes_in() -> None:
    loop = Loop()
    caller = loop.door.welcome("a")
    for _ in range(1000):
        loop.come(caller)
        loop.turn()
        loop.turn()
    assert loop.served == {"a": 1000}


def test_a_burst_is_served() -> None:
    loop = Loop()
    caller = loop.door.welcome("a")
    for _ in range(250):
        loop.come(caller)
    assert loop.served["a"] < 50  # the others wait for their turns
    while loop.due:
        loop.turn()
    assert loop.served == {"a": 250}
    assert not loop.turned_away


def test_a_polite_caller_is_served_at_once_beside_a_greedy_one() -> None:
    loop = Loop()
    greedy, polite = loop.door.welcome("greedy"), loop.door.welcome("polite")
    for number in range(3000):
        for _ in range(40):  # four times what a turn can do
            loop.come(greedy)
        if number % 10 == 0:
            loop.come(polite)
        loop.turn()
    assert loop.served["polite"] == 300
    assert max(loop.waits["polite"]) < 0.01
    assert loop.turned_away[Entry.FULL] + loop.turned_away[Entry.QUEUE] + loop.turned_away[Entry.LATE] > 10_000


def test_a_long_queue_turns_one_after_the_other_away_and_not_all_at_once() -> None:
    loop = Loop(maxWaiting=256)
    loop.door.turned_away_at = loop.now  # it is no quiet time
    caller = loop.door.welcome("a")
    for _ in range(256):
        loop.come(caller)
    for _ in range(1000):  # as many come as are served
        before = loop.served["a"]
        loop.turn()
        for _ in range(loop.served["a"] - before):
            loop.come(caller)
    assert 5 < loop.turned_away[Entry.QUEUE] < 300
    assert loop.turned_away.keys() == {Entry.QUEUE}
    assert loop.waits["a"][-1] < loop.waits["a"][260]


def test_what_waits_on_a_connection_is_turned_away_together_and_the_others_stay() -> None:
    loop = Loop(maxWaiting=30)
    caller = loop.door.welcome("a")
    connections = [object() for _ in range(3)]
    number = 0
    while not loop.turned_away:
        loop.come(caller, connections[number % 3])
        number += 1
    assert loop.turned_away == {Entry.FULL: 10 * BURST + 1}  # a third, and the one that was too much
    assert len({each.connection for each in loop.door.queue}) == 2


def test_a_thousand_at_once_are_served_after_a_quiet_while_and_are_overload_soon_after() -> None:
    loop = Loop()
    caller = loop.door.welcome("a")
    connections = [object() for _ in range(10)]

    def come_at_once(count: int) -> Counter[Entry]:
        loop.turned_away.clear()
        for number in range(count):
            loop.come(caller, connections[number % 10])
        while loop.due:
            loop.turn()
        return loop.turned_away

    assert not come_at_once(1000)
    assert come_at_once(10_000)[Entry.FULL] > 5000
    assert come_at_once(1000)[Entry.FULL] > 500
    loop.now += QUIET_S + 1
    assert not come_at_once(1000)


@pytest.mark.parametrize("callers", [64, 256])
def test_of_four_times_the_load_nearly_as_much_is_served_as_at_the_peak_and_nearly_as_fast(callers: int) -> None:
    unloaded = World(callers=callers, times=0.05, seed=1).run(1, 3)
    flooded = World(callers=callers, times=4, seed=1).run(5, 3)
    assert flooded.good_per_s > 0.8 * CAPACITY_PER_S
    assert flooded.quantile_s(0.99) < 4 * unloaded.quantile_s(0.99)


def test_nothing_is_counted_twice_and_nothing_forgotten() -> None:
    loop = Loop(maxWaiting=50)
    callers = [loop.door.welcome(f"caller-{number}") for number in range(7)]
    came = 0
    for number in range(500):
        for caller in callers[: number % 8]:
            for _ in range(9):
                loop.come(caller)
                came += 1
        loop.turn()
    while loop.due:
        loop.turn()
    assert loop.served.total() + loop.turned_away.total() == came
    assert loop.door.shed == loop.turned_away
    assert sum(loop.door.sweep(loop.now).values()) == loop.turned_away.total()


def test_a_caller_has_so_many_under_way_over_all_its_connections() -> None:
    loop = Loop(maxInFlightPerPrincipal=2)
    caller, same = loop.door.welcome("a"), loop.door.welcome("a")
    assert caller is same
    caller.in_flight = 2
    assert loop.door.knock(same, loop.now) is Entry.CONCURRENCY
    assert loop.door.knock(loop.door.welcome("b"), loop.now) is Entry.IN


def test_a_caller_that_sends_too_often_is_told_when_to_come_again() -> None:
    loop = Loop(ratePerPrincipal="2/m")
    caller = loop.door.welcome("a")
    assert [loop.door.knock(caller, loop.now) for _ in range(3)] == [Entry.IN, Entry.IN, Entry.RATE]
    assert loop.door.retry_after_s(Entry.RATE) == 30
    loop.now += 30
    loop.turn()
    assert loop.door.knock(caller, loop.now) is Entry.IN


def test_who_is_gone_is_forgotten() -> None:
    loop = Loop()
    first, second = loop.door.welcome("a"), loop.door.welcome("a")
    loop.door.goodbye(first)
    assert loop.door.welcome("a") is second
    loop.door.goodbye(second)
    loop.door.goodbye(second)
    assert loop.door.welcome("a") is not second


@pytest.mark.parametrize("level", Level)
def test_from_the_second_level_on_nobody_comes_in(level: Level) -> None:
    loop = Loop()
    loop.door.level = level
    expected = Entry.LEVEL if level >= Level.NO_STREAMS else Entry.IN
    assert loop.door.knock(loop.door.welcome("a"), loop.now) is expected


def test_the_more_are_turned_away_the_later_they_are_told_to_come_again() -> None:
    loop = Loop(maxWaiting=1)
    caller = loop.door.welcome("a")
    usual = loop.door.retry_after_s(Entry.FULL)
    for _ in range(500):
        loop.come(caller)
    loop.now += 1
    loop.door.sweep(loop.now)
    assert usual < loop.door.retry_after_s(Entry.FULL) <= 30
