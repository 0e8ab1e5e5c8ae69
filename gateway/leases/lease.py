"""What a lease is, and what becomes of it when its conversation's next packet comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol

import msgspec


class Use(Enum):
    """Whether the agent that a conversation is at can serve it."""

    KEEP = "keep"
    """It is ready."""
    LEAVE = "leave"
    """It is draining: it serves its conversations until they are idle."""
    HAND_OVER = "hand over"
    """It is draining, and its conversations can be carried over: each leaves as soon as it is in nobody's hands."""
    LOST = "lost"
    """It is gone, or ejected."""


class Fate(Enum):
    """What became of a lease."""

    NEW = "new"
    """There was none; the conversation begins at the ring's choice."""
    SAME = "same"
    """It is where the ring would put it."""
    KEPT = "kept"
    """It is live, and so stays, though the ring would choose another agent."""
    HELD = "held"
    """It is idle and would have moved to the ring's choice, but enough others did just now."""
    MOVED = "moved"
    """It was idle, and is at the ring's choice now."""
    FORCED = "forced"
    """Its owner could not serve it any longer; it is at the ring's choice now."""


class Lease(msgspec.Struct, gc=False):
    """Where a conversation is.  The garbage collector need not look at it: it refers to nothing that refers back."""

    owner: str = ""
    """Empty while nobody has one: an exchange has called `hold` and not taken yet, or there was no room."""
    epoch: int = 0
    renewed: float = -math.inf
    open: int = 0
    """Exchanges that hold it."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """The answer to a packet of a conversation."""

    owner: str
    epoch: int
    """How many owners there have been, this one included."""
    fate: Fate
    previous: str | None = None
    """The owner until now, if the conversation has just left it."""


Usable = Callable[[str], Use]


class LeaseTable(Protocol):
    """Whoever knows where conversations are, in this process or for all replicas."""

    @property
    def counts(self) -> Mapping[Fate, int]:
        """How many packets each fate befell."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        ...

    async def take(self, key: bytes, *, wanted: str, usable: Usable, now: float) -> Taken | None:
        """Renew the lease under `key` for a packet, or make one, and tell whose it is.

        Args:
            key: what stands for the conversation.
            wanted: the agent that the ring would choose now; it is usable.
            usable: asked about the owner, if that is another one.
            now: seconds since the epoch.  A clock that is set back stands still until that is made up for.

        Returns:
            ``None`` when there is no room for another lease or the store does not answer: the packet goes to `wanted`.

        """
        ...

    def hold(self, key: bytes) -> None:
        """An exchange of the conversation begins, and is about to `take`; until `release`, the lease stays live."""
        ...

    def live_at(self, key: bytes, now: float) -> str:
        """`hold`, and the owner of a lease that is known to be live; empty for all others, which `take` sees to."""
        ...

    def stay(self, key: bytes, now: float, *, same: bool) -> None:
        """Renew the lease that `live_at` told of, and which stays.

        Args:
            key: what stands for the conversation.
            now: seconds since the epoch.
            same: the ring would put the conversation there, too.

        """
        ...

    def release(self, key: bytes, now: float) -> None:
        """An exchange that called `hold` is over."""
        ...

    async def run(self) -> None:
        """Renew what is held, until cancelled."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...


def fate_of(use: Use, *, live: bool, alone: bool, may_move: Callable[[], bool]) -> Fate:
    """What becomes of a lease whose owner is not the ring's choice.

    Args:
        use: whether the owner can serve.
        live: the conversation is not idle.
        alone: no other exchange of the conversation is open.
        may_move: asked once a conversation is free to move: whether there is room for another move now.

    """
    if use is Use.LOST or (use is Use.HAND_OVER and alone) or (use is not Use.KEEP and not live):
        return Fate.FORCED
    if live:
        return Fate.KEPT
    return Fate.MOVED if may_move() else Fate.HELD


def outcome(fate: Fate, owner: str, epoch: int, wanted: str) -> Taken:
    """What is told when `fate` befell the lease of `owner`, which had `epoch`."""
    if fate is Fate.MOVED or fate is Fate.FORCED:
        return Taken(wanted, epoch + 1, fate, owner)
    return Taken(owner, epoch, fate)
