"""The load generator: `python -m bench.load closed|rate …` prints one line of JSON.

``closed`` keeps a fixed number of requests in flight.  ``rate`` sends at times drawn beforehand, whatever comes back
(Poisson arrivals), and measures from the time at which a request was meant to be sent: a stall is felt by every
request that it delayed, not only by the one it hit.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import resource
import time
from collections import Counter, deque
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.call import BODY, CONVERSATIONS, Connection
from bench.client import connect
from bench.pace import Timer
from bench.process import Watch

_DRAIN_S = 10.0
STREAMS = 16
"""As a rule, requests in flight on each HTTP/2 connection under closed-loop load."""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


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


async def _closed(
    connections: list[Connection], streams: int, warm_up_s: float, seconds: float, pid: int
) -> dict[str, object]:
    load = Closed(connections, streams)
    statuses = load.statuses
    await asyncio.sleep(warm_up_s)
    watch = Watch(pid)
    before, own, each, busy = statuses[200], _own_cpu_s(), watch.each_cpu_s(), watch.busy_s()
    started = time.monotonic()
    await asyncio.sleep(seconds)
    took, handoffs = time.monotonic() - started, statuses[200] - before
    used = [after - earlier for after, earlier in zip(watch.each_cpu_s(), each, strict=True)]
    own, busy = _own_cpu_s() - own, watch.busy_s() - busy
    await load.stop()
    return {
        "seconds": took,
        "handoffs": handoffs,
        "errors": statuses.total() - statuses[200] + load.active,
        "statuses": {str(status): count for status, count in statuses.items()},
        "concurrency": len(load.slots),
        "cpu_s": sum(used),
        "most_cpu_s": max(used),
        "load_cpu_s": own,
        "core_busy_s": busy,
        "rss_bytes": watch.rss_bytes(),
    }


class _Arrival:
    """One request of the schedule."""

    __slots__ = ("due", "rate")

    def __init__(self, rate: _Rate, due: float) -> None:
        self.rate = rate
        self.due = due

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, status: int) -> None:
        self.rate.ended(self.due, status)


class _Rate:
    """Sends what is due, remembers how long each took."""

    def __init__(self, connections: list[Connection], arrivals: deque[float], measure_from: float) -> None:
        self._connections = itertools.cycle(connections)
        self._count = len(connections)
        self._arrivals = arrivals
        self._measure_from = measure_from
        self._waiting: deque[float] = deque()
        self._conversations = itertools.cycle(CONVERSATIONS)
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


async def _rate(
    connections: list[Connection], per_second: float, warm_up_s: float, seconds: float, seed: int
) -> dict[str, object]:
    started = time.monotonic() + 0.1
    rng = random.Random(seed)
    arrivals: deque[float] = deque()
    at = started + rng.expovariate(per_second)
    while at < started + warm_up_s + seconds:
        arrivals.append(at)
        at += rng.expovariate(per_second)
    rate = _Rate(connections, arrivals, started + warm_up_s)
    await asyncio.wait([rate.done], timeout=0.1 + warm_up_s + seconds + _DRAIN_S)
    rate.close()
    latencies = sorted(rate.latencies_s)
    if not latencies:
        raise typer.BadParameter(f"no request was answered with 200; {rate.errors} failed")
    return {
        "rate": per_second,
        "measured": len(latencies),
        "errors": rate.errors,
        "p50_ms": quantile(latencies, 0.50) * 1000,
        "p90_ms": quantile(latencies, 0.90) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "max_ms": latencies[-1] * 1000,
        "sent_late_p99_ms": quantile(sorted(rate.late_s), 0.99) * 1000,
    }


Ports = Annotated[list[int], typer.Option("--port", help="Where to connect; may be given several times.")]
ProtocolName = Annotated[str, typer.Option("--protocol", help="h2 or http/1.1.")]
Certs = Annotated[Path | None, typer.Option("--certs", help="The SVIDs' folder; plaintext without it.")]
Connections = Annotated[int, typer.Option("--connections", help="How many connections.")]
WarmUp = Annotated[float, typer.Option("--warm-up", help="Seconds before the measured window.")]
Seconds = Annotated[float, typer.Option("--seconds", help="The measured window.")]


@app.command()
def closed(
    port: Ports,
    pid: Annotated[int, typer.Option(help="The process whose CPU is measured, children included.")],
    protocol: ProtocolName = "h2",
    certs: Certs = None,
    connections: Connections = 4,
    streams: Annotated[int, typer.Option(help="Requests in flight on each HTTP/2 connection.")] = STREAMS,
    warm_up: WarmUp = 1.0,
    seconds: Seconds = 5.0,
) -> None:
    """As many handoffs as it does with a fixed number in flight."""

    async def measure() -> dict[str, object]:
        opened = await connect(port, protocol, certs, connections)
        return await _closed(opened, streams, warm_up, seconds, pid)

    gc.disable()
    print(json.dumps(uvloop.run(measure())))


@app.command()
def rate(
    port: Ports,
    per_second: Annotated[float, typer.Option(help="Requests per second.")],
    seed: Annotated[int, typer.Option(help="Of the arrival times.")] = 1,
    protocol: ProtocolName = "h2",
    certs: Certs = None,
    connections: Connections = 4,
    warm_up: WarmUp = 1.0,
    seconds: Seconds = 5.0,
) -> None:
    """Latency at a given rate, from the intended send time."""

    async def measure() -> dict[str, object]:
        opened = await connect(port, protocol, certs, connections)
        return await _rate(opened, per_second, warm_up, seconds, seed)

    gc.disable()
    print(json.dumps(uvloop.run(measure())))


if __name__ == "__main__":
    app()
