"""A ledger in this process."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Final

import msgspec

from gateway.ledger.ledger import MAX_WAITING, Found, Standing, StoredAnswer
from gateway.ledger.spec import LedgerSpec

OVERHEAD_BYTES: Final = 512
"""What an entry takes beside its answer, about."""
_AGED_PER_BEGINNING = 4


class _Flight:
    """What is under way."""

    __slots__ = ("digest", "settled")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.settled: asyncio.Future[None] | None = None
        """Resolved at its end; made for the first who waits."""


class _Settled(msgspec.Struct, frozen=True, gc=False):
    """What has ended."""

    digest: bytes
    answer: StoredAnswer | None
    """``None``: nobody can tell what came of it."""
    size: int
    until: float


class LedgerMemory:
    """A `Ledger` in this process.

    What has ended is remembered for its time, and never forgotten before: at the bounds of entries or bytes, nothing
    new begins.  An answer that does not fit into the bytes is lost, and remembered as such.
    """

    __slots__ = (
        "_capacity",
        "_flights",
        "_latest",
        "_max_answer",
        "_max_bytes",
        "_remember_s",
        "_settled",
        "_size",
        "_waiting",
    )

    def __init__(self, spec: LedgerSpec) -> None:
        self._capacity = spec.capacity
        self._max_bytes = spec.max_bytes
        self._max_answer = spec.max_answer
        self._remember_s = spec.remember_s
        self._latest = -math.inf
        self._flights: dict[bytes, _Flight] = {}
        self._settled: OrderedDict[bytes, _Settled] = OrderedDict()
        """Those first that ended first."""
        self._size = 0
        self._waiting = 0

    @property
    def entries(self) -> int:
        """See `Ledger.entries`."""
        return len(self._flights) + len(self._settled)

    @property
    def size(self) -> int:
        """See `Ledger.size`."""
        return self._size

    @property
    def trouble(self) -> str:
        """Nothing: it always answers."""
        return ""

    def begin_now(self, key: bytes, digest: bytes, now: float) -> Found:
        """`begin` without waiting, at once."""
        now = self._latest = max(now, self._latest)
        self._age(now, _AGED_PER_BEGINNING)
        flight = self._flights.get(key)
        if flight is not None:
            return Standing.TWIN if flight.digest == digest else Standing.CONFLICT
        settled = self._settled.get(key)
        if settled is not None:
            if settled.until > now:
                if settled.digest != digest:
                    return Standing.CONFLICT
                return Standing.UNKNOWN if settled.answer is None else settled.answer
            del self._settled[key]
            self._size -= settled.size
        if not self._room():
            self._age(now, self.entries)
            if not self._room():
                return Standing.FULL
        self._flights[key] = _Flight(digest)
        self._size += OVERHEAD_BYTES
        return Standing.BEGUN

    async def begin(self, key: bytes, digest: bytes, now: float, wait_s: float = 0.0) -> Found:
        """See `Ledger.begin`."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        found = self.begin_now(key, digest, now)
        while found is Standing.TWIN and self._waiting < MAX_WAITING:
            left_s = wait_s - (loop.time() - asked_at)
            if left_s <= 0:
                break
            flight = self._flights[key]
            if flight.settled is None:
                flight.settled = loop.create_future()
            self._waiting += 1
            try:
                await asyncio.wait([flight.settled], timeout=left_s)
            finally:
                self._waiting -= 1
            found = self.begin_now(key, digest, now + (loop.time() - asked_at))
        return found

    def finish(self, key: bytes, answer: StoredAnswer, now: float) -> bool:
        """See `Ledger.finish`."""
        size = answer.size
        if self._size + size > self._max_bytes:
            self._age(max(now, self._latest), self.entries)
        kept = size <= self._max_answer and self._size + size <= self._max_bytes
        self._settle(key, answer if kept else None, now)
        return kept

    def lose(self, key: bytes, now: float) -> None:
        """See `Ledger.lose`."""
        self._settle(key, None, now)

    def forget(self, key: bytes) -> None:
        """See `Ledger.forget`."""
        self._end(key)
        self._size -= OVERHEAD_BYTES

    def _settle(self, key: bytes, answer: StoredAnswer | None, now: float) -> None:
        now = self._latest = max(now, self._latest)
        size = OVERHEAD_BYTES + (answer.size if answer is not None else 0)
        digest = self._end(key)
        self._settled[key] = _Settled(digest, answer, size, now + self._remember_s)
        self._size += size - OVERHEAD_BYTES

    def _end(self, key: bytes) -> bytes:
        """It is under way no more; gives its digest."""
        flight = self._flights.pop(key)
        if flight.settled is not None:
            flight.settled.set_result(None)
        return flight.digest

    def _room(self) -> bool:
        return self.entries < self._capacity and self._size + OVERHEAD_BYTES <= self._max_bytes

    def _age(self, now: float, count: int) -> None:
        """Forget up to `count` of what was remembered for its time."""
        settled = self._settled
        for _ in range(min(count, len(settled))):
            key, first = next(iter(settled.items()))
            if first.until > now:
                return
            del settled[key]
            self._size -= first.size

    async def run(self) -> None:
        """Nothing is to be done: what is under way is known to be."""

    async def close(self) -> None:
        """Nothing is to be closed."""
