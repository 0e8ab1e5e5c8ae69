"""A ledger that all replicas share, in a Redis (or Valkey).

What Redis forgets may be done again: run it with ``maxmemory-policy noeviction``, and with ``appendonly`` to survive
restarts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import msgspec
from redis.exceptions import RedisError

from gateway.admission.replay import digest as mark_of
from gateway.ledger.ledger import MAX_WAITING, Found, Standing, StoredAnswer
from gateway.ledger.script import LUA, State, Todo
from gateway.ledger.spec import LedgerSpec
from gateway.redis_store import DEFAULT_CONNECTIONS, DEFAULT_TIMEOUT_S, Outage, connect

PREFIX: Final = b"phoenixflight:ledger:"
MAX_BATCH: Final = 500
MAX_DOUBTS: Final = 10_000
"""Beginnings that are still to be taken back; the oldest make room, and are taken for lost in time."""
RETRY_S: Final = 1.0
"""How often Redis is told again what it did not take."""
_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 0.25
"""How often a twin that is under way at another replica is looked at: at first, and at last."""

_STANDINGS = {
    State.BEGUN: Standing.BEGUN,
    State.FLIGHT: Standing.TWIN,
    State.CONFLICT: Standing.CONFLICT,
    State.UNKNOWN: Standing.UNKNOWN,
}
_ERRORS = (RedisError, OSError)
"""That there is no answer; a timeout is an OSError."""

log = logging.getLogger(__name__)


class _Flight:
    """What is under way here, until Redis knows how it ended."""

    __slots__ = ("answer", "digest", "ended", "settled", "token")

    def __init__(self, token: bytes, digest: bytes, settled: asyncio.Future[None]) -> None:
        self.token = token
        """Tells this beginning from all others."""
        self.digest = digest
        self.settled = settled
        """Resolved when Redis knows how it ended."""
        self.ended: Todo | None = None
        """How it ended, as Redis is to be told."""
        self.answer = b""


class RedisLedger:
    """A `Ledger` in Redis; when that does not answer in time, `Standing.UNAVAILABLE` is the answer.

    Its own clock decides how long a replica has been silent, so that those of the replicas do not matter.  What is
    under way is renewed each third of the lease.  How it ended is told again until Redis takes it; until then it is
    under way for this replica, and for others until its lease is over, when it is `Standing.UNKNOWN`.
    """

    __slots__ = (
        "_doubts",
        "_entropy",
        "_flights",
        "_held_bytes",
        "_outage",
        "_redis",
        "_script",
        "_spec",
        "_tasks",
        "_timeout_s",
        "_waiting",
    )

    def __init__(
        self,
        url: str,
        spec: LedgerSpec,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_connections: int = DEFAULT_CONNECTIONS,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            spec: the bounds, and how long is remembered.
            timeout_s: for everything that an answer takes, connecting and waiting for a connection included.
            max_connections: more questions than these at once wait for their turn.
            entropy: tells beginnings apart.

        """
        self._spec = spec
        self._timeout_s = timeout_s
        self._entropy = entropy
        self._redis = connect(url, max_connections)
        self._script = self._redis.register_script(LUA)
        self._outage = Outage(log, "ledger", "packets that are to be done once are refused")
        self._flights: dict[bytes, _Flight] = {}
        self._held_bytes = 0
        """Of answers that Redis does not have yet."""
        self._doubts: dict[bytes, tuple[bytes, int]] = {}
        """By token: beginnings that Redis may know of or not, with their marks and how often they were taken back."""
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def entries(self) -> int:
        """See `Ledger.entries`; what has ended is in Redis."""
        return len(self._flights)

    @property
    def size(self) -> int:
        """See `Ledger.size`."""
        return self._held_bytes

    @property
    def trouble(self) -> str:
        """See `Ledger.trouble`."""
        return self._outage.trouble

    # -- beginning --------------------------------------------------------------------------------------

    async def begin(self, key: bytes, digest: bytes, now: float, wait_s: float = 0.0) -> Found:
        """See `Ledger.begin`; the time is Redis's own."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        mark, look_s = mark_of(key), _FIRST_LOOK_S
        found = await self._ask(mark, digest)
        while found is Standing.TWIN and self._waiting < MAX_WAITING:
            left_s = until - loop.time()
            if left_s <= 0:
                break
            flight = self._flights.get(mark)
            self._waiting += 1
            try:
                if flight is not None:
                    await asyncio.wait([flight.settled], timeout=left_s)
                else:
                    await asyncio.sleep(min(look_s, left_s))
                    look_s = min(look_s * 2, _LAST_LOOK_S)
            finally:
                self._waiting -= 1
            found = await self._ask(mark, digest)
        return found

    async def _ask(self, mark: bytes, digest: bytes) -> Found:
        flight = self._flights.get(mark)
        if flight is not None:
            return Standing.TWIN if flight.digest == digest else Standing.CONFLICT
        if len(self._flights) >= self._spec.capacity or self._held_bytes > self._spec.max_bytes:
            return Standing.FULL
        token = self._entropy(12)
        try:
            async with asyncio.timeout(self._timeout_s):
                state, answer = await self._script([PREFIX + mark], self._arguments(Todo.BEGIN, digest, token))
        except _ERRORS as error:
            self._outage.failed(error)
            self._doubt(mark, token)
            return Standing.UNAVAILABLE
        except asyncio.CancelledError:
            self._doubt(mark, token)
            raise
        self._outage.answered()
        if State(state) is State.DONE:
            return msgspec.msgpack.decode(answer, type=StoredAnswer)
        standing = _STANDINGS[State(state)]
        if standing is Standing.BEGUN:
            if mark in self._flights:
                # Redis has lost its memory since another began here, a moment ago; that one's renewal tells it anew.
                self._doubt(mark, token)
                return Standing.TWIN
            self._flights[mark] = _Flight(token, digest, asyncio.get_running_loop().create_future())
        return standing

    def _doubt(self, mark: bytes, token: bytes, *, taken_back: int = 0) -> None:
        """Have a beginning taken back, should Redis know of it."""
        if len(self._doubts) >= MAX_DOUBTS:
            del self._doubts[next(iter(self._doubts))]
        self._doubts[token] = (mark, taken_back)

    def _arguments(self, todo: Todo, digest: bytes, token: bytes, answer: bytes = b"") -> list[bytes | int]:
        spec = self._spec
        return [todo.value, digest, token, round(spec.lease_s * 1000), round(spec.remember_s * 1000), answer]

    # -- ending -----------------------------------------------------------------------------------------

    def finish(self, key: bytes, answer: StoredAnswer, now: float) -> bool:
        """See `Ledger.finish`."""
        kept = answer.size <= self._spec.max_answer and self._held_bytes + answer.size <= self._spec.max_bytes
        if kept:
            self._end(key, Todo.FINISH, msgspec.msgpack.encode(answer))
        else:
            self._end(key, Todo.LOSE)
        return kept

    def forget(self, key: bytes) -> None:
        """See `Ledger.forget`."""
        self._end(key, Todo.FORGET)

    def lose(self, key: bytes, now: float) -> None:
        """See `Ledger.lose`."""
        self._end(key, Todo.LOSE)

    def _end(self, key: bytes, ended: Todo, answer: bytes = b"") -> None:
        mark = mark_of(key)
        flight = self._flights[mark]
        flight.ended, flight.answer = ended, answer
        self._held_bytes += len(answer)
        task = asyncio.get_running_loop().create_task(self._tell([mark]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, marks: Sequence[bytes]) -> None:
        """Tell Redis of flights, under way or ended."""
        told = [(mark, flight, flight.ended) for mark in marks if (flight := self._flights.get(mark)) is not None]
        taken = await self._call(
            [
                (PREFIX + mark, self._arguments(ended or Todo.RENEW, flight.digest, flight.token, flight.answer))
                for mark, flight, ended in told
            ]
        )
        for (mark, flight, ended), noted in zip(told, taken, strict=True):
            if not noted or ended is None or self._flights.get(mark) is not flight:
                continue
            del self._flights[mark]
            self._held_bytes -= len(flight.answer)
            if ended is Todo.FORGET:
                # Once more later: a renewal that was on its way at the same time may have noted it anew.
                self._doubt(mark, flight.token, taken_back=1)
            flight.settled.set_result(None)

    async def _call(self, calls: Sequence[tuple[bytes, list[bytes | int]]]) -> list[bool]:
        """Run the script for each of `calls`; which of them were answered."""
        if not calls:
            return []
        replies: list[Any]
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
                for key, arguments in calls:
                    await self._script([key], arguments, client=pipeline)
                replies = await pipeline.execute(raise_on_error=False)
        except _ERRORS as error:
            self._outage.failed(error)
            return [False] * len(calls)
        failed = [reply for reply in replies if isinstance(reply, Exception)]
        if failed:
            self._outage.failed(failed[0])
        else:
            self._outage.answered()
        return [not isinstance(reply, Exception) for reply in replies]

    # -- in the long run --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew what is under way, and tell Redis again what it did not take, until cancelled."""
        loop = asyncio.get_running_loop()
        every_s = self._spec.lease_s / 3
        renewed_at = loop.time()
        while True:
            await asyncio.sleep(min(RETRY_S, every_s))
            due = loop.time() - renewed_at >= every_s
            if due:
                renewed_at = loop.time()
            await self.tell_again(renew=due)

    async def tell_again(self, *, renew: bool) -> None:
        """Tell Redis how flights ended that it did not take, and with `renew` of those under way, too."""
        marks = [mark for mark, flight in self._flights.items() if renew or flight.ended is not None]
        for start in range(0, len(marks), MAX_BATCH):
            await self._tell(marks[start : start + MAX_BATCH])
        doubts = list(self._doubts.items())[:MAX_BATCH]
        taken = await self._call(
            [(PREFIX + mark, self._arguments(Todo.FORGET, b"", token)) for token, (mark, _) in doubts]
        )
        for (token, (mark, times)), noted in zip(doubts, taken, strict=True):
            # Twice: a beginning that was still on its way is there by the second time.
            if noted and self._doubts.pop(token, None) is not None and times == 0:
                self._doubts[token] = (mark, 1)

    async def close(self) -> None:
        """Tell Redis what it has not taken yet, once more, and close the connections."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self.tell_again(renew=False)
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
