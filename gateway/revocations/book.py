"""The book of what is revoked: documents, and orders of operators here and at other replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.authority.revocations import NO_REVOCATIONS, Entry, Kind, Revocations
from gateway.revocations.keep import write_kept
from gateway.revocations.orders import MAX_ORDERS, Orders

INTERVAL_S: Final = 1.0
"""How often other replicas' orders are asked for."""

log = logging.getLogger(__name__)


class OrderError(Exception):
    """An order that cannot be followed; the message says why."""


class Book:
    """Owns what is revoked; `current` is replaced, and `changed` called, when it is another."""

    def __init__(
        self,
        orders: Orders,
        clock: Callable[[], float],
        changed: Callable[[Revocations], None],
        *,
        keep: Path | None = None,
    ) -> None:
        """Begin with what `orders` know.

        Args:
            orders: of operators.
            clock: seconds since the epoch.
            changed: told of what is in force.
            keep: where orders are kept over a restart.

        """
        self._orders = orders
        self._clock = clock
        self._changed = changed
        self._keep = keep
        self._unkept = ""
        self._listed: tuple[Entry, ...] = ()
        self.current = NO_REVOCATIONS
        self._turn()

    @property
    def trouble(self) -> str:
        """Why what is ordered may not be known everywhere, or not after a restart; empty when all is well."""
        return self._orders.trouble or self._unkept

    @property
    def age_s(self) -> float:
        """See `Orders.age_s`."""
        return self._orders.age_s

    def counts(self) -> dict[Kind, int]:
        """How many entries there are of each kind."""
        counts = dict.fromkeys(Kind, 0)
        for each in self.current.entries:
            counts[each.kind] += 1
        return counts

    def list(self, entries: tuple[Entry, ...]) -> None:
        """From now on documents say this."""
        self._listed = entries
        self._turn()

    async def put(self, entry: Entry) -> None:
        """Revoke: here when this is called, at the other replicas when it returns, unless there is `trouble`.

        Raises:
            OrderError: there are too many orders.

        """
        known = {each.key for each in self._orders.entries}
        if len(known) >= MAX_ORDERS and entry.key not in known:
            raise OrderError(f"there are {MAX_ORDERS} orders; take some back, or name a principal instead")
        self._orders.put(entry)
        self._settle()
        await self.sync()

    async def take_back(self, kind: Kind, value: str) -> None:
        """Undo an order.

        Raises:
            OrderError: there is none, or a document says so, too.

        """
        await self.sync()  # it may have been ordered elsewhere a moment ago
        done = self._orders.take_back((kind, value))
        self._settle()
        await self.sync()
        listed = next((each.who for each in self._listed if each.key == (kind, value)), None)
        if listed is not None:
            raise OrderError(f"{listed} revokes it: it ends when it is taken out of there")
        if not done:
            raise OrderError(f"no operator has revoked the {kind.value} {value}")

    async def sync(self) -> None:
        """Tell and hear other replicas, once."""
        if await self._orders.sync():
            self._settle()

    async def run(self) -> None:
        """Keep up with other replicas, and strike out what has ended, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self._strike_out()
                await self.sync()
            except Exception:
                # What is revoked stays so, and the next second is another try.
                log.exception("revocations could not be brought up to date")

    def _strike_out(self) -> None:
        now = self._clock()
        if self._orders.strike_out(now) or any(each.until <= now for each in self.current.entries):
            self._settle()

    def _settle(self) -> None:
        """Put in force what there is, and keep it."""
        self._turn()
        if self._keep is None:
            return
        try:
            write_kept(self._keep, self._orders.kept)
            self._unkept = ""
        except OSError as error:
            self._unkept = f"{self._keep} cannot be written: {error.strerror or error}"
            log.error("revocations: %s", self._unkept)

    def _turn(self) -> None:
        now = self._clock()
        after = Revocations(each for each in (*self._listed, *self._orders.entries) if each.until > now)
        if after.entries != self.current.entries:
            self.current = after if after else NO_REVOCATIONS
            self._changed(self.current)
