"""Leases that all replicas share, in a Redis (or Valkey).

What Redis forgets begins anew at the ring's choice: a loss of its memory moves conversations, and breaks nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Self

from redis.exceptions import RedisError

from gateway.admission.replay import digest
from gateway.leases.batches import MAX_BATCH, Batches
from gateway.leases.holds import Holds
from gateway.leases.lease import Fate, Taken, Usable, Use, fate_of, outcome
from gateway.leases.moves import Moves
from gateway.leases.near import NearLeases
from gateway.leases.script import MOVED, PREFIX, Reading, State, Todo
from gateway.leases.spec import LeaseSpec
from gateway.redis_store import (
    DEFAULT_CONNECTIONS,
    DEFAULT_TIMEOUT_S,
    Outage,
    cancelled,
    connect,
    hear,
    words,
)

_FRESH = 1 / 12
"""Of the idle time: what was read is gone by for so long.  With the third between two renewals it is less than the half
for which a replica that had to do with a conversation is taken to have an exchange of it open."""
_QUIET_S = 1.0
"""After so long without news, whether there would be any is tried out."""
_ATTEMPTS = 4

_TODO = {Fate.HELD: Todo.STAY, Fate.MOVED: Todo.MOVE, Fate.FORCED: Todo.FORCE}

log = logging.getLogger(__name__)


class RedisLeases:
    """A `LeaseTable` in Redis; when that does not answer in time, ``None`` is the answer.

    Its own clock decides what is idle, so that those of the replicas do not matter.  What is held is renewed each third
    of the idle time, so after an open exchange a lease is live for that third longer or shorter.
    A conversation that another replica had to do with lately is not handed over: an exchange may be open there.
    While `run` hears of every lease that changes hands, what was read of one is gone by for a twelfth of the idle time.
    """

    __slots__ = (
        "_batches",
        "_clock",
        "_held",
        "_idle_s",
        "_kept",
        "_letting_go",
        "_moves",
        "_near",
        "_outage",
        "_redis",
        "_renewed",
        "_timeout_s",
        "counts",
    )

    def __init__(
        self,
        url: str,
        spec: LeaseSpec,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_connections: int = DEFAULT_CONNECTIONS,
        entropy: Callable[[int], str] = secrets.token_hex,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            spec: how long leases last.
            timeout_s: for everything that an answer takes, connecting and waiting for a connection included.
            max_connections: more questions than these at once wait for their turn; those of one turn of the event
                loop are one.
            entropy: names this replica among the others.
            clock: seconds, for how long ago something was read.

        """
        self.counts = dict.fromkeys(Fate, 0)
        self._idle_s = spec.idle_s
        self._timeout_s = timeout_s
        self._redis = connect(url, max_connections)
        self._batches = Batches(self._redis, spec.idle_s, spec.remember_s, timeout_s, b"by:%s" % entropy(4).encode())
        self._clock = clock
        self._moves = Moves(spec.moves_per_s)
        self._near = NearLeases(spec.idle_s * _FRESH, spec.capacity)
        self._outage = Outage(log, "leases", "conversations go by the ring alone")
        self._held = Holds()
        self._renewed: set[bytes] = set()
        """What was held when leases were last renewed."""
        self._kept: set[bytes] = set()
        """What is held and would be handed over, but for other exchanges: each end of one is told to Redis."""
        self._letting_go: dict[bytes, asyncio.Future[Reading]] = {}

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        return self._outage.trouble

    async def take(self, key: bytes, *, wanted: str, usable: Usable, now: float) -> Taken | None:
        """See `LeaseTable.take`."""
        mark, changes = digest(key), self._near.changes
        try:
            async with asyncio.timeout(self._timeout_s):
                taken = await self._settle(mark, wanted, usable, now)
        except (RedisError, OSError) as error:  # a timeout is an OSError
            self._outage.failed(error)
            return None
        self._outage.answered()
        if taken is not None:
            self.counts[taken.fate] += 1
            if taken.owner:
                self._near.note(mark, taken.owner, self._clock(), changes)
        return taken

    async def _settle(self, mark: bytes, wanted: str, usable: Usable, now: float) -> Taken | None:
        """Read, decide, and write what was decided if it is still as it was read; else decide anew."""
        if mark in self._letting_go:
            await asyncio.wait([self._letting_go[mark]])
        key, name = PREFIX + mark, wanted.encode()
        read = await self._batches.ask(key, Todo.LOOK, name)
        for _ in range(_ATTEMPTS):
            owner = read.owner.decode()
            if read.state is State.NEW or read.state is State.SAME:
                return Taken(owner, read.epoch, Fate.NEW if read.state is State.NEW else Fate.SAME)
            live, use = read.state is State.LIVE, usable(owner)
            alone = not self._held.shared(mark)
            what = fate_of(use, live=live, alone=alone, may_move=lambda: self._moves.allowed(now))
            if what is not Fate.KEPT:
                todo = Todo.HAND_OVER if live and use is Use.HAND_OVER else _TODO[what]
                written = await self._batches.ask(key, todo, name, read.owner, read.epoch)
                if written.state is State.HELD:
                    what = Fate.KEPT
                elif written.state is not State.DONE:
                    read = written
                    continue
            if what is Fate.KEPT and use is Use.HAND_OVER and mark in self._held:
                self._kept.add(mark)
            return outcome(what, owner, read.epoch, wanted)
        return None

    def hold(self, key: bytes) -> None:
        """See `LeaseTable.hold`."""
        self._held.add(digest(key))

    def live_at(self, key: bytes, now: float) -> str:
        """See `LeaseTable.live_at`."""
        mark = digest(key)
        self._held.add(mark)
        return self._near.owner(mark, self._clock())

    def stay(self, key: bytes, now: float, *, same: bool) -> None:
        """See `LeaseTable.stay`; as long as it is held, `run` renews it."""
        self.counts[Fate.SAME if same else Fate.KEPT] += 1

    def release(self, key: bytes, now: float) -> None:
        """See `LeaseTable.release`; it is the next renewal that tells Redis, unless others wait for it."""
        mark = digest(key)
        if self._held.remove(mark) and mark in self._kept:
            self._kept.discard(mark)
            self._let_go(mark)

    def _let_go(self, mark: bytes) -> None:
        """Have Redis know that the conversation is in no hands here.  Whoever takes it again waits for that."""
        self._renewed.discard(mark)
        self._near.forget(mark)
        self._letting_go[mark] = asked = self._batches.ask(PREFIX + mark, Todo.LET_GO)

        def told(answer: asyncio.Future[Reading]) -> None:
            if self._letting_go.get(mark) is answer:
                del self._letting_go[mark]
            error = None if answer.cancelled() else answer.exception()
            if isinstance(error, Exception):
                self._outage.failed(error)

        asked.add_done_callback(told)

    async def run(self) -> None:
        """Renew what is held, each third of the idle time, and hear of leases that change hands, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_renewing())
            tasks.create_task(self._listen())

    async def _keep_renewing(self) -> None:
        while not cancelled():
            await asyncio.sleep(self._idle_s / 3)
            await self.renew()

    async def _listen(self) -> None:
        try:
            await hear(
                self._redis,
                MOVED,
                quiet_s=_QUIET_S,
                timeout_s=self._timeout_s,
                began=self._near.begin,
                told=lambda key: self._near.forget(key.removeprefix(PREFIX)),
                lost=self._deaf,
            )
        finally:
            self._near.end()

    def _deaf(self, error: Exception) -> None:
        self._near.end()
        log.warning("leases in Redis: changes are not heard, so each packet asks: %s", words(error))

    async def renew(self) -> None:
        """Renew what is held, and once more what was at the last renewal."""
        held = set(self._held.marks())
        marks, self._renewed = list(held | self._renewed), held
        for start in range(0, len(marks), MAX_BATCH):
            questions = [
                self._batches.ask(PREFIX + mark, Todo.RENEW if mark in held else Todo.LAST)
                for mark in marks[start : start + MAX_BATCH]
            ]
            for answer in await asyncio.gather(*questions, return_exceptions=True):
                if isinstance(answer, Exception):
                    self._outage.failed(answer)
                    return
            self._outage.answered()

    async def close(self) -> None:
        """Close the connections."""
        await self._batches.close()
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
