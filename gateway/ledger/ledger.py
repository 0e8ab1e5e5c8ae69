"""What a ledger is asked, and what it answers."""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

import msgspec

from gateway.messages import Fields

MAX_WAITING: Final = 1024
"""Twins that wait at a time; more are told at once that the work is under way."""


class Standing(Enum):
    """How it stands with work whose answer is not at hand."""

    BEGUN = "begun"
    """Nobody had begun it: whoever asked does it now, and tells how it ended."""
    TWIN = "twin"
    """It is under way."""
    CONFLICT = "conflict"
    """Something else was begun under its key."""
    UNKNOWN = "unknown"
    """It was begun, and nobody can tell what came of it, or the answer was too large to keep."""
    FULL = "full"
    """There is no room to remember it, so it must not begin."""
    UNAVAILABLE = "unavailable"
    """The store that would know does not answer, so it must not begin."""


class StoredAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What came of work that is done."""

    status: int
    fields: Fields
    body: bytes
    trailers: Fields | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.body) + sum(
            len(name) + len(value) for part in (self.fields, self.trailers or ()) for name, value in part
        )


Found = Standing | StoredAnswer


class Ledger(Protocol):
    """Whoever knows what has begun, in this process or for all replicas.

    Whoever is told `Standing.BEGUN` ends it with one of `finish`, `forget` and `lose`.  Until then what is under way is
    never forgotten; after that it is remembered for a time, `forget` apart.
    """

    @property
    def entries(self) -> int:
        """What this process keeps in mind, under way or not."""
        ...

    @property
    def size(self) -> int:
        """Bytes of it, about."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        ...

    async def begin(self, key: bytes, digest: bytes, now: float, wait_s: float = 0.0) -> Found:
        """Begin the work under `key`, unless it was begun before.

        Args:
            key: what stands for the work.
            digest: what it consists of.
            now: seconds since the epoch.  A clock that is set back stands still until that is made up for.
            wait_s: how long to wait for a twin's answer; if nothing came of the twin, this one begins.

        """
        ...

    def finish(self, key: bytes, answer: StoredAnswer, now: float) -> bool:
        """The work is done; ``False`` when its answer is too large to keep, so that it is as if lost."""
        ...

    def forget(self, key: bytes) -> None:
        """Nothing was done: whoever asks next may begin."""
        ...

    def lose(self, key: bytes, now: float) -> None:
        """It may have been done, and nobody can tell."""
        ...

    async def run(self) -> None:
        """Keep what is under way from being taken for lost, until cancelled."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...
