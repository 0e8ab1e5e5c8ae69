"""Registrations that replicas share, in a Redis (or Valkey).

Each registration is a key whose time to live is its lease; scripts decide who owns it, so that two replicas never
give one name to two principals.  Every replica keeps a view of all.  It hears of changes, and reads everything now
and then all the same.  A Redis that cannot be reached takes nothing away: what is known stays, and nothing new is
registered.  A Redis that comes back empty is told again what was registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from redis.exceptions import RedisError

from gateway.membership import redis_registration_scripts as scripts
from gateway.membership.registration import Registration
from gateway.membership.registration_store import (
    MAX_PER_PRINCIPAL,
    MAX_REGISTRATIONS,
    SWEEP_INTERVAL_S,
    Stored,
    nobody,
    note_end,
)
from gateway.redis_store import DEFAULT_CONNECTIONS, cancelled, connect, hear, words

DEFAULT_TIMEOUT_S: Final = 0.5
"""For everything that one question takes."""
REFRESH_S: Final = 5.0
NAMES_PER_QUESTION: Final = 500

Answer = TypeVar("Answer")
Found = Mapping[str, tuple[Registration, float] | None]
"""By name, what is registered, and how many seconds it lives."""

log = logging.getLogger(__name__)


class _ForgottenError(Exception):
    """Redis is not the one that it was: it has lost what it knew."""


class RedisRegistrations:
    """A `RegistrationStore` in Redis."""

    def __init__(
        self,
        url: str,
        *,
        max_registrations: int = MAX_REGISTRATIONS,
        max_per_principal: int = MAX_PER_PRINCIPAL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        refresh_s: float = REFRESH_S,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
        max_connections: int = DEFAULT_CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[], str] = secrets.token_hex,
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it.
            max_registrations: by all principals, in all replicas.
            max_per_principal: in all replicas.
            timeout_s: for everything that an answer takes.
            refresh_s: how often everything is read, whatever was heard.
            sweep_interval_s: how often it is looked for leases that have ended.
            max_connections: more questions than these at once wait for their turn.
            clock: counts seconds and never goes back.
            entropy: something new each time, to tell by whether Redis has lost its memory.

        """
        self.on_change: Callable[[Collection[str]], None] = nobody
        self.lost = 0
        self._redis = connect(url, max_connections)
        self._put = self._redis.register_script(scripts.PUT)
        self._retire = self._redis.register_script(scripts.RETIRE)
        self._names = self._redis.register_script(scripts.NAMES)
        self._limits = max_registrations, max_per_principal
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._sweep_interval_s = sweep_interval_s
        self._clock = clock
        self._entropy = entropy
        self._trouble = ""
        self._held: dict[str, tuple[Registration, float]] = {}
        """The view: each with the time when it ends, as far as this replica knows."""
        self._epoch: bytes | None = None
        """What Redis answers as long as it has not lost its memory."""
        self._dirty: set[str] = set()
        """What must be read again."""
        self._touched: set[str] = set()
        """What this replica changed while it was reading: what it read of these may be older."""
        self._read_all_at = -math.inf
        self._wake = asyncio.Event()

    @property
    def trouble(self) -> str:
        return self._trouble

    @property
    def count(self) -> int:
        return len(self._held)

    def get(self, name: str) -> Registration | None:
        held = self._held.get(name)
        return held[0] if held is not None else None

    def expires_in_s(self, name: str) -> float:
        held = self._held.get(name)
        return max(0.0, held[1] - self._clock()) if held is not None else 0.0

    async def put(self, registration: Registration) -> Stored:
        until = self._clock() + registration.lease_s
        answer = await self._decide(self._put(*self._put_arguments(registration, registration.lease_s)))
        if answer in (Stored.CREATED, Stored.RENEWED):
            self._adopt({registration.name: (registration, until)})
        return answer

    async def retire(self, name: str, owner: str, drain_s: float) -> Stored:
        until = self._clock() + drain_s
        answer = await self._decide(self._retire(scripts.keys(name, owner), [name, owner, scripts.ms(drain_s)]))
        if answer is Stored.RETIRED and (held := self.get(name)) is not None:
            self._adopt({name: (msgspec.structs.replace(held, draining=True), until)})
            if not drain_s:
                self._adopt({name: None})
        return answer

    def _put_arguments(self, registration: Registration, lease_s: float, *more: str) -> tuple[list[str], list[Any]]:
        name, owner, value = registration.name, registration.owner, scripts.written(registration)
        arguments = [name, owner, value, scripts.ms(lease_s), *self._limits, *(more or ("",))]
        return scripts.keys(name, owner), arguments

    async def _decide(self, question: Awaitable[Any]) -> Stored:
        try:
            answer = await self._ask(question)
        except (RedisError, OSError) as error:
            self._tell(words(error))
            return Stored.UNAVAILABLE
        self._tell("")
        return Stored(answer.decode())

    async def _ask(self, question: Awaitable[Answer]) -> Answer:
        async with asyncio.timeout(self._timeout_s):  # a timeout is an OSError
            return await question

    def _tell(self, trouble: str) -> None:
        before, self._trouble = self._trouble, trouble
        if trouble and not before:
            log.warning("registrations in Redis: %s; what is known stays, nothing new is registered", trouble)
        elif before and not trouble:
            log.info("registrations in Redis: answers again")
        if bool(before) != bool(trouble):
            self.on_change(())

    # -- following --------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._follow())

    async def _listen(self) -> None:
        await hear(
            self._redis,
            scripts.CHANNEL,
            quiet_s=self._refresh_s,
            timeout_s=self._timeout_s,
            began=self._read_all_soon,  # for what was said while nobody listened
            told=self._hear,
            lost=self._deaf,
        )

    def _deaf(self, error: Exception) -> None:
        log.warning("registrations in Redis: changes are not heard, only read now and then: %s", words(error))
        self._read_all_soon()  # which tells whether there is more to it

    def _hear(self, said: bytes) -> None:
        name = said.removeprefix(scripts.GONE).decode(errors="replace")
        held = self._held.get(name)
        if held is not None and said.startswith(scripts.GONE):
            self._held[name] = msgspec.structs.replace(held[0], draining=True), held[1]
        self._dirty.add(name)
        self._wake.set()

    def _read_all_soon(self) -> None:
        self._read_all_at = -math.inf
        self._wake.set()

    async def _follow(self) -> None:
        while not cancelled():
            now = self._clock()
            self._dirty.update(name for name, (_, until) in self._held.items() if until <= now)
            try:
                if now >= self._read_all_at:
                    self._read_all_at = now + self._refresh_s
                    await self._read_all()
                elif self._dirty:
                    await self._read(self._dirty)
            except (RedisError, OSError) as error:
                self._read_all_at = -math.inf
                self._tell(words(error))
            except _ForgottenError:
                self._read_all_soon()
            await self._pause()

    async def _pause(self) -> None:
        """Wait until there is something to read, but no longer than a sweep's interval."""
        if cancelled():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._sweep_interval_s):
                await self._wake.wait()
        self._wake.clear()

    async def _read_all(self) -> None:
        epoch, names = await self._ask(self._names([scripts.INDEX, scripts.EPOCH], [self._entropy()]))
        if self._epoch is not None and epoch != self._epoch:
            log.warning("registrations in Redis: it has lost its memory, and is told again what is registered")
            await self._restore()
            _, names = await self._ask(self._names([scripts.INDEX, scripts.EPOCH], [""]))
        self._epoch = epoch
        await self._read({name.decode() for name in names} | self._held.keys())

    async def _restore(self) -> None:
        """Have Redis know what this replica knows; each gets a whole lease, to be renewed in."""
        now = self._clock()
        for registrations in _pieces(list(self._held.values())):
            pipeline = self._redis.pipeline(transaction=False)
            for registration, until in registrations:
                lease_s = max(until - now, 0.001) if registration.draining else registration.lease_s
                await self._put(*self._put_arguments(registration, lease_s, "restore"), client=pipeline)
            await self._ask(pipeline.execute())

    async def _read(self, names: Iterable[str]) -> None:
        """Bring the view of `names` up to date.

        Raises:
            _ForgottenError: Redis has lost its memory, so that what it does not know says nothing.

        """
        self._touched.clear()
        for piece in _pieces(sorted(names)):
            self._dirty.difference_update(piece)
            try:
                found = await self._look(piece)
            except BaseException:
                self._dirty.update(piece)
                raise
            again = self._touched.intersection(piece)
            self._dirty |= again
            self._adopt({name: each for name, each in found.items() if name not in again})
        self._tell("")

    async def _look(self, names: list[str]) -> Found:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.get(scripts.EPOCH)
        for name in names:
            pipeline.get(scripts.entry(name))
            pipeline.pttl(scripts.entry(name))
        now = self._clock()
        epoch, *answers = await self._ask(pipeline.execute())
        if epoch != self._epoch:
            raise _ForgottenError
        found: dict[str, tuple[Registration, float] | None] = {}
        for index, name in enumerate(names):
            value, ttl_ms = answers[2 * index : 2 * index + 2]
            try:
                fresh = scripts.read(value) if value is not None and ttl_ms > 0 else None
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                # Written by another version: what this one knew of it stays.
                log.error("registrations in Redis: %s cannot be read: %s", name, error)
                continue
            found[name] = (fresh, now + ttl_ms / 1000) if fresh is not None else None
        return found

    def _adopt(self, found: Found) -> None:
        changed: list[str] = []
        for name, fresh in found.items():
            self._touched.add(name)
            before = self._held.get(name)
            if fresh is not None:
                self._held[name] = fresh
                if before is None or before[0] != fresh[0]:
                    changed.append(name)
            elif before is not None:
                del self._held[name]
                self.lost += note_end(before[0])
                changed.append(name)
        if changed:
            self.on_change(changed)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


Item = TypeVar("Item")


def _pieces(items: list[Item]) -> Iterable[list[Item]]:
    for start in range(0, len(items), NAMES_PER_QUESTION):
        yield items[start : start + NAMES_PER_QUESTION]
