"""When which agent is asked: each at its interval, a few at a time."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Final

from gateway.membership.health.probe import Context, probe
from gateway.membership.health.record import Record

log = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Checks under way.  With so many, or too many a second, the next one waits: it is late rather than left out."""

_GAP_S: Final = 0.001
"""Between the beginnings of two checks: a quarter of the time of one core, which packets need, too."""

_TLS_GAP_S: Final = 0.008
"""After one over TLS, which costs about eight times as much."""

_JITTER = 0.1
"""Of an interval, more or less: agents that joined together are soon asked one by one."""


class Checks:
    """Asks agents, and tells what they answered; owns the tasks that do."""

    def __init__(
        self, context: Context, on_answer: Callable[[Record, str], None], clock: Callable[[], float], rng: Random
    ) -> None:
        """Nobody is asked yet.

        Args:
            context: gives the TLS context for an agent.
            on_answer: told of whom, and why it is not well, or nothing when it is.
            clock: seconds, of the clock that the event loop waits by.
            rng: spreads the checks.

        """
        self.defects = 0
        """Checks that failed for a reason that nobody thought of; they count neither way."""
        self._context = context
        self._on_answer = on_answer
        self._clock = clock
        self._rng = rng
        self._queue: list[tuple[float, int, Record]] = []
        """A heap: due when, a tie-breaker, who.  A record stands in it once, or is being asked."""
        self._numbers = count()
        self._sooner = asyncio.Event()
        """The first of the queue is another."""

    def add(self, record: Record) -> None:
        """Ask it from now on, first at some time within its interval; `Record.check` without a check ends that."""
        if record.check is not None and not record.queued:
            record.queued = True
            self._put(record, self._clock() + record.check.interval_s * self._rng.random())

    def _put(self, record: Record, due: float) -> None:
        heapq.heappush(self._queue, (due, next(self._numbers), record))
        if self._queue[0][2] is record:
            self._sooner.set()

    async def run(self) -> None:
        """Ask, until cancelled."""
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as asking:
            while True:
                await room.acquire()
                record = await self._next()
                asking.create_task(self._ask(record)).add_done_callback(lambda _: room.release())
                await asyncio.sleep(_TLS_GAP_S if record.agent.tls else _GAP_S)

    async def _next(self) -> Record:
        while True:
            wait_s = self._queue[0][0] - self._clock() if self._queue else None
            if wait_s is not None and wait_s <= 0:
                record = heapq.heappop(self._queue)[2]
                if record.check is not None:
                    return record
                record.queued = False
                continue
            self._sooner.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    async def _ask(self, record: Record) -> None:
        check = record.check
        if check is None:
            record.queued = False
            return
        try:
            why = await probe(record.agent, check, self._context)
            if record.check is not None:  # else nobody wants to know any more
                self._on_answer(record, why)
        except Exception:
            self.defects += 1
            log.exception("agent %s could not be checked", record.agent.name)
        spread = 1 + _JITTER * (2 * self._rng.random() - 1)
        self._put(record, self._clock() + check.interval_s * spread)
