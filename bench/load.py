"""Closed-loop load: `python -m bench.load TARGET…` keeps so many requests in flight, and prints one line of JSON.

Several targets have their turns one after the other, in a new order each time: what a machine can do changes within
seconds, and so changes for all of them.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import resource
import time
from collections import Counter
from typing import Annotated

import typer
import uvloop

from bench.call import BODY, CONVERSATIONS, Connection
from bench.process import Watch
from bench.target import Target

_DRAIN_S = 10.0
_TURN_S = 0.5
_SETTLE_S = 0.1
"""Of each turn, before what is measured."""
STREAMS = 16
"""As a rule, requests in flight on each HTTP/2 connection under closed-loop load."""


def quantile(sorted_values: list[float], share: float) -> float:
    """The value below which `share` of `sorted_values` lie (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Closed:
    """A fixed number of requests in flight, until it is stopped."""

    def __init__(self, connections: list[Connection], streams: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.slots = [
            _Slot(self, connection, number * 37 % len(CONVERSATIONS))
            for number, connection in enumerate(
                connection for connection in connections for _ in range(min(streams, connection.capacity))
            )
        ]
        self.active = len(self.slots)
        self.stopping = False
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for slot in self.slots:
            slot.begin()
        for connection in connections:
            connection.flush()

    async def stop(self) -> None:
        """Let what is in flight come back, so that the proxy is left with a clean slate."""
        self.stopping = True
        await asyncio.wait([self.stopped], timeout=_DRAIN_S)


class _Slot:
    """One of the requests always in flight."""

    __slots__ = ("connection", "conversations", "load")

    def __init__(self, load: Closed, connection: Connection, first: int) -> None:
        self.load = load
        self.connection = connection
        self.conversations = itertools.cycle(CONVERSATIONS[first:] + CONVERSATIONS[:first])

    def begin(self) -> None:
        self.connection.start(b"POST", b"/run", next(self.conversations), BODY, self)

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, status: int) -> None:
        load = self.load
        load.statuses[status] += 1
        if not load.stopping and not self.connection.lost:
            self.begin()
            return
        load.active -= 1
        if not load.active and not load.stopped.done():
            load.stopped.set_result(None)


class _Measured:
    """A target, and what was found of it so far."""

    def __init__(self, connections: list[Connection], streams: int, pid: int) -> None:
        self.connections = connections
        self._streams = streams
        self._watch = Watch(pid)
        self._statuses: Counter[int] = Counter()
        self._unanswered = 0
        self._handoffs = 0
        self._concurrency = 0
        self._seconds = self._cpu_s = self._own_cpu_s = self._busy_s = 0.0

    async def turn(self, settle_s: float, seconds: float) -> None:
        """Load it for so long."""
        load, watch = Closed(self.connections, self._streams), self._watch
        await asyncio.sleep(settle_s)
        before, own, cpu, busy = load.statuses[200], _own_cpu_s(), watch.cpu_s(), watch.busy_s()
        started = time.monotonic()
        await asyncio.sleep(seconds)
        self._seconds += time.monotonic() - started
        self._handoffs += load.statuses[200] - before
        self._cpu_s += watch.cpu_s() - cpu
        self._own_cpu_s += _own_cpu_s() - own
        self._busy_s += watch.busy_s() - busy
        await load.stop()
        self._statuses += load.statuses
        self._unanswered += load.active
        self._concurrency = len(load.slots)

    def result(self) -> dict[str, object]:
        """Of all turns together."""
        return {
            "seconds": self._seconds,
            "handoffs": self._handoffs,
            "errors": self._statuses.total() - self._statuses[200] + self._unanswered,
            "statuses": {str(status): count for status, count in self._statuses.items()},
            "concurrency": self._concurrency,
            "cpu_s": self._cpu_s,
            "load_cpu_s": self._own_cpu_s,
            "core_busy_s": self._busy_s,
            "rss_bytes": self._watch.rss_bytes(),
        }


async def _measure(targets: list[Target], streams: int, warm_up_s: float, seconds: float) -> dict[str, object]:
    found = {target.name: _Measured(await target.connect(), streams, target.pid) for target in targets}
    for connections in [measured.connections for measured in found.values()]:
        load = Closed(connections, streams)
        await asyncio.sleep(warm_up_s)
        await load.stop()
    for _ in range(max(1, round(seconds / _TURN_S))):
        for name in random.sample(list(found), len(found)):
            await found[name].turn(_SETTLE_S, min(_TURN_S, seconds))
    return {name: measured.result() for name, measured in found.items()}


def main(
    targets: Annotated[list[str], typer.Argument(help="Each a `Target`.", metavar="TARGET...")],
    streams: Annotated[int, typer.Option(help="Requests in flight on each HTTP/2 connection.")] = STREAMS,
    warm_up: Annotated[float, typer.Option(help="Seconds for each, before its first turn.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Measured, for each.")] = 5.0,
) -> None:
    """As many handoffs as it does with a fixed number in flight."""
    gc.disable()
    asked = [Target.read(target) for target in targets]
    print(json.dumps(uvloop.run(_measure(asked, streams, warm_up, seconds))))


if __name__ == "__main__":
    typer.run(main)
