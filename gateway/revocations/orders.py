"""What operators have ordered, in this process or in all replicas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from gateway.authority.revocations import Entry, Kind
from gateway.revocations.keep import NOTHING_KEPT, Kept

Key = tuple[Kind, str]

MAX_ORDERS: Final = 10_000
"""Beyond it nothing more is revoked by order, and the operator is told."""


class Orders(Protocol):
    """Whoever keeps them."""

    @property
    def entries(self) -> Iterable[Entry]:
        """Those that are known here."""
        ...

    @property
    def kept(self) -> Kept:
        """What is to be kept over a restart."""
        ...

    @property
    def trouble(self) -> str:
        """Why other replicas may not know what this one knows, or the reverse; empty when all is well."""
        ...

    @property
    def age_s(self) -> float:
        """How long ago other replicas' orders were last read; 0 where there are none."""
        ...

    def put(self, entry: Entry) -> None:
        """Revoke; in force here at once."""
        ...

    def take_back(self, key: Key) -> bool:
        """Undo; ``False`` when nothing like it was ordered."""
        ...

    def strike_out(self, now: float) -> bool:
        """Forget what has ended; whether there was any."""
        ...

    async def sync(self) -> bool:
        """Tell other replicas, and hear of theirs; whether what is to be kept is another now."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...


class MemoryOrders:
    """`Orders` of a gateway without replicas."""

    trouble = ""
    age_s = 0.0

    def __init__(self, kept: Kept = NOTHING_KEPT) -> None:
        """Nothing is ordered but what was `kept`."""
        self._entries = {each.key: each for each in kept.orders}

    @property
    def entries(self) -> Iterable[Entry]:
        """See `Orders.entries`."""
        return self._entries.values()

    @property
    def kept(self) -> Kept:
        """See `Orders.kept`."""
        return Kept(tuple(self._entries.values()))

    def put(self, entry: Entry) -> None:
        """See `Orders.put`."""
        self._entries[entry.key] = entry

    def take_back(self, key: Key) -> bool:
        """See `Orders.take_back`."""
        return self._entries.pop(key, None) is not None

    def strike_out(self, now: float) -> bool:
        """See `Orders.strike_out`."""
        over = [key for key, each in self._entries.items() if each.until <= now]
        for key in over:
            del self._entries[key]
        return bool(over)

    async def sync(self) -> bool:
        """Nobody is to be told."""
        return False

    async def close(self) -> None:
        """There is nothing to close."""
