"""Latency at a given rate: `python -m bench.latency --per-second 500 TARGET…` prints one line of JSON.

Requests are sent at times drawn beforehand, whatever comes back (Poisson arrivals), and measured from the time at
which each was meant to be sent: a stall is felt by every request that it delayed, not only by the one it hit.

Several targets have their turns one after the other, in a new order each time and with the same arrivals: what the
machine does to a tail lasts for seconds, and so falls on all of them.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import uvloop

from bench.call import BODY, CONVERSATIONS, Connection
from bench.load import quantile
from bench.pace import Timer
from bench.process import module, run
from bench.target import Target

_DRAIN_S = 10.0
_TURN_S = 1.0
_SETTLE_S = 0.2
"""Of each turn, before what is measured."""
_AHEAD_S = 0.02
"""Between the making of a schedule and its beginning."""

Result = dict[str, Any]


def measure(
    targets: list[Target], per_second: float, warm_up_s: float, seconds: float, seed: int, core: int | None
) -> dict[str, Result]:
    """How long requests take, by target; times in milliseconds.

    Args:
        targets: each has its turns.
        per_second: requests.
        warm_up_s: for each, before its first turn.
        seconds: measured, for each.
        seed: of the arrivals, and of the order.
        core: the load's.

    Raises:
        BenchFailure: the load could not be made.

    """
    sizes = ("--per-second", per_second, "--warm-up", warm_up_s, "--seconds", seconds, "--seed", seed)
    command = module("bench.latency", *sizes, *(target.argument() for target in targets))
    found: dict[str, Result] = json.loads(run(command, core))
    return found


class _Arrival:
    """One request of the schedule."""

    __slots__ = ("due", "schedule")

    def __init__(self, schedule: _Schedule, due: float) -> None:
        self.schedule = schedule
        self.due = due

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, status: int) -> None:
        self.schedule.ended(self.due, status)


class _Schedule:
    """Sends what is due, remembers how long each took."""

    def __init__(
        self,
        connections: list[Connection],
        conversations: Iterator[bytes],
        arrivals: deque[float],
        measure_from: float,
    ) -> None:
        self._connections = itertools.cycle(connections)
        self._count = len(connections)
        self._arrivals = arrivals
        self._measure_from = measure_from
        self._waiting: deque[float] = deque()
        self._conversations = conversations
        self._left = len(arrivals)
        self._timer = Timer()
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        """How long after its time each request was really sent."""
        self.errors = 0
        self._loop.add_reader(self._timer.fd, self._fired)
        self._timer.set(arrivals[0])

    def _fired(self) -> None:
        self._timer.clear()
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] <= now:
            self._waiting.append(self._arrivals.popleft())
        if self._arrivals:
            self._timer.set(self._arrivals[0])
        self._send()

    def _send(self) -> None:
        while self._waiting:
            connection = self._free()
            if connection is None:
                return
            due = self._waiting.popleft()
            self.late_s.append(time.monotonic() - due)
            connection.start(b"POST", b"/run", next(self._conversations), BODY, _Arrival(self, due))
            connection.flush()

    def _free(self) -> Connection | None:
        for connection in itertools.islice(self._connections, self._count):
            if connection.in_flight < connection.capacity and not connection.lost:
                return connection
        return None

    def ended(self, due: float, status: int) -> None:
        """One request was answered, or never will be."""
        if status != 200:
            self.errors += 1
        elif due >= self._measure_from:
            self.latencies_s.append(time.monotonic() - due)
        self._left -= 1
        if self._waiting:
            self._send()
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        """Stop; what was not answered is an error."""
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()
        self.errors += self._left


class _Measured:
    """A target, and what was found of it so far."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections
        self._conversations = itertools.cycle(CONVERSATIONS)
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.errors = 0

    async def turn(self, per_second: float, settle_s: float, seconds: float, seed: str) -> None:
        """Send for so long, and wait for the answers."""
        rng = random.Random(seed)
        began = time.monotonic() + _AHEAD_S
        arrivals = deque([began])
        while (at := arrivals[-1] + rng.expovariate(per_second)) < began + settle_s + seconds:
            arrivals.append(at)
        schedule = _Schedule(self._connections, self._conversations, arrivals, began + settle_s)
        await asyncio.wait([schedule.done], timeout=_AHEAD_S + settle_s + seconds + _DRAIN_S)
        schedule.close()
        self.latencies_s += schedule.latencies_s
        self.late_s += schedule.late_s
        self.errors += schedule.errors

    def result(self, per_second: float) -> Result:
        """Of all turns together."""
        latencies = sorted(self.latencies_s)
        if not latencies:
            raise typer.BadParameter(f"no request was answered with 200; {self.errors} failed")
        return {
            "rate": per_second,
            "measured": len(latencies),
            "errors": self.errors,
            "p50_ms": quantile(latencies, 0.50) * 1000,
            "p90_ms": quantile(latencies, 0.90) * 1000,
            "p99_ms": quantile(latencies, 0.99) * 1000,
            "max_ms": latencies[-1] * 1000,
            "sent_late_p99_ms": quantile(sorted(self.late_s), 0.99) * 1000,
        }


async def _measure(
    targets: list[Target], per_second: float, warm_up_s: float, seconds: float, seed: int
) -> dict[str, Result]:
    found = {}
    for target in targets:
        opened = await target.connect()
        await _Measured(opened).turn(per_second, 0.0, warm_up_s, f"{seed} before")
        found[target.name] = _Measured(opened)
    order = random.Random(seed)
    for number in range(max(1, round(seconds / _TURN_S))):
        for name in order.sample(list(found), len(found)):
            await found[name].turn(per_second, _SETTLE_S, min(_TURN_S, seconds), f"{seed} {number}")
    return {name: measured.result(per_second) for name, measured in found.items()}


def main(
    targets: Annotated[list[str], typer.Argument(help="Each a `Target`.", metavar="TARGET...")],
    per_second: Annotated[float, typer.Option(help="Requests per second.")],
    seed: Annotated[int, typer.Option(help="Of the arrival times.")] = 1,
    warm_up: Annotated[float, typer.Option(help="Seconds for each, before its first turn.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Measured, for each.")] = 5.0,
) -> None:
    """Latency at a given rate, from the intended send time."""
    gc.disable()
    asked = [Target.read(target) for target in targets]
    print(json.dumps(uvloop.run(_measure(asked, per_second, warm_up, seconds, seed))))


if __name__ == "__main__":
    typer.run(main)
