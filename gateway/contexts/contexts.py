"""The room itself: what is stored, who may read it, and for how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from enum import Enum
from hashlib import sha256
from typing import Final

from gateway.contexts.cipher import Cipher, DamagedError
from gateway.contexts.spec import ContextSpec
from gateway.contexts.store import Place, Put, Quota, Store, StoreError, name_of

log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 8
"""Contexts that are sealed, opened, written and read at a time; others wait, so that memory is bounded."""
SWEEP_S: Final = 300.0
"""How often what is too old is removed; nobody gets it meanwhile."""


class Event(Enum):
    """What is counted."""

    STORED = "stored"
    KEPT = "kept"
    """It was there already."""
    READ = "read"
    GRANTED = "granted"
    """An agent that was handed a packet may read what it refers to."""
    INLINED = "inlined"
    """An agent was given it with a packet."""
    UNKNOWN = "unknown"
    """There is none, or not for whoever asked."""
    MISMATCH = "mismatch"
    """The bytes are not those of the digest."""
    QUOTA = "quota"
    DAMAGED = "damaged"
    """It was changed where it is kept, or its key is gone."""
    UNAVAILABLE = "unavailable"
    """The store did not answer."""
    ERASED = "erased"
    EXPIRED = "expired"
    """It was removed for its age."""


class MismatchError(ValueError):
    """The bytes are not those of the digest."""


class Contexts:
    """Keeps contexts in a `Store`, sealed.

    Whoever stored one may read it, and whoever it was granted to.  A principal stands for those that it has the work
    from: `readers` of a question are the caller and its verified lineage.
    """

    def __init__(self, spec: ContextSpec, store: Store, cipher: Cipher, clock: Callable[[], float]) -> None:
        """Args: `clock` gives seconds since the epoch."""
        self.spec = spec
        self.counts = dict.fromkeys(Event, 0)
        self._store = store
        self._cipher = cipher
        self._clock = clock
        self._quota = Quota(spec.max_bytes, spec.max_count)
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._silent = False
        """The store did not answer the last time."""

    async def put(self, conversation: str, digest: str, body: bytes, owner: str, lineage: Collection[str] = ()) -> Put:
        """Store `body` for `owner`, and for those of its `lineage`.

        Raises:
            MismatchError: it is not what `digest` (hexadecimal SHA-256) was made of.
            StoreError: the store does not answer.

        """
        place = Place(name_of(conversation), digest)
        now = self._clock()

        def sealed() -> bytes:
            if sha256(body).hexdigest() != digest:
                self.counts[Event.MISMATCH] += 1
                raise MismatchError("the body is not the one that the digest was made of")
            return self._cipher.seal(place, body, now)

        async with self._turns:
            content = await asyncio.to_thread(sealed)
            readers = [name_of(each) for each in lineage]
            with self._asked():
                found = await self._store.put(place, content, name_of(owner), readers, self._quota, now)
        self.counts[_PUTS[found]] += 1
        return found

    async def get(self, conversation: str, digest: str, readers: Collection[str]) -> bytes | None:
        """The bytes; ``None`` when there are none, or none of `readers` may read them.

        Raises:
            DamagedError: they are not as they were stored.
            StoreError: the store does not answer.

        """
        place = Place(name_of(conversation), digest)
        now = self._clock()
        async with self._turns:
            with self._asked():
                sealed = await self._store.get(place, [name_of(each) for each in readers], now)
            if sealed is None:
                self.counts[Event.UNKNOWN] += 1
                return None
            try:
                found = await asyncio.to_thread(self._cipher.open, place, sealed)
            except DamagedError as error:
                self.counts[Event.DAMAGED] += 1
                log.error("context %s of conversation %s: %s", digest, place.conversation, error)
                raise
        if found.stored + self.spec.max_age_s <= now:
            self.counts[Event.UNKNOWN] += 1
            return None
        self.counts[Event.READ] += 1
        return found.body

    async def grant(self, conversation: str, digest: str, readers: Collection[str], reader: str) -> bool:
        """Let `reader` read it; ``False`` when there is none, or none of `readers` may read it.

        Raises:
            StoreError: the store does not answer.

        """
        place = Place(name_of(conversation), digest)
        names = [name_of(each) for each in readers]
        with self._asked():
            granted = await self._store.grant(place, names, name_of(reader), self._clock())
        self.counts[Event.GRANTED if granted else Event.UNKNOWN] += 1
        return granted

    async def erase(self, conversation: str) -> int:
        """Remove everything of a conversation; gives how many contexts that were.

        Raises:
            StoreError: the store does not answer; what is left can be erased again.

        """
        with self._asked():
            count = await self._store.erase(name_of(conversation))
        self.counts[Event.ERASED] += count
        return count

    async def run(self) -> None:
        """Remove what is too old, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                with self._asked():
                    self.counts[Event.EXPIRED] += await self._store.sweep(self._clock())
            except StoreError:
                pass  # it has been counted and told, and will be tried again

    async def close(self) -> None:
        """Ask no more."""
        await self._store.close()

    def _asked(self) -> _Asked:
        return _Asked(self)

    def _told(self, error: BaseException | None) -> None:
        """Note whether the store has answered; the log has the first silence and the first answer after it."""
        if isinstance(error, StoreError):
            self.counts[Event.UNAVAILABLE] += 1
            if not self._silent:
                log.warning("contexts: %s; what takes a context is refused meanwhile", error)
            self._silent = True
        elif error is None and self._silent:
            log.info("contexts: the store answers again")
            self._silent = False


class _Asked:
    """While the store is asked."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._contexts._told(error)


_PUTS = {Put.STORED: Event.STORED, Put.KEPT: Event.KEPT, Put.OVER_QUOTA: Event.QUOTA}
