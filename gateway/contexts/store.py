"""What a store is asked, and what it answers.  It sees sealed bytes, and names of which nothing can be told."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from hashlib import sha256
from typing import NamedTuple, Protocol

NAME_CHARACTERS = 32


class StoreError(Exception):
    """The store does not answer, or not as it should; the message says what is wrong."""


def name_of(text: str) -> str:
    """What stands for a conversation or a principal in a store: 128 bits of a digest, in hexadecimal."""
    return sha256(text.encode()).hexdigest()[:NAME_CHARACTERS]


class Place(NamedTuple):
    """Where a context is: the same bytes in two conversations are two contexts."""

    conversation: str
    """By `name_of`."""
    digest: str
    """SHA-256 of the bytes as they were brought, in hexadecimal."""


class Quota(NamedTuple):
    """How much a principal may have stored."""

    bytes: int
    contexts: int


class Put(Enum):
    """What came of storing."""

    STORED = "stored"
    KEPT = "kept"
    """It was there already: its age begins anew."""
    OVER_QUOTA = "over-quota"


class Store(Protocol):
    """Whoever keeps contexts, for this process or for all replicas.

    Principals are given by `name_of`.  Times are seconds since the epoch.  Everything may raise `StoreError`.
    """

    async def put(
        self, place: Place, sealed: bytes, owner: str, readers: Collection[str], quota: Quota, now: float
    ) -> Put:
        """Keep `sealed` for `owner`, whose quota it counts against, and let `readers` read it, too.

        What is there already stays at the expense of whoever brought it first.
        """
        ...

    async def get(self, place: Place, readers: Collection[str], now: float) -> bytes | None:
        """The sealed bytes, if one of `readers` may read them."""
        ...

    async def grant(self, place: Place, readers: Collection[str], reader: str, now: float) -> bool:
        """Let `reader` read it, if one of `readers` may, which is told."""
        ...

    async def erase(self, conversation: str) -> int:
        """Remove everything of a conversation; gives how many contexts that were."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove what is too old; gives how many contexts that were, as far as the store does not do it by itself."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...
