"""Long bodies and long streams: `python -m bench.streams body|sse|hold …` prints one line of JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.call import BODY, CONVERSATIONS, Connection
from bench.client import connect
from bench.http2 import Http2Connection
from bench.load import quantile
from bench.machine import raise_file_limit
from bench.process import BenchFailure, Watch

_SAMPLE_S = 0.02
_OPEN_TIMEOUT_S = 60.0
_SETTLE_S = 1.0
_SENT = re.compile(rb'"sent_ns":(\d+)\}\n\n')

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class _Memory:
    """The highest resident memory seen while it watches."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.before = self.peak = watch.rss_bytes()
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, self._watch.rss_bytes())
            await asyncio.sleep(_SAMPLE_S)

    async def stop(self) -> dict[str, int]:
        """What was seen, in bytes."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self.peak = max(self.peak, self._watch.rss_bytes())
        return {"rss_before": self.before, "rss_peak": self.peak, "rss_growth": self.peak - self.before}


class _Transfer:
    """One long body."""

    def __init__(self) -> None:
        self.received = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_data(self, data: bytes) -> None:
        self.received += len(data)

    def on_end(self, status: int) -> None:
        self.done.set_result(status)


async def _body(port: int, protocol: str, certs: Path, pid: int, size: int, *, up: bool) -> dict[str, object]:
    watch = Watch(pid)
    (connection,) = await connect([port], protocol, certs, 1)
    memory = _Memory(watch)
    transfer = _Transfer()
    cpu, started = watch.cpu_s(), time.monotonic()
    if up:
        connection.upload(b"/sink", CONVERSATIONS[0], size, transfer)
    else:
        connection.start(b"POST", b"/source?bytes=%d" % size, CONVERSATIONS[0], BODY, transfer)
        connection.flush()
    status = await transfer.done
    took = time.monotonic() - started
    cpu = watch.cpu_s() - cpu
    if status != 200 or (not up and transfer.received != size):
        raise BenchFailure(f"the body did not arrive: status {status}, {transfer.received} bytes came back")
    return {"bytes": size, "seconds": took, "cpu_s": cpu, **await memory.stop()}


class _Events:
    """One SSE stream; notes how long each event took from the agent's write to here."""

    def __init__(self, opened: asyncio.Semaphore) -> None:
        self._opened = opened
        self._rest = b""
        self._any = False
        self.ended: int | None = None
        self.latencies_s: list[float] = []

    def on_data(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._rest + data
        whole = data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
        self._rest = data[whole:]
        for sent in _SENT.findall(data[:whole]):
            self.latencies_s.append((now - int(sent)) / 1e9)
        if not self._any and whole:
            self._any = True
            self._opened.release()

    def on_end(self, status: int) -> None:
        self.ended = status
        if not self._any:
            self._opened.release()


async def _open(connections: list[Connection], streams: int, interval_ms: int) -> list[_Events]:
    """Open so many streams, and wait until each has had its first event."""
    first = asyncio.Semaphore(0)
    events = [_Events(first) for _ in range(streams)]
    path = b"/sse?interval_ms=%d&n=1000000" % interval_ms
    for number, stream in enumerate(events):
        connection = connections[number % len(connections)]
        connection.start(b"POST", path, CONVERSATIONS[number % len(CONVERSATIONS)], BODY, stream)
        connection.flush()
    async with asyncio.timeout(_OPEN_TIMEOUT_S):
        for _ in events:
            await first.acquire()
    if ended := [stream.ended for stream in events if stream.ended is not None]:
        raise BenchFailure(f"{len(ended)} of {streams} streams ended, the first with status {ended[0]}")
    return events


async def _sse(
    ports: list[int],
    protocol: str,
    certs: Path | None,
    pid: int,
    connections: int,
    streams: int,
    interval_ms: int,
    seconds: float,
) -> dict[str, object]:
    watch = Watch(pid)
    memory = _Memory(watch)
    opened = await connect(ports, protocol, certs, connections)
    events = await _open(opened, streams, interval_ms)
    await asyncio.sleep(_SETTLE_S)
    for stream in events:
        stream.latencies_s.clear()
    cpu = watch.cpu_s()
    await asyncio.sleep(seconds)
    cpu = watch.cpu_s() - cpu
    latencies = sorted(latency for stream in events for latency in stream.latencies_s)
    ended = [stream.ended for stream in events if stream.ended is not None]
    if ended:
        raise BenchFailure(f"{len(ended)} of {streams} streams ended, the first with status {ended[0]}")
    return {
        "streams": streams,
        "connections": connections,
        "events": len(latencies),
        "events_per_s": len(latencies) / seconds,
        "p50_ms": quantile(latencies, 0.50) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "max_ms": latencies[-1] * 1000,
        "cpu_us_per_event": cpu / len(latencies) * 1e6,
        **await memory.stop(),
    }


Pid = Annotated[int, typer.Option(help="The process whose CPU and memory are measured, children included.")]
ProtocolName = Annotated[str, typer.Option("--protocol", help="h2 or http/1.1.")]


@app.command()
def body(
    port: Annotated[int, typer.Option(help="Where to connect.")],
    certs: Annotated[Path, typer.Option(help="The SVIDs' folder.")],
    pid: Pid,
    direction: Annotated[str, typer.Option(help="up or down.")],
    size: Annotated[int, typer.Option(help="Bytes.")] = 2**30,
    protocol: ProtocolName = "h2",
) -> None:
    """One long body, up or down."""
    gc.disable()
    print(json.dumps(uvloop.run(_body(port, protocol, certs, pid, size, up=direction == "up"))))


@app.command()
def sse(
    port: Annotated[list[int], typer.Option(help="Where to connect; may be given several times.")],
    pid: Pid,
    certs: Annotated[Path | None, typer.Option(help="The SVIDs' folder; plaintext without it.")] = None,
    protocol: ProtocolName = "h2",
    connections: Annotated[int, typer.Option(help="How many connections carry the streams.")] = 10,
    streams: Annotated[int, typer.Option(help="Streams open at once.")] = 1000,
    interval_ms: Annotated[int, typer.Option(help="Between two events of a stream.")] = 1000,
    seconds: Annotated[float, typer.Option(help="The measured window.")] = 5.0,
) -> None:
    """Many open event streams: what they cost, and how long an event takes."""
    raise_file_limit()
    gc.disable()
    print(json.dumps(uvloop.run(_sse(port, protocol, certs, pid, connections, streams, interval_ms, seconds))))


@app.command()
def hold(
    port: Annotated[int, typer.Option(help="Where to connect.")],
    certs: Annotated[Path, typer.Option(help="The SVIDs' folder.")],
    streams: Annotated[int, typer.Option(help="Streams open at once, as many on each connection as it has.")],
) -> None:
    """Open streams on which next to nothing happens, say so in a line, and keep them open until killed."""

    async def held() -> None:
        opened = await connect([port], "h2", certs, -(-streams // Http2Connection.capacity))
        await _open(opened, streams, interval_ms=600_000)
        print(json.dumps({"open": streams}), flush=True)
        await asyncio.get_running_loop().create_future()

    raise_file_limit()
    uvloop.run(held())


if __name__ == "__main__":
    app()
