"""A store over objects with keys, such as files or those of a bucket.

``contexts/CONVERSATION/DIGEST`` has the sealed bytes.  ``readers/CONVERSATION/DIGEST/PRINCIPAL`` is empty, and lets a
principal read them; that of whoever brought them ends with a dot and their size.  ``accounts/PRINCIPAL/…`` is empty,
too, and has in its name what counts against a principal's quota.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol

from gateway.contexts.store import Place, Put, Quota

CONTEXTS: Final = "contexts/"
READERS: Final = "readers/"
ACCOUNTS: Final = "accounts/"


class Listed(NamedTuple):
    """An object, and when it was put, in seconds since the epoch."""

    key: str
    stored: float


class Objects(Protocol):
    """Where the objects are.  Everything may raise `StoreError`."""

    async def put(self, key: str, body: bytes, now: float) -> None:
        """Put an object, as of `now`, in the place of one that may be there: a reader gets the one or the other."""
        ...

    async def get(self, key: str) -> bytes | None:
        """What an object has in it."""
        ...

    async def listed(self, prefix: str) -> list[Listed]:
        """The objects whose keys begin with `prefix`, which ends with a slash."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, those that are there."""
        ...

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """While nobody else changes anything, as far as that can be had."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...


class ObjectStore:
    """A `Store` over `Objects`."""

    def __init__(self, objects: Objects, max_age_s: float) -> None:
        self._objects = objects
        self._max_age_s = max_age_s

    async def put(
        self, place: Place, sealed: bytes, owner: str, readers: Collection[str], quota: Quota, now: float
    ) -> Put:
        """See `Store.put`."""
        objects = self._objects
        async with objects.exclusive():
            marks = await self._marks(place)
            first = next((mark for mark in marks if "." in mark), "")
            if first and not await self._there(place, now):
                await self._remove([place])
                first, marks = "", []
            if first:
                payer, _, size = first.partition(".")
            else:
                payer, size = owner, str(len(sealed))
                counted = await objects.listed(f"{ACCOUNTS}{owner}/")
                sizes = [_size(each.key) for each in counted if self._is_young(each, now)]
                if len(sizes) >= quota.contexts or sum(sizes) + len(sealed) > quota.bytes:
                    return Put.OVER_QUOTA
            # Nobody can read before the last step, and what is left of a put that broke off goes when it is too old.
            await objects.put(_account(payer, place, size), b"", now)
            await objects.put(_context(place), sealed, now)
            known = {mark.partition(".")[0] for mark in marks}
            fresh = [f"{payer}.{size}", *(each for each in {owner, *readers} if each not in known and each != payer)]
            for mark in fresh:
                await objects.put(_reader(place, mark), b"", now)
        return Put.KEPT if first else Put.STORED

    async def get(self, place: Place, readers: Collection[str], now: float) -> bytes | None:
        """See `Store.get`; its age is for whoever opens it to see."""
        if not _may(await self._marks(place), readers):
            return None
        return await self._objects.get(_context(place))

    async def grant(self, place: Place, readers: Collection[str], reader: str, now: float) -> bool:
        """See `Store.grant`."""
        marks = await self._marks(place)
        if not (_may(marks, readers) and await self._there(place, now)):
            return False
        if not _may(marks, [reader]):
            async with self._objects.exclusive():
                await self._objects.put(_reader(place, reader), b"", now)
        return True

    async def erase(self, conversation: str) -> int:
        """See `Store.erase`."""
        async with self._objects.exclusive():
            found = await self._objects.listed(f"{CONTEXTS}{conversation}/")
            marks = await self._objects.listed(f"{READERS}{conversation}/")
            places = {_place(each.key) for each in (*found, *marks)}
            await self._remove(places)
        return len(found)

    async def sweep(self, now: float) -> int:
        """See `Store.sweep`."""
        objects = self._objects
        async with objects.exclusive():
            contexts = await objects.listed(CONTEXTS)
            there = {_place(each.key) for each in contexts}
            old = {_place(each.key) for each in contexts if not self._is_young(each, now)}
            marks = await objects.listed(READERS)
            orphans = {_place(each.key) for each in marks if not self._is_young(each, now)} - there
            accounts = await objects.listed(ACCOUNTS)
            await self._remove(old | orphans)
            await objects.delete(each.key for each in accounts if not self._is_young(each, now))
        return len(old)

    async def close(self) -> None:
        """See `Store.close`."""
        await self._objects.close()

    async def _marks(self, place: Place) -> list[str]:
        prefix = _reader(place, "")
        return [each.key.removeprefix(prefix) for each in await self._objects.listed(prefix)]

    async def _there(self, place: Place, now: float) -> bool:
        key = _context(place)
        found = await self._objects.listed(f"{CONTEXTS}{place.conversation}/")
        return any(each.key == key and self._is_young(each, now) for each in found)

    def _is_young(self, listed: Listed, now: float) -> bool:
        return listed.stored + self._max_age_s > now

    async def _remove(self, places: Iterable[Place]) -> None:
        for place in places:
            marks = await self._marks(place)
            owned = [mark.split(".") for mark in marks if "." in mark]
            await self._objects.delete(
                [
                    _context(place),
                    *(_account(owner, place, size) for owner, size in owned),
                    *(_reader(place, mark) for mark in marks),
                ]
            )


def _context(place: Place) -> str:
    return f"{CONTEXTS}{place.conversation}/{place.digest}"


def _reader(place: Place, mark: str) -> str:
    return f"{READERS}{place.conversation}/{place.digest}/{mark}"


def _account(principal: str, place: Place, size: str) -> str:
    return f"{ACCOUNTS}{principal}/{place.conversation}.{place.digest}.{size}"


def _size(account: str) -> int:
    return int(account.rpartition(".")[2])


def _place(key: str) -> Place:
    _, conversation, digest, *_ = key.split("/")
    return Place(conversation, digest)


def _may(marks: Iterable[str], readers: Collection[str]) -> bool:
    return any(mark.partition(".")[0] in readers for mark in marks)
