"""More than the proxy can serve: `python -m bench.flood …` prints one line of JSON.

Many callers, each with a connection of its own, send at times drawn beforehand (Poisson arrivals), whatever comes back.
A caller that has a call too many under way drops what is due, and so does one that was asked to come later and honours
that.  Latency is that of answers with status 200, from the time at which their request was meant to be sent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from collections import Counter, deque
from pathlib import Path
from typing import Annotated, cast

import typer
import uvloop

from bench.call import BODY, CONVERSATIONS
from bench.client import connect
from bench.http2 import Http2Connection
from bench.load import quantile
from bench.machine import raise_file_limit
from bench.pace import Timer

_DRAIN_S = 2.0
_RECONNECT_S = 0.1
_TURNED_AWAY = (429, 503)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class _Flood:
    """What all callers share."""

    def __init__(self, arrivals: deque[tuple[float, int]], begin: float, path: bytes, *, honour: bool) -> None:
        self.arrivals = arrivals
        self.begin = begin
        self.path = path
        self.honour = honour
        self.statuses: Counter[int] = Counter()
        """Of requests that were due in the measured window."""
        self.held_back = 0
        self.unsent = 0
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.reconnects = 0
        self.callers: list[_Caller] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer = Timer()
        asyncio.get_running_loop().add_reader(self._timer.fd, self._fired)
        self._timer.set(arrivals[0][0])

    def _fired(self) -> None:
        self._timer.clear()
        now = time.monotonic()
        arrivals, callers = self.arrivals, self.callers
        touched: set[_Caller] = set()
        while arrivals and arrivals[0][0] <= now:
            due, number = arrivals.popleft()
            caller = callers[number]
            if caller.send(due, now):
                touched.add(caller)
        for caller in touched:
            caller.connection.flush()
        if arrivals:
            self._timer.set(arrivals[0][0])
        elif not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        """Send no more."""
        asyncio.get_running_loop().remove_reader(self._timer.fd)
        self._timer.close()


class _Caller:
    """One connection and its manners."""

    def __init__(self, flood: _Flood, connection: Http2Connection) -> None:
        self.flood = flood
        self.connection = connection
        self.until = 0.0

    def send(self, due: float, now: float) -> bool:
        flood = self.flood
        counts = due >= flood.begin
        if now < self.until:
            flood.held_back += counts
            return False
        if self.connection.lost or self.connection.in_flight >= self.connection.capacity:
            flood.unsent += counts
            return False
        conversation = CONVERSATIONS[int(due * 1e6) % len(CONVERSATIONS)]
        self.connection.start(b"POST", flood.path, conversation, BODY, _Sent(self, due))
        if counts:
            flood.late_s.append(now - due)
        return True


class _Sent:
    """One request under way."""

    __slots__ = ("caller", "due")

    def __init__(self, caller: _Caller, due: float) -> None:
        self.caller = caller
        self.due = due

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, status: int) -> None:
        caller, due = self.caller, self.due
        flood = caller.flood
        if due >= flood.begin:
            flood.statuses[status] += 1
            if status == 200:
                flood.latencies_s.append(time.monotonic() - due)
        if status in _TURNED_AWAY and flood.honour:
            caller.until = time.monotonic() + caller.connection.retry_after_s


async def _keep_connected(flood: _Flood, port: int, certs: Path) -> None:
    """Connect anew whoever lost its connection."""
    while True:
        await asyncio.sleep(_RECONNECT_S)
        for caller in flood.callers:
            if caller.connection.lost:
                try:
                    (fresh,) = await connect([port], "h2", certs, 1)
                except OSError:
                    break
                caller.connection = cast(Http2Connection, fresh)
                flood.reconnects += 1


async def _run(
    port: int,
    certs: Path,
    callers: int,
    per_second: float,
    work_ms: int,
    warm_up_s: float,
    seconds: float,
    seed: int,
    *,
    honour: bool,
) -> dict[str, object]:
    opened = await connect([port], "h2", certs, callers)
    rng = random.Random(seed)
    started = time.monotonic() + 0.1
    arrivals: deque[tuple[float, int]] = deque()
    at = started + rng.expovariate(per_second)
    while at < started + warm_up_s + seconds:
        arrivals.append((at, rng.randrange(callers)))
        at += rng.expovariate(per_second)
    flood = _Flood(arrivals, started + warm_up_s, b"/work?ms=%d" % work_ms, honour=honour)
    flood.callers = [_Caller(flood, cast(Http2Connection, connection)) for connection in opened]
    keeping = asyncio.create_task(_keep_connected(flood, port, certs))
    await flood.done
    keeping.cancel()
    flood.close()
    await asyncio.sleep(_DRAIN_S)
    latencies = sorted(flood.latencies_s) or [float("inf")]
    return {
        "offered": per_second,
        "callers": callers,
        "honour": honour,
        "good": flood.statuses[200],
        "good_per_s": flood.statuses[200] / seconds,
        "statuses": {str(status): count for status, count in sorted(flood.statuses.items())},
        "held_back": flood.held_back,
        "unsent": flood.unsent,
        "reconnects": flood.reconnects,
        "p50_ms": quantile(latencies, 0.50) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "max_ms": latencies[-1] * 1000,
        "sent_late_p99_ms": quantile(sorted(flood.late_s), 0.99) * 1000,
    }


@app.command()
def main(
    port: Annotated[int, typer.Option(help="Where to connect.")],
    certs: Annotated[Path, typer.Option(help="The SVIDs' folder.")],
    per_second: Annotated[float, typer.Option(help="Requests per second, of all callers.")],
    callers: Annotated[int, typer.Option(help="How many, each with a connection of its own.")] = 64,
    work_ms: Annotated[int, typer.Option(help="How long the agents take.")] = 20,
    honour: Annotated[bool, typer.Option(help="Whether they wait as retry-after says.")] = True,
    seed: Annotated[int, typer.Option(help="Of the arrival times.")] = 1,
    warm_up: Annotated[float, typer.Option("--warm-up", help="Seconds before the measured window.")] = 1.0,
    seconds: Annotated[float, typer.Option("--seconds", help="The measured window.")] = 5.0,
) -> None:
    """Goodput and latency under more load than can be served."""
    raise_file_limit()
    gc.disable()
    found = uvloop.run(_run(port, certs, callers, per_second, work_ms, warm_up, seconds, seed, honour=honour))
    print(json.dumps(found))


if __name__ == "__main__":
    app()
