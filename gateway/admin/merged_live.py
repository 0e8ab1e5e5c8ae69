"""``/live`` of several workers: one stream of all their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from gateway.admin.events import Reader, State
from gateway.admin.filters import Filter
from gateway.admin.live import TICK_S
from gateway.admin.merging import states
from gateway.admin.stream import Stream
from gateway.admin.workers import Followed, Workers

AGAIN_S: Final = 1.0
"""How long until a worker whose stream has ended is asked again."""


class MergedStream(Stream):
    """A stream of events that follows each worker's for as long as it is read."""

    def __init__(self, workers: Workers, path: str, wanted: Filter, left: Callable[[], None]) -> None:
        """Nothing is followed yet.

        Args:
            workers: whom to follow.
            path: what to ask them for.
            wanted: the same filter, as the path's query has it.
            left: called when it is over.

        """
        self._reader = Reader(wanted)
        super().__init__(self._reader.events(), left)
        self._workers = workers
        self._path = path
        self._states: dict[int, State] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the reader goes, or the workers have."""
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feed())
            try:
                await super().__call__(scope, receive, send)
            finally:
                feeding.cancel()

    async def _feed(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(self._follow(each)) for each in self._workers.each]
            ticking = tasks.create_task(self._tick())
            await asyncio.wait(following)
            ticking.cancel()
        self._reader.close()

    async def _follow(self, worker: Followed) -> None:
        while not self._workers.draining:
            async with aclosing(worker.lines(self._path)) as lines:
                name = ""
                async for line in lines:
                    kind, _, value = line.partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        self._take(worker.number, name, value)
            self._states.pop(worker.number, None)
            if not self._workers.draining:
                await asyncio.sleep(AGAIN_S)

    def _take(self, number: int, name: str, data: str) -> None:
        if name == "state":
            news = number not in self._states
            self._states[number] = msgspec.json.decode(data, type=State)
            if news:
                self._reader.tell(states(list(self._states.values())))
        else:
            self._reader.offer(b"event: %s\ndata: %s\n\n" % (name.encode(), data.encode()))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._states:
                self._reader.tell(states(list(self._states.values())))
