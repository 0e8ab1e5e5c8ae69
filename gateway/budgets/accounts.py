"""What the keeper of accounts is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

import msgspec

KEEP_S: Final = 600.0
"""How long an account is known after it was last touched: longer than any credential that names it lives (300 s), and
than the packet may have waited for its agent."""
MAX_ANCESTORS: Final = 64
"""How far up what comes back is passed on."""


class Parent(msgspec.Struct, frozen=True):
    """Whose account another is taken out of."""

    id: str
    budget: Mapping[str, int]
    """What it began with, for a keeper that does not know it; a unit that is missing is without limit."""
    born_ms: int
    """When it was opened, in milliseconds since the epoch; 0 if that is not known."""


class Asked(msgspec.Struct, frozen=True):
    """An account to be opened."""

    account: str
    parent: Parent | None
    """``None``: nobody's, so that there is nothing to take it from."""
    amounts: Mapping[str, int]
    """The most that it is to have, by unit."""


class Reserved(msgspec.Struct, frozen=True):
    """It is open."""

    amounts: Mapping[str, int]
    """What it has: as much as was asked for, or what its parent had left."""


class Short(msgspec.Struct, frozen=True):
    """There is nothing left."""

    unit: str


class Trouble(Enum):
    """Why an account is not open, otherwise."""

    CLOSED = "closed"
    """The work that its parent was opened for is over."""
    LOST = "lost"
    """The store has lost its memory since its parent was opened: what that has left, nobody knows."""
    FULL = "full"
    """There is no room to remember it."""
    UNAVAILABLE = "unavailable"
    """The store does not answer, and what may be spent without it is spent."""


Opened = Reserved | Short | Trouble


class Accounts(Protocol):
    """Whoever keeps accounts, in this process or for all replicas.

    What is reserved is taken out of the parent's account at once.  Whoever is told `Reserved` says in the end what was
    spent: the rest goes back to the parent, or where that is closed to its parent.
    """

    @property
    def entries(self) -> int:
        """Accounts that this process keeps in mind."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        ...

    @property
    def errors(self) -> int:
        """How many questions had none."""
        ...

    async def open(self, asked: Asked, now: float) -> Opened:
        """Open an account; `now` is in seconds since the epoch."""
        ...

    def settle(self, account: str, spent: Mapping[str, int], now: float) -> None:
        """Close an account, of which so much was `spent` beside what its children were given; nothing is a refund."""
        ...

    async def run(self) -> None:
        """Make up for what a store did not take, until cancelled."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...
