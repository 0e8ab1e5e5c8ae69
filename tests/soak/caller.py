"""Callers of the soak: ``python -m tests.soak.caller SETTINGS``, in JSON; see `Settings`.

Each packet leaves a line: when it ended (seconds since the epoch), its id, its method, what became of it (a status, 0
for none, -1 for one that the caller itself broke off, -2 for one that the gateway did not take).  In the end one line
of JSON on the standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TextIO

import uvloop

from bench.client import tls_context
from tests.soak.connections import Connection, OverHttp1, OverHttp2

CANCELLED = -1
_TURNED_AWAY = (429, 503)
_BODY = b"x" * 200
_METHODS = [(b"POST", _BODY)] * 6 + [(b"GET", b"")] * 3 + [(b"PUT", _BODY)]
_CONVERSATIONS = 500
_TICK_S = 0.01
_STREAMS_PER_S = 2.0
_DRAIN_S = 5.0


@dataclass(frozen=True)
class Settings:
    """What is asked of this process."""

    name: str
    port: int
    certs: str
    out: str
    seconds: float
    rate: float = 0.0
    """Packets a second; 0 keeps `in_flight` of them under way instead, as fast as they are answered."""
    in_flight: int = 32
    cancels: float = 0.0
    """The share of packets that are broken off at once."""
    http2: int = 2
    """Connections; so is `http1`."""
    http1: int = 8


class Packet:
    """One packet under way."""

    __slots__ = ("callers", "connection", "id", "leaving", "method", "stream")

    def __init__(self, callers: Callers, packet: bytes, method: bytes, connection: Connection) -> None:
        self.callers = callers
        self.id = packet
        self.method = method
        self.connection = connection
        self.stream = 0
        self.leaving: asyncio.TimerHandle | None = None

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, status: int) -> None:
        if self.leaving is not None:
            self.leaving.cancel()
        if status in _TURNED_AWAY:
            self.connection.rests_until = time.monotonic() + self.connection.retry_after_s
        self.callers.ended(self, status)

    def leave(self) -> None:
        self.leaving = None
        self.connection.cancel(self.stream)
        self.callers.ended(self, CANCELLED)


class Callers:
    """All of them in this process."""

    def __init__(self, settings: Settings, out: TextIO) -> None:
        self._settings = settings
        self._out = out
        self._numbers = count()
        self._random = random.Random(settings.name)
        self.under_way = 0
        self.answered = 0
        self._held_back = 0
        """Packets that were due when no connection had room, or all were asked to wait: they are not sent."""
        self._stopping = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connections: list[Connection] = []

    async def run(self) -> dict[str, object]:
        """Send packets for as long as is asked."""
        settings = self._settings
        wanted = ["h2"] * settings.http2 + ["http/1.1"] * settings.http1
        self._connections = [await self._connect(protocol) for protocol in wanted]
        began = due = next_stream = time.monotonic()
        while (now := time.monotonic()) < began + settings.seconds:
            for at, protocol in enumerate(wanted):
                if self._connections[at].lost or self._connections[at].going:
                    self._connections[at] = await self._connect(protocol)
            if settings.rate:
                while due < now:
                    due += self._random.expovariate(settings.rate)
                    self._ask(b"/run", 0.002 if self._random.random() < settings.cancels else None)
                if now > next_stream:
                    next_stream += self._random.expovariate(_STREAMS_PER_S)
                    self._ask(b"/events", self._random.uniform(0.05, 4.0), stream=True)
            else:
                while self.under_way < settings.in_flight and self._ask(b"/run", None):
                    pass
            for connection in self._connections:
                connection.flush()
            await asyncio.sleep(_TICK_S if settings.rate else 0.001)
        took = time.monotonic() - began
        rate = self.answered / took
        self._stopping = True
        if self.under_way:
            await asyncio.wait([self._over], timeout=_DRAIN_S)
        return {"per_second": rate, "unanswered": self.under_way, "held_back": self._held_back}

    async def _connect(self, protocol: str) -> Connection:
        context = tls_context(Path(self._settings.certs), protocol)
        factory = OverHttp2 if protocol == "h2" else OverHttp1
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            factory, "127.0.0.1", self._settings.port, ssl=context, server_hostname="localhost"
        )
        return connection  # type: ignore[return-value]

    def _ask(self, path: bytes, leave_after_s: float | None, *, stream: bool = False) -> bool:
        now = time.monotonic()
        free = [each for each in self._connections if each.in_flight < each.capacity and each.rests_until <= now]
        free = [each for each in free if not (each.lost or each.going)]
        if not free:
            self._held_back += 1
            return False
        connection = self._random.choice(free)
        method, body = (b"GET", b"") if stream else self._random.choice(_METHODS)
        packet = Packet(self, b"%s-%d" % (self._settings.name.encode(), next(self._numbers)), method, connection)
        self.under_way += 1
        conversation = b"c-%d" % self._random.randrange(_CONVERSATIONS)
        packet.stream = connection.ask(method, path, packet.id, conversation, body, packet)
        if leave_after_s is not None:
            packet.leaving = asyncio.get_running_loop().call_later(leave_after_s, packet.leave)
        return True

    def ended(self, packet: Packet, status: int) -> None:
        """It was answered, broken off, or lost."""
        self.under_way -= 1
        self.answered += status == 200
        self._out.write(f"{time.time():.3f} {packet.id.decode()} {packet.method.decode()} {status}\n")
        if self._stopping and not self.under_way:
            self._over.set_result(None)


async def run(settings: Settings, out: TextIO) -> dict[str, object]:
    return await Callers(settings, out).run()


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    with Path(settings.out).open("w") as out:
        told = uvloop.run(run(settings, out))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    gc.freeze()
    main()
